"""The kernel against a hostile world: whatever comes, in whatever order, its invariants hold.

The drill itself checks at every tick that a decision can be rolled back, that deciding twice decides alike, and that
the stored delta alone leads to the same state.
"""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.definition import RetryPolicy
from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput
from tests.unit.workflows.drill import Drill, launch_input, task

STEPS = (
    "complete", "start", "fail", "fail_for_good", "return", "repeat", "stale_attempt", "lose_host", "bind", "pause",
    "resume", "checkpoint", "rewind", "wait_a_little", "wait_long", "tick", "older_owner", "repeat_entry",
)  # fmt: skip


@st.composite
def launches(draw: st.DrawFn) -> ExecutionInput:
    tasks = []
    for n in range(draw(st.integers(1, 10))):
        deps = draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set()
        tasks.append(
            task(
                f"t{n}",
                tuple(sorted(deps)),
                role=draw(st.sampled_from(["worker", "writer"])),
                retry=RetryPolicy(max_attempts=draw(st.integers(1, 3))),
                alone=draw(st.booleans()) and draw(st.booleans()),
                slack_ms=draw(st.integers(0, 3)) * 1_000,
                timeout_ms=20_000,
            )
        )
    return launch_input(
        *tasks,
        agents=draw(st.integers(1, 3)),
        on_failure=draw(st.sampled_from(["fail_fast", "finish_branches"])),
        pause_grace_ms=5_000,
        checkpoint_interval_ms=draw(st.sampled_from([3_000, 300_000])),
        timeout_ms=10**9,
    )


class Chaos:
    """Carries out steps; remembers what was sent, so that it can send it again."""

    def __init__(self, drill: Drill, data: st.DataObject) -> None:
        self.drill = drill
        self.data = data
        self.sent: list[AgentEvent] = []
        self.entries: list[InboxBatch] = []
        self.hosts = 1

    def step(self, name: str) -> None:
        drill = self.drill
        flying = drill.in_flight()
        if name in ("complete", "start", "fail", "fail_for_good", "return") and flying:
            attempt = self.data.draw(st.sampled_from(flying))
            made = {
                "complete": lambda: drill.completed(attempt, result=attempt.attempt),
                "start": lambda: drill.started(attempt),
                "fail": lambda: drill.failed(attempt),
                "fail_for_good": lambda: drill.failed(attempt, retryable=False),
                "return": lambda: drill.event(AgentEventType.TASK_RETURNED, attempt),
            }
            self.send(made[name]())
        elif name == "repeat" and self.sent:
            self.send(self.data.draw(st.sampled_from(self.sent)))
        elif name == "stale_attempt" and flying:
            attempt = self.data.draw(st.sampled_from(flying))
            self.send(drill.completed(attempt.model_copy(update={"attempt": attempt.attempt - 1}), result="stale"))
        elif name == "repeat_entry" and self.entries:
            drill.inbox.batches.append(self.data.draw(st.sampled_from(self.entries)))
        elif name == "older_owner" and flying:
            drill.receive(drill.completed(flying[0]), fence=0)
        elif name == "lose_host":
            drill.host_lost(f"host-{self.hosts}")
        elif name == "bind":
            self.bind_all()
        elif name in ("pause", "resume", "checkpoint"):
            drill.control(name)
        elif name == "rewind" and drill.state.paused:
            done = [a for d in drill.deltas if d.checkpoint for a in d.checkpoint.completed]
            point = drill.state.latest_checkpoint or ""
            completed = [t.id for t, run in zip(drill.state.specs, drill.state.tasks, strict=True) if run.phase == 5]
            drill.rewind_to(point, *(t for t in completed if t not in done))
        elif name == "wait_a_little":
            drill.now_ms += 900
        elif name == "wait_long":
            drill.now_ms += 11_000

    def send(self, event: AgentEvent) -> None:
        self.sent.append(event)
        self.drill.receive(event)
        self.entries.append(self.drill.inbox.batches[-1])

    def bind_all(self) -> None:
        self.hosts += 1
        self.drill.bind(*self.drill.state.unbound_agents(), host_id=f"host-{self.hosts}")


@settings(max_examples=300, deadline=None)
@given(launch=launches(), data=st.data())
def test_whatever_comes_the_invariants_hold_and_an_honest_end_is_reached(
    launch: ExecutionInput, data: st.DataObject
) -> None:
    drill = Drill(launch)
    chaos = Chaos(drill, data)
    drill.tick()
    for name in data.draw(st.lists(st.sampled_from(STEPS), max_size=40)):
        chaos.step(name)
        if name in ("tick", "pause", "resume", "rewind") or data.draw(st.booleans()):
            drill.tick()
        if drill.state.closed:
            break
    if not drill.state.closed:
        if drill.state.paused:
            drill.control("resume", request_id="the end")
            drill.tick()
        drill.tick()
        chaos.bind_all()
        drill.finish()
    check_order(drill)
    check_pauses(drill)
    check_end(drill)


def check_order(drill: Drill) -> None:
    """Nothing starts before its dependencies are done; nothing is done twice in an epoch; attempts only rise."""
    names = [t.id for t in drill.state.specs]
    done: set[str] = set()
    attempts: dict[str, int] = {}
    for delta in drill.deltas:
        if delta.rewind is not None:
            done -= set(delta.rewind.tasks)
        for item in delta.done:
            assert item.task_id not in done, "a task is completed once in an epoch"
            done.add(item.task_id)
        for attempt in delta.assigned:
            task = drill.state.specs[names.index(attempt.task_id)]
            assert {names[d] for d in task.deps} <= done, "dependencies are done before a task starts"
            assert attempt.task_id not in done
            assert attempt.attempt > attempts.get(attempt.task_id, 0), "attempts are never used again"
            attempts[attempt.task_id] = attempt.attempt


def check_pauses(drill: Drill) -> None:
    """While paused nothing is assigned."""
    status = ExecutionStatus.PLANNING
    for delta in drill.deltas:
        status = delta.status or status
        if status is ExecutionStatus.PAUSED:
            assert delta.assigned == ()


def check_end(drill: Drill) -> None:
    """Closed for a reason: completed when every task is, failed when one was given up."""
    state = drill.state
    assert state.closed
    given_up = any(item.retry_at_ms is None for delta in drill.deltas for item in delta.failed)
    if state.status is ExecutionStatus.COMPLETED:
        assert all(run.phase in (5, 7) for run in state.tasks)
        assert state.failed == 0
    else:
        assert given_up
        assert drill.deltas[-1].error is not None or state.status is ExecutionStatus.FAILED
