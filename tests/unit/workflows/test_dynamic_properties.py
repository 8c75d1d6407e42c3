"""Graphs that change under a hostile world, against a model that knows nothing but the stored deltas.

As in `test_kernel_properties`, the drill checks at every tick that deciding can be taken back, that the stored delta
alone leads to the same state, and here also that a state survives its snapshot at any moment.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.definition import RetryPolicy
from engine.contracts.dynamic import TaskOutcome
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Attempt, Delta, ExecutionInput, KernelTask, KernelTrigger
from tests.unit.workflows.drill import Drill, launch_input, outcome, task
from workflows.kernel.state import Phase

STEPS = (
    "complete", "complete", "complete", "start", "fail", "fail_for_good", "spawn", "spawn", "evaluate", "evaluate",
    "event", "event", "repeat_event", "carry", "lose_host", "bind", "pause", "resume", "checkpoint", "rewind", "wait",
    "tick",
)  # fmt: skip

EVENTS = ("go", "stop")


@st.composite
def triggers(draw: st.DrawFn) -> tuple[KernelTrigger, ...]:
    return tuple(
        KernelTrigger(
            event=draw(st.sampled_from(EVENTS)),
            conditional=draw(st.booleans()),
            timeout_ms=draw(st.sampled_from([None, 5_000])),
            on_timeout=draw(st.sampled_from(["skip", "run", "fail"])),
        )
        for _ in range(draw(st.integers(1, 2)))
    )


@st.composite
def launches(draw: st.DrawFn) -> ExecutionInput:
    tasks: list[KernelTask] = []
    for n in range(draw(st.integers(1, 7))):
        deps = draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set()
        kind = draw(st.sampled_from(["plain", "plain", "when", "for_each", "triggers", "reuse", "mixed"]))
        fields: dict[str, Any] = {
            "when": kind in ("when", "mixed"),
            "for_each": kind in ("for_each", "mixed"),
            "reuse": kind == "reuse" or (kind == "for_each" and draw(st.booleans())),
            "triggers": draw(triggers()) if kind in ("triggers", "mixed") else (),
        }
        retry = RetryPolicy(max_attempts=draw(st.integers(1, 2)))
        alone = draw(st.integers(0, 5)) == 0
        tasks.append(task(f"t{n}", tuple(sorted(deps)), retry=retry, alone=alone, timeout_ms=20_000, **fields))
    return launch_input(
        *tasks,
        agents=draw(st.integers(1, 3)),
        on_failure=draw(st.sampled_from(["fail_fast", "finish_branches", "finish_branches"])),
        pause_grace_ms=5_000,
        timeout_ms=10**9,
    )


class World:
    """Carries out steps."""

    def __init__(self, drill: Drill, data: st.DataObject) -> None:
        self.drill = drill
        self.data = data
        self.events = 0
        self.spawned = 0
        self.hosts = 1

    def step(self, name: str) -> None:
        drill, flying = self.drill, self.drill.in_flight()
        if name in ("complete", "start", "fail", "fail_for_good", "spawn") and flying:
            attempt = self.data.draw(st.sampled_from(flying))
            if name == "start":
                drill.receive(drill.started(attempt))
            elif name in ("fail", "fail_for_good"):
                drill.receive(drill.failed(attempt, retryable=name == "fail"))
            else:
                added = self.added_tasks() if name == "spawn" else None
                drill.receive(drill.completed(attempt).model_copy(update={"spawn": added}))
        elif name == "evaluate":
            drill.evaluate(self.judge, lambda match: int(match.event_id[1:]) % 2 == 0)
        elif name == "event":
            self.events += 1
            drill.happen(f"e{self.events}", self.data.draw(st.sampled_from(EVENTS)))
        elif name == "repeat_event" and self.events:
            drill.happen(f"e{self.data.draw(st.integers(1, self.events))}", "go")
        elif name == "carry":
            drill.continue_as_new()
        elif name == "lose_host":
            drill.host_lost(f"host-{self.hosts}")
        elif name == "bind":
            self.bind_all()
        elif name in ("pause", "resume", "checkpoint"):
            drill.control(name)
        elif name == "rewind" and drill.state.status in (ExecutionStatus.EXECUTING, ExecutionStatus.PAUSED):
            self.rewind()
        elif name == "wait":
            drill.now_ms += self.data.draw(st.sampled_from([900, 6_000, 11_000]))

    def judge(self, task_id: str) -> TaskOutcome:
        spec = self.drill.state.specs[self.drill.state.index[task_id]]
        choices = ["run"] * 4 + ["skip"] * spec.when * 2 + ["reuse"] * spec.reuse * 2 + ["fail"]
        decision = self.data.draw(st.sampled_from(choices))
        if decision == "run" and spec.for_each:
            return outcome(task_id, "expand", size=self.data.draw(st.integers(0, 3)), items_ref="sha256:x")
        return outcome(task_id, decision, code="EXPRESSION_TYPE", message="no", result=1)

    def added_tasks(self) -> tuple[dict[str, Any], ...]:
        """Some of them cannot be added: names of tasks that have started, cycles."""
        names = [spec.id for spec in self.drill.state.specs if "[" not in spec.id]
        added: list[dict[str, Any]] = []
        for _ in range(self.data.draw(st.integers(1, 2))):
            self.spawned += 1
            known = [*names, *(document["id"] for document in added)]
            document = {
                "id": f"n{self.spawned}",
                "agent": "worker",
                "depends_on": self.data.draw(st.lists(st.sampled_from(known), max_size=2, unique=True)),
                "blocks": self.data.draw(st.lists(st.sampled_from(names), max_size=1)) if self.spawned % 2 else [],
            }
            if self.data.draw(st.integers(0, 3)) == 0:
                document[self.data.draw(st.sampled_from(["when", "for_each"]))] = "input.x"
            added.append(document)
        return tuple(added)

    def rewind(self) -> None:
        """To a checkpoint that holds some of what is completed."""
        state = self.drill.state
        if not state.paused:
            self.drill.control("pause")
            self.drill.tick()
        completed = [s.id for s, run in zip(state.specs, state.tasks, strict=True) if run.phase is Phase.COMPLETED]
        cut = self.data.draw(st.integers(0, len(completed)))
        order = [item for d in self.drill.deltas for item in finished(d)]
        if state.paused:
            self.drill.rewind_to("first", *sorted(completed, key=lambda t: last_index(order, t))[cut:])

    def bind_all(self) -> None:
        self.hosts += 1
        self.drill.bind(*self.drill.state.unbound_agents(), host_id=f"host-{self.hosts}")

    def finish(self) -> None:
        drill = self.drill
        for _ in range(300):
            if drill.state.closed:
                return
            drill.evaluate(lambda t: outcome(t, "skip") if drill.state.specs[drill.state.index[t]].when else
                           outcome(t, "expand") if drill.state.specs[drill.state.index[t]].for_each else
                           outcome(t))  # fmt: skip
            for kind in EVENTS if drill.state.awaiting else ():
                self.events += 1
                drill.happen(f"e{self.events}", kind)
            drill.receive(*(drill.completed(attempt) for attempt in drill.in_flight()))
            drill.tick(after_ms=1_000)
        raise AssertionError(f"not closed: {drill.state.snapshot()}")


def finished(delta: Delta) -> list[str]:
    return [*(item.task_id for item in delta.done), *delta.reused, *delta.gathered]


def last_index(order: list[str], name: str) -> int:
    return len(order) - order[::-1].index(name)


@settings(max_examples=300, deadline=None)
@given(launch=launches(), data=st.data())
def test_a_graph_that_changes_keeps_its_promises_whatever_comes(launch: ExecutionInput, data: st.DataObject) -> None:
    drill = Drill(launch)
    world = World(drill, data)
    drill.tick()
    for name in data.draw(st.lists(st.sampled_from(STEPS), min_size=data.draw(st.sampled_from([0, 20])), max_size=50)):
        world.step(name)
        if name in ("tick", "pause", "resume", "rewind", "evaluate") or data.draw(st.booleans()):
            drill.tick()
        if drill.state.closed:
            break
    if not drill.state.closed:
        if drill.state.paused:
            drill.control("resume", request_id="the end")
            drill.tick()
        drill.tick()
        world.bind_all()
        world.finish()
    Model(launch).follow(drill.deltas)
    check_end(drill)


class Model:
    """What may happen, in few words: who waits for whom, who is done, who was let through."""

    def __init__(self, launch: ExecutionInput) -> None:
        self.order = [spec.id for spec in launch.plan.tasks]
        self.specs = {spec.id: spec for spec in launch.plan.tasks}
        self.waits_for = {spec.id: {self.order[d] for d in spec.deps} for spec in launch.plan.tasks}
        self.elements: dict[str, list[str]] = {}
        self.done: set[str] = set()
        self.passed: set[str] = set()
        self.let_through: set[str] = set()
        self.woken: set[str] = set()
        self.taken: dict[str, str] = {}
        self.attempts: dict[str, int] = {}

    def follow(self, deltas: list[Delta]) -> None:
        for delta in deltas:
            self.go_back(delta)
            for item in delta.done:
                self.complete(item.task_id)
            self.grow(delta)
            for task_id in delta.reused:
                assert self.specs[task_id].reuse
                self.complete(task_id)
            for task_id in delta.gathered:
                assert set(self.elements[task_id]) <= self.done, "a for_each task is done when its elements are"
                self.complete(task_id)
            self.passed.update(delta.passed)
            for attempt in delta.assigned:
                self.check_start(attempt)

    def complete(self, task_id: str) -> None:
        assert task_id not in self.done, "a task is completed once in an epoch"
        self.done.add(task_id)

    def grow(self, delta: Delta) -> None:
        for spawned in delta.spawned:
            assert spawned.task_id in self.done, "only what is completed adds tasks"
            self.order.extend(spec.id for spec in spawned.tasks)
            for spec in spawned.tasks:
                assert spec.id not in self.specs
                self.specs[spec.id] = spec
                self.waits_for[spec.id] = {self.order[d] for d in spec.deps}
            for blocked, new in spawned.blocks:
                assert self.order[blocked] not in self.done
                self.waits_for[self.order[blocked]].add(self.order[new])
        for item in delta.triggered:
            assert item.event_id not in self.taken, "an event is taken once"
            self.taken[item.event_id] = item.task_id
            self.woken.add(item.task_id)
        self.woken.update(delta.waited)
        self.let_through.update(delta.admitted)
        for expanded in delta.expanded:
            assert self.waits_for[expanded.task_id] <= self.done | self.passed
            names = [f"{expanded.task_id}[{n}]" for n in range(expanded.size)]
            self.elements[expanded.task_id] = names
            self.order.extend(names)
            for name in names:
                parent = self.specs[expanded.task_id]
                alike = {"id": name, "deps": (), "when": False, "for_each": False, "triggers": ()}
                self.specs[name] = parent.model_copy(update=alike)
                self.waits_for[name] = set()

    def go_back(self, delta: Delta) -> None:
        if delta.rewind is None:
            return
        dropped = set(delta.rewind.dropped)
        self.order = [name for name in self.order if name not in dropped]
        self.specs = {name: spec for name, spec in self.specs.items() if name not in dropped}
        self.waits_for = {name: self.waits_for[name] - dropped for name in self.order}
        self.done -= {*delta.rewind.tasks, *dropped}
        self.passed.clear()
        self.let_through &= self.done
        self.woken &= self.done
        # An attempt is (epoch, task, attempt): a new task of an old name begins with its first.
        self.attempts = {name: attempt for name, attempt in self.attempts.items() if name not in dropped}
        self.taken = {event: name for event, name in self.taken.items() if name in self.done}

    def check_start(self, sent: Attempt) -> None:
        task_id, attempt, ahead = sent.task_id, sent.attempt, set(sent.after)
        spec, needed = self.specs[task_id], self.waits_for[task_id]
        assert task_id not in self.done
        assert needed <= self.done | self.passed | ahead, "dependencies are done before a task starts"
        assert not needed or needed & (self.done | ahead), "with nothing but skipped dependencies a task is skipped"
        assert not spec.for_each, "it stands for its elements, and does not run itself"
        assert not (spec.when or spec.reuse) or task_id in self.let_through
        assert not spec.triggers or task_id in self.woken
        assert attempt > self.attempts.get(task_id, 0), "attempts are never used again"
        self.attempts[task_id] = attempt


def check_end(drill: Drill) -> None:
    state = drill.state
    assert state.closed
    if state.status is ExecutionStatus.COMPLETED:
        assert {run.phase for run in state.tasks} <= {Phase.COMPLETED, Phase.SKIPPED}
    else:
        assert any(item.retry_at_ms is None for delta in drill.deltas for item in delta.failed)
