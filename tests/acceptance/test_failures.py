"""What fails, fails as the definition says: retries, timeouts, branches, agents that never come."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.acceptance.audit import assert_sound, attempts, happened_at, of_type, status_changes, successes
from tests.acceptance.caller import Caller
from tests.acceptance.journal import assert_journal_and_history_agree
from tests.acceptance.running import RunningEngine

pytestmark = pytest.mark.acceptance


LATE_SECONDS_MAX = 20.0
"""On a machine that is busy with other things."""


def delays_before(events: list[dict[str, Any]], task_id: str) -> list[float]:
    """Seconds from each failed attempt to the next assignment."""
    failed = [happened_at(e) for e in of_type(events, "task.completed", task_id) if e["payload"]["status"] == "failed"]
    assigned = [happened_at(e) for e in of_type(events, "agent.task_assigned", task_id)][1:]
    return [(again - before).total_seconds() for before, again in zip(failed, assigned, strict=False)]


def assert_delays(found: Sequence[float], wanted: Sequence[float]) -> None:
    assert len(found) == len(wanted)
    for delay, minimum in zip(found, wanted, strict=True):
        assert minimum <= delay < minimum + LATE_SECONDS_MAX


def test_a_task_that_fails_three_times_succeeds_after_1_2_and_4_seconds(engine: RunningEngine, caller: Caller) -> None:
    execution_id = caller.execute(caller.create({"id": "again", "input": {"fail_times": 3}}))
    caller.until_completed(execution_id)
    events = caller.events(execution_id)
    assert_sound(events, {"again": []})
    assert attempts(events, "again") == [1, 2, 3, 4]
    assert_delays(delays_before(events, "again"), [1.0, 2.0, 4.0])
    assert_journal_and_history_agree(engine, "default", execution_id)
    assert engine.replays("default", execution_id)


def test_a_task_whose_attempts_are_used_up_fails_the_execution(caller: Caller) -> None:
    policy = {"max_attempts": 2, "initial_delay_seconds": 0.5}
    task = {"id": "never", "input": {"fail": "no such file"}, "retry_policy": policy}
    execution_id = caller.execute(caller.create(task, {"id": "after", "depends_on": ["never"]}))
    status = caller.until_status(execution_id, "failed")
    assert status["error_details"]["failed_task"] == "never"
    assert status["task_states"] == {"never": "failed", "after": "cancelled"}
    events = caller.events(execution_id)
    assert attempts(events, "never") == [1, 2]
    assert_delays(delays_before(events, "never"), [0.5])
    assert of_type(events, "agent.task_started", "after") == []
    errors = [e["payload"] for e in of_type(events, "error.occurred")]
    assert any("no such file" in error["error_message"] for error in errors)
    assert status_changes(events)[-1] == "failed"


FAILING_BRANCH = (
    {"id": "bad", "input": {"fail": "broken", "duration_ms": 200}, "retry_policy": "none"},
    {"id": "bad-next", "depends_on": ["bad"]},
    {"id": "good", "input": {"duration_ms": 1000}},
    {"id": "good-next", "depends_on": ["good"], "input": {"duration_ms": 50}},
)


def test_fail_fast_starts_nothing_more(caller: Caller) -> None:
    execution_id = caller.execute(caller.create(*FAILING_BRANCH, on_failure="fail_fast"))
    status = caller.until_status(execution_id, "failed")
    events = caller.events(execution_id)
    assert of_type(events, "agent.task_started", "good-next") == []
    assert status["task_states"]["bad"] == "failed"
    assert status["task_states"]["good-next"] in ("skipped", "cancelled")


def test_finish_branches_goes_on_with_what_does_not_need_the_failed_task(caller: Caller) -> None:
    execution_id = caller.execute(caller.create(*FAILING_BRANCH, on_failure="finish_branches"))
    status = caller.until_status(execution_id, "failed")
    assert status["task_states"] == {
        "bad": "failed",
        "bad-next": "skipped",
        "good": "completed",
        "good-next": "completed",
    }
    assert successes(caller.events(execution_id)) == {"good": 1, "good-next": 1}


def test_a_task_beyond_its_timeout_is_given_up_and_its_late_result_refused(caller: Caller) -> None:
    task = {"id": "slow", "input": {"duration_ms": 60_000}, "timeout_seconds": 1, "retry_policy": "none"}
    execution_id = caller.execute(caller.create(task))
    status = caller.until_status(execution_id, "failed")
    assert status["error_details"]["failed_task"] == "slow"
    events = caller.events(execution_id)
    [started] = of_type(events, "agent.task_started", "slow")
    [ended] = of_type(events, "task.completed", "slow")
    assert ended["payload"]["status"] == "failed"
    assert "TIMEOUT" in ended["payload"]["error"]["code"]
    assert 1.0 <= (happened_at(ended) - happened_at(started)).total_seconds() < 1.0 + LATE_SECONDS_MAX


def test_an_execution_beyond_its_timeout_ends(caller: Caller) -> None:
    execution_id = caller.execute(caller.create({"id": "slow", "input": {"duration_ms": 60_000}}), timeout=2)
    status = caller.until_status(execution_id, "failed")
    assert "TIMEOUT" in status["error_details"]["error_code"]
    assert status["task_states"]["slow"] in ("cancelled", "failed", "skipped")
    assert 2 <= status["performance_metrics"]["total_runtime_seconds"] <= 2 + LATE_SECONDS_MAX


def test_an_execution_whose_agents_never_come_ends_with_that_reason(caller: Caller) -> None:
    execution_id = caller.execute(caller.create({"id": "lonely"}, agent_type="outside"))
    status = caller.until_status(execution_id, "failed")
    assert status["error_details"]["error_code"] == "AGENT_ALLOCATION_TIMEOUT"
    assert "worker-1" in status["error_details"]["error_message"]
    assert attempts(caller.events(execution_id), "lonely") == []
