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
from workflows.kernel.state import Phase

STEPS = (
    "complete", "start", "fail", "fail_for_good", "return", "repeat", "stale_attempt", "lose_host", "bind", "pause",
    "resume", "checkpoint", "rewind", "wait_a_little", "wait_long", "tick", "older_owner", "repeat_entry",
    "suspect", "recover", "slow_down",
)  # fmt: skip


NEWS = {"suspect": AgentEventType.SUSPECT, "recover": AgentEventType.RECOVERED, "slow_down": AgentEventType.SPEED}


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
        elif name in NEWS:
            news = drill.host_news(NEWS[name], f"host-{self.hosts}", speed=self.data.draw(st.sampled_from([1.0, 0.25])))
            drill.receive(*news)
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
    check_suspicions(drill)
    check_end(drill)


RIDING_STEPS = (*STEPS, "snapshot", "complete", "complete", "complete_all", "hold", "release", "return_riders")


@st.composite
def chained_launches(draw: st.DrawFn) -> ExecutionInput:
    """Graphs with long lines in them; where the planner might fuse, it is drawn whether it does."""
    deps: list[tuple[int, ...]] = []
    roles: list[str] = []
    for n in range(draw(st.integers(1, 12))):
        if n and draw(st.integers(0, 3)):
            deps.append((n - 1,))
            roles.append(roles[-1] if draw(st.integers(0, 4)) else draw(st.sampled_from(["worker", "writer"])))
        else:
            deps.append(tuple(sorted(draw(st.sets(st.integers(0, n - 1), max_size=3)))) if n else ())
            roles.append(draw(st.sampled_from(["worker", "writer"])))
    tasks = []
    for n, (before, role) in enumerate(zip(deps, roles, strict=True)):
        linear = len(before) == 1 and roles[before[0]] == role and sum(before[0] in d for d in deps) == 1
        retry = RetryPolicy(max_attempts=draw(st.integers(1, 3)))
        fused = linear and draw(st.booleans())
        tasks.append(task(f"t{n}", before, role=role, retry=retry, fused=fused, timeout_ms=20_000))
    return launch_input(
        *tasks,
        agents=draw(st.integers(1, 3)),
        on_failure=draw(st.sampled_from(["fail_fast", "finish_branches"])),
        pause_grace_ms=5_000,
        timeout_ms=10**9,
    )


class RidingChaos(Chaos):
    """Some hosts understand chains and some do not; reports are held up and come in another order."""

    def __init__(self, drill: Drill, data: st.DataObject) -> None:
        super().__init__(drill, data)
        self.held: list[AgentEvent] = []
        self.holding = False

    def step(self, name: str) -> None:
        drill = self.drill
        if name == "snapshot":
            if not drill.inbox:
                drill.continue_as_new()
        elif name == "complete_all":
            for attempt in drill.in_flight():
                self.send(drill.completed(attempt))
        elif name == "hold":
            self.holding = True
        elif name == "release":
            self.release()
        elif name == "return_riders":
            for attempt in drill.in_flight():
                if drill.state.tasks[drill.state.index[attempt.task_id]].riding:
                    self.send(drill.event(AgentEventType.TASK_RETURNED, attempt))
        elif name == "lose_host":
            drill.host_lost(f"host-{self.data.draw(st.integers(0, self.hosts))}")
        else:
            super().step(name)

    def send(self, event: AgentEvent) -> None:
        if self.holding:
            self.held.append(event)
        else:
            super().send(event)

    def release(self) -> None:
        self.holding = False
        held, self.held = self.data.draw(st.permutations(self.held)), []
        for event in held:
            self.send(event)

    def bind_all(self) -> None:
        """On a few hosts, so that what depends on each other sometimes is at one."""
        unbound = self.drill.state.unbound_agents()
        for agent_id in unbound:
            self.hosts += self.data.draw(st.integers(0, 1))
            chains, slots = self.data.draw(st.booleans()), self.data.draw(st.integers(1, 2))
            self.drill.bind(agent_id, host_id=f"host-{self.hosts}", chains=chains, slots=slots)
        self.hosts += 1


@settings(max_examples=300, deadline=None)
@given(launch=chained_launches(), data=st.data())
def test_with_chains_too_each_task_is_completed_once_and_what_rides_is_no_load(
    launch: ExecutionInput, data: st.DataObject
) -> None:
    drill = Drill(launch, bind=False)
    chaos = RidingChaos(drill, data)
    chaos.bind_all()
    drill.tick()
    check_riders(drill)
    for name in data.draw(st.lists(st.sampled_from(RIDING_STEPS), max_size=40)):
        chaos.step(name)
        if name in ("tick", "pause", "resume", "rewind", "snapshot") or data.draw(st.booleans()):
            drill.tick()
            check_riders(drill)
        if drill.state.closed:
            break
    if not drill.state.closed:
        chaos.release()
        if drill.state.paused:
            drill.control("resume", request_id="the end")
            drill.tick()
        drill.tick()
        chaos.bind_all()
        drill.finish()
    check_order(drill)
    check_pauses(drill)
    check_end(drill)


def check_riders(drill: Drill) -> None:
    """What rides waits for tasks in flight at its own host, takes no slot, and its agent's load is the rest."""
    state = drill.state
    load = dict.fromkeys(state.agents, 0)
    for i in state.in_flight:
        run = state.tasks[i]
        agent_id = run.agent_id or ""
        if not run.riding:
            load[agent_id] += 1
            continue
        assert run.phase is Phase.ASSIGNED
        assert run.remaining > 0, "with its dependencies done it is its agent's work"
        ahead = [d for d in state.specs[i].deps if state.tasks[d].phase is not Phase.COMPLETED]
        assert len(ahead) == run.remaining
        for d in ahead:
            assert d in state.in_flight, "it rides behind what runs, or else it is taken back"
            host_id = state.agents[state.tasks[d].agent_id or ""].host_id
            assert host_id == state.agents[agent_id].host_id is not None
    assert {name: agent.load for name, agent in state.agents.items()} == load
    assert not any(run.riding for i, run in enumerate(state.tasks) if i not in state.in_flight)


def check_order(drill: Drill) -> None:
    """Nothing starts before its dependencies are done; nothing is done twice in an epoch; attempts only rise."""
    names = [t.id for t in drill.state.specs]
    done: set[str] = set()
    sent: set[str] = set()
    attempts: dict[str, int] = {}
    for delta in drill.deltas:
        if delta.rewind is not None:
            done -= set(delta.rewind.tasks)
        for item in delta.done:
            assert item.task_id not in done, "a task is completed once in an epoch"
            done.add(item.task_id)
        for attempt in delta.assigned:
            task = drill.state.specs[names.index(attempt.task_id)]
            sent.add(attempt.task_id)
            behind = set(attempt.after)
            assert {names[d] for d in task.deps} == behind | ({names[d] for d in task.deps} & done), "none is ignored"
            assert behind <= sent - done, "it goes after what was sent and is not done"
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


def check_suspicions(drill: Drill) -> None:
    """What a suspect host's agents are given, they were given before or after."""
    suspect: set[str] = set()
    for delta in drill.deltas:
        suspect -= {binding.agent_id for binding in delta.bound}
        suspect |= {item.agent_id for item in delta.suspected}
        suspect -= {*delta.recovered, *delta.gone}
        assert not suspect & {attempt.agent_id for attempt in delta.assigned}
