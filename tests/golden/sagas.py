"""Scenarios of the saga pattern, and of compensation in another pattern."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from engine.contracts.execution import ExecutionStatus
from tests.integration.engine.bench import Bench, definition

QUICK: dict[str, Any] = {"max_attempts": 2, "initial_delay_seconds": 0.05}


def step(name: str, *deps: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "depends_on": list(deps),
        "compensation_action": f"undo_{name}",
        "retry_policy": QUICK,
        **fields,
    }


def saga(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return definition(*tasks, orchestration_pattern="saga", **fields)


LAST: dict[str, Any] = {"input": {"fail": "no"}, "retry_policy": "none"}


async def undone_in_reverse(bench: Bench) -> UUID:
    """With one compensation that needs a second try."""
    second = step("t2", "t1", input={"compensation": {"fail_times": 1}})
    return await bench.start(saga(step("t1"), second, {"id": "t3", "depends_on": ["t2"], **LAST}))


async def undone_side_by_side(bench: Bench) -> UUID:
    last = {"id": "end", "depends_on": ["a", "b"], **LAST}
    return await bench.start(saga(step("a"), step("b"), last, pattern_config={"undo_order": "side_by_side"}))


async def cancelled_and_undone(bench: Bench) -> UUID:
    execution_id = await bench.start(saga(step("t1"), step("t2", "t1", input={"duration_ms": 60_000})))
    await bench.until_event(execution_id, "agent.task_started", task_id="t2")
    await bench.ask(execution_id, "cancel")
    return execution_id


async def left_to_an_operator(bench: Bench) -> UUID:
    cannot = step("t2", "t1", input={"compensation": {"fail": "never"}})
    return await bench.start(saga(step("t1"), cannot, {"id": "t3", "depends_on": ["t2"], **LAST}))


async def recovered_forward(bench: Bench) -> UUID:
    config = {"forward_attempts": 2, "forward_delay_seconds": 0.05}
    task = {**step("t1"), "input": {"fail_times": 1}, "retry_policy": "none"}
    return await bench.start(saga(task, pattern_config=config))


async def stopped_past_the_pivot(bench: Bench) -> UUID:
    config = {"pivots": ["pay"], "attempts_after_pivot": 1, "forward_delay_seconds": 0}
    tasks = (step("t1"), {"id": "pay", "depends_on": ["t1"]}, {"id": "send", "depends_on": ["pay"], **LAST})
    return await bench.start(saga(*tasks, pattern_config=config))


async def undone_over_several_runs(bench: Bench) -> UUID:
    steps = [step(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(10)]
    last = {"id": "last", "depends_on": ["s9"], **LAST}
    return await bench.start(saga(*steps, last), history_events_max=30)


async def undone_by_a_supervisor(bench: Bench) -> UUID:
    return await bench.start(definition(step("t1"), {"id": "t2", "depends_on": ["t1"], **LAST}))


SCENARIOS = (
    undone_in_reverse,
    undone_side_by_side,
    cancelled_and_undone,
    left_to_an_operator,
    recovered_forward,
    stopped_past_the_pivot,
    undone_over_several_runs,
    undone_by_a_supervisor,
)


def _undone(recorded: Any) -> list[str]:
    return [item.task_id for delta in recorded.deltas for item in delta.compensated]


def _given_out(recorded: Any) -> list[str]:
    return [attempt.task_id for delta in recorded.deltas for attempt in delta.assigned]


def _compensation_status(recorded: Any) -> str:
    error = recorded.deltas[-1].error
    return "" if error is None else str(error.compensation_status)


BRANCHES: dict[str, Callable[[Any], bool]] = {
    "undone_in_reverse": lambda r: _undone(r) == ["t2", "t1"] and any(d.uncompensated for d in r.deltas),
    "undone_side_by_side": lambda r: (
        any(len(d.compensating) == 2 for d in r.deltas) and sorted(_undone(r)) == ["a", "b"]
    ),
    "cancelled_and_undone": lambda r: r.deltas[-1].status is ExecutionStatus.CANCELLED and _undone(r) == ["t2", "t1"],
    "left_to_an_operator": lambda r: any(d.left for d in r.deltas) and _compensation_status(r) == "partial",
    "recovered_forward": lambda r: _given_out(r) == ["t1", "t1"] and not _undone(r),
    "stopped_past_the_pivot": lambda r: _given_out(r).count("send") == 2 and not _undone(r),
    "undone_over_several_runs": lambda r: any(s.ending and not s.closed for s in r.carried) and len(_undone(r)) == 10,
    "undone_by_a_supervisor": lambda r: _undone(r) == ["t1"],
}
