"""Results that nobody should send: refused with a clear error, and the run goes on or fails as its definition says."""

import uuid
from typing import Any, Final

import pytest
from redis import Redis

from engine.events import keys
from tests.acceptance.audit import Event, assert_completed, attempts, of_type
from tests.acceptance.caller import Caller
from tests.acceptance.running import AGENTS_CODE, RunningEngine, until
from tests.acceptance.scale.foreign import foreign_host
from tests.acceptance.test_agents_from_outside import process_of

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

ENORMOUS_BYTES: Final = 50_000_000
REFUSED_BYTES: Final = 12_000_000
"""More than a result may have, less than what an entry is read for at all."""
PATIENT: Final = {"max_attempts": 2, "initial_delay_seconds": 0.1}


@pytest.fixture
def tenant() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def somebody(engine: RunningEngine, tenant: str) -> Caller:
    """Of a tenant of its own, whose agents are those that the test starts."""
    return engine.caller(tenant)


def errors(events: list[Event], task_id: str) -> list[dict[str, Any]]:
    """Of the task's failed attempts."""
    ends = of_type(events, "task.completed", task_id)
    return [event["payload"]["error"] for event in ends if event["payload"]["status"] == "failed"]


def sdk_agent(tenant: str) -> list[str]:
    return [
        "-P", "-m", "orchestration_agent", "--entry", "python:enormous:run", "--python-path", str(AGENTS_CODE),
        "--tenant", tenant, "--types", "outside", "--capabilities", "*", "--slots", "2",
    ]  # fmt: skip


@pytest.mark.parametrize("on_failure", ["fail_fast", "finish_branches"])
def test_an_enormous_result_of_an_agent_with_the_sdk_fails_its_task_and_the_rest_goes_as_its_policy_says(
    engine: RunningEngine, tenant: str, somebody: Caller, on_failure: str
) -> None:
    workflow_id = somebody.create(
        {"id": "enormous", "input": {"bytes": ENORMOUS_BYTES}},
        {"id": "after", "depends_on": ["enormous"]},
        {"id": "other"},
        {"id": "other-next", "depends_on": ["other"]},
        agent_type="outside",
        on_failure=on_failure,
    )
    with process_of(engine, tenant, *sdk_agent(tenant)):
        execution_id = somebody.execute(workflow_id)
        status = somebody.until_status(execution_id, "failed")
    assert status["error_details"]["failed_task"] == "enormous"
    [error] = errors(somebody.events(execution_id), "enormous")
    assert error["code"] == "RESULT_TOO_LARGE"
    assert str(ENORMOUS_BYTES + 2) in error["message"]
    assert status["task_states"]["after"] in ("skipped", "cancelled")
    if on_failure == "finish_branches":
        assert status["task_states"]["other-next"] == "completed"


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_result_that_a_foreign_agent_writes_fails_its_attempt(
    engine: RunningEngine, tenant: str, somebody: Caller, packed: bool
) -> None:
    url = engine.command("agent-url", "--tenant", tenant)["url"]
    execution_id = somebody.execute(somebody.create({"id": "large"}, agent_type="outside", agents=1))
    with foreign_host(url, tenant, "outside") as host:
        host.report(host.next_assignment(), "agent.task_completed", packed=packed, result="x" * REFUSED_BYTES)
        status = somebody.until_status(execution_id, "failed")
    assert status["error_details"]["failed_task"] == "large"
    assert [error["code"] for error in errors(somebody.events(execution_id), "large")] == ["RESULT_TOO_LARGE"]


@pytest.mark.parametrize("packed", [False, True])
def test_an_enormous_entry_of_a_foreign_agent_becomes_a_dead_letter_and_its_task_is_done_again(
    engine: RunningEngine, tenant: str, somebody: Caller, packed: bool
) -> None:
    """What is not even read changes nothing: the attempt ends by its timeout, as that of an agent that says nothing."""
    url = engine.command("agent-url", "--tenant", tenant)["url"]
    task = {"id": "enormous", "timeout_seconds": 2, "retry_policy": PATIENT}
    execution_id = somebody.execute(somebody.create(task, agent_type="outside", agents=1))
    worker = engine.role("worker")
    with foreign_host(url, tenant, "outside") as host:
        first = host.next_assignment()
        host.report(first, "agent.task_started")
        host.report(first, "agent.task_completed", packed=packed, result="x" * ENORMOUS_BYTES)
        again = host.next_assignment()
        assert again[2]["attempt"] == 2
        host.report(again, "agent.task_started")
        host.report(again, "agent.task_completed", packed=packed, result="small")
        somebody.until_completed(execution_id)
    events = somebody.events(execution_id)
    assert_completed(events, {"enormous": []})
    assert attempts(events, "enormous") == [1, 2]
    assert ["TIMEOUT" in error["code"] for error in errors(events, "enormous")] == [True]
    assert engine.role("worker") == worker, "the worker has survived it"
    [letter] = until(lambda: dead_letters(engine, tenant), "the dead letter is there")
    assert letter[b"reason"].startswith(b"an entry of 5")
    assert sum(map(len, letter.values())) < ENORMOUS_BYTES / 100


def dead_letters(engine: RunningEngine, tenant: str) -> list[dict[bytes, bytes]]:
    redis = Redis.from_url(engine.announced["redis_url"], socket_timeout=10)
    try:
        found: Any = redis.xrange(keys.dead_letters(tenant))
        return [fields for _, fields in found]
    finally:
        redis.close()
