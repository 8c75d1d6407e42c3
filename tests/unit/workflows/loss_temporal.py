"""Temporal in the model of losses: the history, one workflow task at a time, and the real workflow's loop in it."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from engine.contracts.handover import HandedTick
from engine.contracts.kernel import (
    AgentBinding,
    Carry,
    ExecutionInput,
    TickOutcome,
)
from workflows.execution import ExecutionWorkflow
from workflows.kernel.burst import Burst
from workflows.kernel.due import next_due_ms
from workflows.kernel.state import RunState
from workflows.policies.supervisor import SupervisorPolicy


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now_ms = 0

    def monotonic(self) -> float:
        return self.now_ms / 1000

    time = monotonic


CLOCK = Clock()


class Pause:
    """Awaited, it gives control to the scheduler, which answers later or never."""

    def __init__(self, what: str, holds: Callable[[], bool] | None = None, handed: HandedTick | None = None) -> None:
        self.what = what
        """Where; of a local activity, its name."""
        self.holds = holds
        self.handed = handed

    def __await__(self) -> Generator["Pause", Any, Any]:
        return (yield self)


class ContinuedAsNew(BaseException):
    """The workflow's last command."""

    def __init__(self, launch: ExecutionInput) -> None:
        super().__init__()
        self.launch = launch


# Temporal ------------------------------------------------------------------------------------------------------


