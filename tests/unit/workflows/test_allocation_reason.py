"""What an execution that got no agents says in its `error_details`."""

from engine.contracts.kernel import AllocationProblem, BindResult
from workflows.execution import _why_missing


def test_the_worst_reason_is_told() -> None:
    problems = (
        AllocationProblem(agent_id="w-2", code="RESOURCE_ALLOCATION_FAILED", message="ErrImageNeverPull: no image"),
        AllocationProblem(agent_id="w-1", code="AGENT_ALLOCATION_TIMEOUT", message="its pod waits"),
    )
    result = BindResult(bindings=(), missing=("w-1", "w-2"), problems=problems)
    code, message = _why_missing(result, 30.0)
    assert code == "RESOURCE_ALLOCATION_FAILED"
    assert message == "w-2 (and 1 more agents): ErrImageNeverPull: no image"


def test_without_a_reason_the_time_is_told() -> None:
    result = BindResult(bindings=(), missing=tuple(f"w-{n}" for n in range(1, 8)))
    code, message = _why_missing(result, 30.0)
    assert code == "AGENT_ALLOCATION_TIMEOUT"
    assert message == "no host came in 30 s for 7 agents: w-1, w-2, w-3, w-4, w-5"
