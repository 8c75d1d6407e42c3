"""A drill whose agents answer by a function: for programs of the coordination language."""

from collections.abc import Callable, Mapping
from typing import Any

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Attempt, KernelTask
from engine.contracts.patterns.language import PatternRegistration
from planner.language.check import parse_registration
from tests.unit.workflows.drill import Drill, launch_input, task
from workflows.policies.custom import CustomPolicy


class Broken(Exception):
    """An agent that fails its attempt for good."""


class Call:
    """What an agent is asked."""

    def __init__(self, attempt: Attempt, body: Mapping[str, Any], note: Any) -> None:
        self.task_id = attempt.task_id
        self.agent_id = attempt.agent_id
        self.attempt = attempt.attempt
        self.action: str = body.get("action", attempt.task_id)
        self.input: dict[str, Any] = dict(body.get("input", {}))
        self.note = note


Agent = Callable[[Call], Any]


class Stage(Drill):
    """`calls` are all that agents were asked, in the order in which they answered."""

    def __init__(
        self,
        logic: dict[str, Any],
        agent: Agent,
        *tasks: KernelTask,
        config: dict[str, Any] | None = None,
        agents: int = 3,
        **fields: Any,
    ) -> None:
        registration = PatternRegistration(name="p", version="1", coordination_logic=logic)
        parse_registration(registration)
        settings = {"name": "p", "version": "1", "config": config or {}, "logic": logic}
        launch = launch_input(*(tasks or (task("t"),)), agents=agents, pattern_config=settings, **fields)
        super().__init__(launch.model_copy(update={"pattern": "custom"}), policy=CustomPolicy(), slots=10)
        self.agent = agent
        self.calls: list[Call] = []
        self.bodies: dict[str, dict[str, Any]] = {}
        self.results: dict[str, Any] = {}
        self.failures: dict[str, tuple[str, str]] = {}

    def step(self, after_ms: int = 1) -> None:
        """One tick; then all that runs answers."""
        decision = self.tick(after_ms)
        self.policy = CustomPolicy()  # as in another process: nothing but the board is remembered
        if decision.writes is not None:
            self.bodies |= {body.task_id: body.body for body in decision.writes.bodies}
        self.results |= {item.task_id: item.result for item in decision.results}
        for item in decision.delta.failed:
            if item.retry_at_ms is None:
                self.failures[item.task_id] = (item.code, item.message)
        events = []
        for attempt in self.in_flight():
            note = next((a.note for d in reversed(self.deltas) for a in d.assigned
                         if (a.task_id, a.attempt) == (attempt.task_id, attempt.attempt)), None)  # fmt: skip
            call = Call(attempt, self.bodies.get(attempt.task_id, {}), note)
            self.calls.append(call)
            try:
                events.append(self.completed(attempt, self.agent(call)))
            except Broken:
                events.append(self.failed(attempt, retryable=False))
        if events:
            self.receive(*events)

    def play(self, ticks_max: int = 300) -> ExecutionStatus:
        for _ in range(ticks_max):
            if self.state.closed:
                return self.state.status
            self.step(after_ms=1_000)
        raise AssertionError(f"not closed after {ticks_max} ticks: {self.state.board}")

    def actions(self) -> list[str]:
        return [call.action for call in self.calls]