class Sandbox:
    """Stands in for the module `temporalio.workflow`; `current` is whose code runs."""

    current: "Running"

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.current.now_ms / 1000, UTC)

    def info(self) -> "Sandbox":
        return self

    def get_current_history_length(self) -> int:
        return self.current.length

    def get_current_history_size(self) -> int:
        return 0

    def is_continue_as_new_suggested(self) -> bool:
        return False

    def all_handlers_finished(self) -> bool:
        return True

    def set_current_details(self, text: str) -> None:
        """Nobody looks."""

    async def sleep(self, delay: timedelta, summary: str) -> None:
        running = self.current
        running.due_ms = running.now_ms + max(int(delay.total_seconds() * 1000), 1)
        await self.wait_condition(lambda: running.due_ms is None or running.now_ms >= running.due_ms)
        running.due_ms = None

    async def wait_condition(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await Pause("wait", holds=condition)

    async def execute_local_activity(self, name: str, handed: HandedTick, **_: object) -> TickOutcome:
        return cast(TickOutcome, await Pause(name, handed=handed))

    def continue_as_new(self, launch: ExecutionInput) -> None:
        raise ContinuedAsNew(launch)


SANDBOX = Sandbox()


class Allocation:
    """Stands in for the task that waits for the regular activity."""

    def __init__(self) -> None:
        self.over = False

    def done(self) -> bool:
        return self.over

    def cancel(self) -> None:
        self.over = True


class ModelWorkflow(ExecutionWorkflow):
    """The real loop; its timer is a due time that the server looks at, and hosts come by an event of the history."""

    def __init__(self, launch: ExecutionInput, running: "Running", bug: str | None) -> None:
        super().__init__(launch, SupervisorPolicy())
        self._running = running
        self._bug = bug
        self.wanted: list[tuple[str, ...]] = []
        """Commands of this workflow task."""

    @property
    def state(self) -> RunState:
        return self._state

    async def _bind(self) -> None:
        self._inbox.bindings.extend(binding(agent_id, "host-1") for agent_id in sorted(self._state.agents))

    async def _wait(self) -> None:
        if self._has_work():
            return
        due_ms = self._running.due_ms = next_due_ms(self._state, self._policy)
        await SANDBOX.wait_condition(lambda: self._has_work() or (due_ms is not None and due_ms <= self._now_ms()))
        self._running.due_ms = None

    def _allocate(self, agent_ids: tuple[str, ...]) -> None:
        if self._allocation is None or self._allocation.done():
            self._allocation = cast(Any, Allocation())
            self.wanted.append(agent_ids)

    def found(self, bindings: list[AgentBinding]) -> None:
        """The allocation's result, as it stands in the history."""
        cast(Allocation, self._allocation).over = True
        self._inbox.bindings.extend(bindings)

    def _adopt(self, burst: Burst, outcome: TickOutcome, taken: Any) -> None:
        if self._bug == "adopts only its own":
            outcome = outcome.model_copy(update={"ticks": tuple(burst.texts)})
        super()._adopt(burst, outcome, taken)


def binding(agent_id: str, host_id: str) -> AgentBinding:
    return AgentBinding(agent_id=agent_id, role=agent_id.rpartition("-")[0], host_id=host_id)


class Running:
    """A workflow in some worker's memory."""

    def __init__(self, launch: ExecutionInput, bug: str | None) -> None:
        self.launch = launch
        self.now_ms = launch.started_at_ms
        self.length = 0
        self.due_ms: int | None = None
        self.workflow = ModelWorkflow(launch, self, bug)
        self.asked: Pause | None = None
        self.ended: str | None = None
        self.next_launch: ExecutionInput | None = None
        self._loop = self.workflow._loop()

    def hear(self, events: list[tuple[str, Any]], now_ms: int, length: int) -> None:
        self.now_ms, self.length = now_ms, length
        handlers = {"events": self.workflow.events, "catch_up": lambda _: self.workflow.catch_up(),
                    "found": self.workflow.found}  # fmt: skip
        for name, argument in events:
            handlers[name](argument)

    def proceed(self, answer: object = None) -> None:
        """Until it waits, wants an activity or has ended."""
        SANDBOX.current = self
        try:
            self.asked = self._loop.send(answer)
            while self.asked.holds is not None and self.asked.holds():
                self.asked = self._loop.send(None)
        except StopIteration:
            self.asked, self.ended = None, "closed"
        except ContinuedAsNew as command:
            self.asked, self.ended, self.next_launch = None, "continued", command.launch

    @property
    def wants_activity(self) -> bool:
        return self.asked is not None and self.asked.handed is not None


@dataclass(eq=False)
class Run:
    """One run's input and history."""

    launch: ExecutionInput
    items: list[tuple[str, Any]] = field(default_factory=list)


@dataclass
class TaskAttempt:
    """A workflow task under way: what it saw at its start, and what its local activities brought since."""

    events: list[tuple[str, Any]]
    now_ms: int
    length: int
    outcomes: list[TickOutcome] = field(default_factory=list)


class Temporal:
    """The server: the history, and one workflow task at a time."""

    def __init__(self, launch: ExecutionInput, bug: str | None) -> None:
        self.runs = [Run(launch)]
        self.unseen: list[tuple[str, Any]] = []
        """Arrived since the last completed workflow task."""
        self.attempt: TaskAttempt | None = None
        self.due_ms: int | None = None
        self.closed = False
        self.wanted: list[tuple[str, ...]] = []
        """Agents for which hosts are being looked for."""
        self.refused = 0
        self._bug = bug

    @property
    def run(self) -> Run:
        return self.runs[-1]

    def wants_task(self) -> bool:
        due = self.due_ms is not None and CLOCK.now_ms >= self.due_ms
        return not self.closed and self.attempt is None and bool(self.unseen or due or not self.run.items)

    def begin(self) -> TaskAttempt:
        self.attempt = TaskAttempt(list(self.unseen), CLOCK.now_ms, len(self.run.items))
        return self.attempt

    def fail(self) -> None:
        """What it had seen comes again with the next one; what its local activities brought does not."""
        self.attempt = None

    def complete(self, attempt: TaskAttempt, running: Running) -> bool:
        """False when the server refuses it."""
        if self.attempt is not attempt:
            return False
        later = self.unseen[len(attempt.events) :]
        if running.ended is not None and later:
            self.refused += 1
            self.fail()
            return False
        self._record(attempt, later)
        self.attempt, self.due_ms = None, running.due_ms
        self.wanted += running.workflow.wanted
        running.workflow.wanted = []
        self.closed = running.ended == "closed"
        if running.next_launch is not None:
            self.runs.append(Run(self._carried(running.next_launch)))
        return True

    def beat(self, attempt: TaskAttempt) -> list[tuple[str, Any]] | None:
        """The worker asks for more time: what there is goes into the history, and signals come in."""
        if self.attempt is not attempt:
            return None
        later = self.unseen[len(attempt.events) :]
        self._record(attempt, later)
        attempt.events, attempt.outcomes = list(later), []
        attempt.now_ms, attempt.length = CLOCK.now_ms, len(self.run.items)
        return later

    def _record(self, attempt: TaskAttempt, later: list[tuple[str, Any]]) -> None:
        self.run.items.append(("task", (attempt.events, attempt.now_ms, attempt.length)))
        self.run.items += [("outcome", outcome) for outcome in attempt.outcomes]
        self.unseen = later

    def _carried(self, launch: ExecutionInput) -> ExecutionInput:
        if self._bug == "forgets the watermark" and launch.carry is not None:
            state = {**launch.carry.state, "consumed": [], "low": [0, 0]}
            carry = Carry.model_validate({**launch.carry.model_dump(), "state": state})
            launch = launch.model_copy(update={"carry": carry})
        return ExecutionInput.model_validate_json(launch.model_dump_json())

    def replay(self) -> Running:
        """Rebuild the workflow from the history, as a worker does that does not have it in its memory."""
        running = Running(self.run.launch, self._bug)
        for kind, value in self.run.items:
            if kind == "task":
                running.hear(*value)
                if not running.wants_activity:
                    running.proceed()
            else:
                assert running.wants_activity, "the replay asks for what the history holds"
                running.proceed(value)
        running.workflow.wanted = []
        return running
