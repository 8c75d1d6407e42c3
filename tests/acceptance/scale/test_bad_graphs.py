"""Expressions and added tasks that nobody should write: refused with a clear error, while the rest of the run goes as
its definition says."""

import uuid
from typing import Any, Final

import pytest

from tests.acceptance.audit import of_type
from tests.acceptance.caller import Caller, Refused
from tests.acceptance.running import RunningEngine
from tests.acceptance.scale.test_bad_input import sdk_agent
from tests.acceptance.test_agents_from_outside import process_of

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

MILLION: Final = 1_000_000
INVALID_DEFINITION: Final = -32602
LOOP: Final = "any(range(90000), x => any(range(90000), y => x + y < 0))"
BRANCH: Final = ({"id": "other"}, {"id": "other-next", "depends_on": ["other"]})
"""What does not need the task that fails."""


def assert_only_this_failed(caller: Caller, execution_id: str, task_id: str, code: str, words: str) -> None:
    """The run has failed because of it, and finished what did not need it; nothing was tried again."""
    status = caller.until_status(execution_id, "failed")
    assert status["error_details"]["failed_task"] == task_id
    assert status["task_states"][task_id] == "failed"
    assert status["task_states"]["after"] == "skipped"
    assert status["task_states"]["other-next"] == "completed"
    error, *_ = [
        event["payload"] for event in of_type(caller.events(execution_id), "error.occurred")
        if event["payload"].get("task_id") == task_id
    ]  # fmt: skip
    assert of_type(caller.events(execution_id), "task.retry_scheduled") == []
    assert error["error_type"] == code
    assert words in error["error_message"]


def run_of(caller: Caller, *tasks: dict[str, Any], **fields: Any) -> str:
    return caller.execute(caller.create(*tasks, *BRANCH, on_failure="finish_branches", **fields))


def test_a_fan_out_over_a_million_elements_of_a_result_is_refused(engine: RunningEngine) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    caller = engine.caller(tenant)
    with process_of(engine, tenant, *sdk_agent(tenant)):
        execution_id = run_of(
            caller,
            {"id": "many", "input": {"elements": MILLION}},
            {"id": "each", "depends_on": ["many"], "for_each": "results.many"},
            {"id": "after", "depends_on": ["each"]},
            agent_type="outside",
        )
        assert_only_this_failed(caller, execution_id, "each", "FOR_EACH_TOO_LONG", f"{MILLION}")


def test_a_fan_out_over_a_million_elements_that_an_expression_makes_is_refused(caller: Caller) -> None:
    each = {"id": "each", "for_each": f"range({MILLION})"}
    execution_id = run_of(caller, each, {"id": "after", "depends_on": ["each"]})
    assert_only_this_failed(caller, execution_id, "each", "EXPRESSION_TOO_LARGE", "100000")


def test_an_expression_that_would_go_on_for_hours_is_ended(caller: Caller) -> None:
    loop = {"id": "loop", "when": LOOP}
    execution_id = run_of(caller, loop, {"id": "after", "depends_on": ["loop"]})
    assert_only_this_failed(caller, execution_id, "loop", "EXPRESSION_TOO_LONG", "100000")


@pytest.mark.parametrize(
    "expression",
    ["1" + " + 1" * 100_000 + " > 0", "(" * 900 + "true" + ")" * 900, "true" + " " * 3_000],
    ids=["terms", "nested", "long"],
)
def test_an_enormous_expression_is_refused_with_its_definition(caller: Caller, expression: str) -> None:
    with pytest.raises(Refused) as refused:
        caller.create({"id": "first"}, {"id": "conditional", "depends_on": ["first"], "when": expression})
    assert refused.value.code == INVALID_DEFINITION
    assert "when" in str(refused.value)
    assert len(str(refused.value)) < 5_000, "the answer does not repeat it"


def test_added_tasks_that_would_close_a_cycle_are_refused(caller: Caller) -> None:
    closing = {"id": "closing", "agent": "worker", "depends_on": ["after"], "blocks": ["middle"]}
    execution_id = run_of(
        caller,
        {"id": "adds", "input": {"spawn": [closing]}},
        {"id": "beside", "depends_on": ["adds"]},
        {"id": "middle", "depends_on": ["adds"]},
        {"id": "after", "depends_on": ["middle"]},
    )
    assert_only_this_failed(
        caller, execution_id, "adds", "SPAWN_REFUSED", "wait for each other: after, closing, middle"
    )


def test_added_tasks_that_depend_on_each_other_in_a_circle_are_refused(caller: Caller) -> None:
    circle = [
        {"id": "one", "agent": "worker", "depends_on": ["two"]},
        {"id": "two", "agent": "worker", "depends_on": ["one"]},
    ]
    execution_id = run_of(caller, {"id": "adds", "input": {"spawn": circle}}, {"id": "after", "depends_on": ["adds"]})
    assert_only_this_failed(caller, execution_id, "adds", "SPAWN_REFUSED", "wait for each other: one, two")
