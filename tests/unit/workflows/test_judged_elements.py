"""Elements of `for_each` tasks whose ends a pattern judges."""

from typing import Any

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Attempt
from tests.unit.workflows.drill import Drill, outcome, task
from tests.unit.workflows.test_supervisor import REVIEW, supervised
from workflows.kernel.state import Phase


def expanded(config: dict[str, Any], **fields: Any) -> Drill:
    run = supervised(task("g", for_each=True, **fields), task("z", (0,)), config=config)
    run.tick()
    run.evaluate(lambda task_id: outcome(task_id, "expand", size=3))
    run.tick()
    return run


def carry_out(run: Drill, verdict: dict[str, Any]) -> None:
    """Workers succeed, and leads say always the same."""
    for _ in range(50):
        if run.state.closed:
            return
        run.receive(*(run.completed(attempt, answer_of(attempt, verdict)) for attempt in run.in_flight()))
        run.tick()
    raise AssertionError(f"it stands still: {[run.phase(spec.id).name for spec in run.state.specs]}")


def answer_of(attempt: Attempt, verdict: dict[str, Any]) -> Any:
    return verdict if attempt.agent_id.startswith("lead") else {"done": attempt.task_id}


def test_a_for_each_task_is_done_when_the_review_of_its_last_element_has_accepted() -> None:
    run = expanded(REVIEW)
    carry_out(run, {"verdict": "accept"})
    assert run.state.status is ExecutionStatus.COMPLETED
    assert {run.phase(name) for name in ("g", "g[0]", "g[1]", "g[2]", "z")} == {Phase.COMPLETED}
    gathered = [event for event in run.audit("task.completed") if event["task_id"] == "g"]
    assert gathered == [{"task_id": "g", "attempt": 0, "status": "success", "elements": 3}]


def test_a_for_each_task_fails_when_the_reviews_of_its_elements_end_with_a_rejection() -> None:
    run = expanded({"review": {"agent": "lead", "rounds_max": 1}}, on_failure="finish_branches")
    carry_out(run, {"verdict": "reject", "feedback": "no"})
    assert run.phase("g") is Phase.FAILED
    assert run.phase("z") is Phase.SKIPPED
    assert run.state.closed
