"""A drill for patterns whose members take turns: it knows what each member was told last, and answers for it."""

from collections.abc import Callable
from typing import Any

from engine.contracts.events import AuditEvent
from engine.contracts.kernel import Attempt, ExecutionInput, TaskResult
from tests.unit.workflows.drill import Drill, launch_input, task
from workflows.kernel.decide import Decision
from workflows.kernel.policy import Policy

Answer = Callable[[str, dict[str, Any]], Any]
"""What a member (by its agent's name) answers to what it was told."""


def assembly_input(config: dict[str, Any], *tasks: str, members: int = 3, **fields: object) -> ExecutionInput:
    specs = [task(name) for name in tasks or ("q",)]
    return launch_input(*specs, agents=members, pattern_config=config, **fields)


class AssemblyDrill(Drill):
    def __init__(self, launch: ExecutionInput, policy: Policy, slots: int = 4, bind: bool = True) -> None:
        super().__init__(launch, slots=slots, bind=bind, policy=policy)
        self.told: dict[str, dict[str, Any]] = {}
        """By member task, the note of its last attempt."""

    def tick(self, after_ms: int = 1) -> Decision:
        decision = super().tick(after_ms)
        for attempt in (*decision.delta.assigned, *decision.delta.resent):
            self.told[attempt.task_id] = attempt.note
        return decision

    def say(self, attempt: Attempt, result: Any) -> None:
        self.receive(self.completed(attempt, result))

    def answer_all(self, answer: Answer) -> int:
        """Everything in flight is answered, in the order of the members; how many there were."""
        flying = self.in_flight()
        self.receive(*(self.completed(a, answer(a.agent_id, self.told[a.task_id])) for a in flying))
        return len(flying)

    def run(self, answer: Answer, ticks_max: int = 200) -> None:
        self.tick()
        for _ in range(ticks_max):
            if self.state.closed:
                return
            self.answer_all(answer)
            self.tick()
        raise AssertionError(f"not over after {ticks_max} ticks")

    def results(self) -> dict[str, TaskResult]:
        return {item.task_id: item for decision in self.decisions for item in decision.results}

    def result(self, task_id: str = "q") -> Any:
        return self.results()[task_id].result

    def facts(self, kind: str) -> list[AuditEvent]:
        return [event for decision in self.decisions for event in decision.audit if event.type.value == kind]
