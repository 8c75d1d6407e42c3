"""Operators look at steps that could not be undone, have them retried, or say that they are done."""

from uuid import UUID

import pytest

from engine.errors import EngineError, UnavailableError
from tests.unit.gateway.conftest import Client, Gateway


@pytest.fixture
async def execution_id(client: Client, gateway: Gateway) -> str:
    found = await client.execution()
    gateway.compensations.leave("default", UUID(found), "t2", "t1")
    return found


async def test_what_is_left_is_listed_with_what_it_waits_for(client: Client, execution_id: str) -> None:
    answer = await client.http.get(f"/api/v1/executions/{execution_id}/compensations")
    assert answer.status_code == 200
    found = [(item["task_id"], item["state"], item["blocked_by"]) for item in answer.json()["items"]]
    assert found == [("t2", "failed", []), ("t1", "waiting", ["t2"])]
    assert (await client.result("execution.compensations", [execution_id]))["items"] == answer.json()["items"]


async def test_a_retry_is_stored_and_started_once_and_audited(
    client: Client, gateway: Gateway, execution_id: str
) -> None:
    for _ in range(2):
        answer = await client.http.post(f"/api/v1/executions/{execution_id}/compensations/t2/retry")
        assert (answer.status_code, answer.json()["state"]) == (202, "retrying")
    assert len({retry.request_id for retry in gateway.launcher.retries}) == 1, "the same request, started again"
    _, record = gateway.log.records[-1]
    assert (record.operation, record.subject_id) == ("execution.retry_compensation", execution_id)
    assert record.details == {"task_id": "t2"}


async def test_what_waits_for_others_is_not_retried(client: Client, execution_id: str) -> None:
    answer = await client.http.post(f"/api/v1/executions/{execution_id}/compensations/t1/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "INVALID_TRANSITION")


async def test_marking_as_done_says_why_and_has_the_rest_undone(
    client: Client, gateway: Gateway, execution_id: str
) -> None:
    given = {"execution_id": execution_id, "task_id": "t2", "reason": "refunded by phone"}
    answer = await client.result("execution.mark_compensation_done", given)
    assert (answer["state"], answer["compensation_status"]) == ("marked_done", "partial")
    assert gateway.compensations.reasons == ["refunded by phone"]
    assert len(gateway.launcher.retries) == 1
    _, record = gateway.log.records[-1]
    assert record.details == {"task_id": "t2", "reason": "refunded by phone"}


async def test_marking_the_last_one_starts_nothing(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    gateway.compensations.leave("default", UUID(execution_id), "t1")
    answer = await client.http.post(f"/api/v1/executions/{execution_id}/compensations/t1/mark-done")
    assert answer.json()["compensation_status"] == "completed"
    assert gateway.launcher.retries == []


async def test_when_temporal_is_away_the_request_can_be_made_again(
    client: Client, gateway: Gateway, execution_id: str
) -> None:
    gateway.launcher.available = False
    answer = await client.http.post(f"/api/v1/executions/{execution_id}/compensations/t2/retry")
    assert answer.status_code == 503
    gateway.launcher.available = True
    answer = await client.http.post(f"/api/v1/executions/{execution_id}/compensations/t2/retry")
    assert answer.status_code == 202


async def test_a_start_that_hangs_is_given_up(
    client: Client, gateway: Gateway, execution_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(gateway.launcher, "retry_compensations", hang)
    answer = await client.http.post(f"/api/v1/executions/{execution_id}/compensations/t2/retry")
    assert answer.status_code == 503
    assert issubclass(UnavailableError, EngineError)


@pytest.mark.parametrize("body", [{"reason": "x" * 1001}, {"reason": 1}, {"why": "x"}])
async def test_nonsense_is_refused(client: Client, execution_id: str, body: dict[str, object]) -> None:
    path = f"/api/v1/executions/{execution_id}/compensations/t2/mark-done"
    assert (await client.http.post(path, json=body)).status_code == 400
    assert (await client.http.get(f"/api/v1/executions/{execution_id}/compensations?limit=0")).status_code == 400
