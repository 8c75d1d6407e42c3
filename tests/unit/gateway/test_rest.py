from typing import Any
from uuid import UUID, uuid4

import pytest

from engine.contracts.execution import TaskState
from engine.contracts.views import TaskResultView
from engine.errors import UnavailableError
from tests.unit.gateway.conftest import Client, Gateway, definition


async def created(client: Client, **changes: Any) -> str:
    answer = await client.http.post("/api/v1/workflows", json=definition(**changes))
    assert answer.status_code == 201
    identifier: str = answer.json()["workflow_id"]
    assert answer.headers["Location"] == f"/api/v1/workflows/{identifier}"
    return identifier


async def executed(client: Client, **headers: str) -> str:
    workflow_id = await created(client)
    answer = await client.http.post(
        f"/api/v1/workflows/{workflow_id}/execute", json={"input_data": {}}, headers=headers
    )
    assert answer.status_code == 202
    identifier: str = answer.json()["execution_id"]
    assert answer.headers["Location"] == f"/api/v1/executions/{identifier}"
    return identifier


async def test_a_workflow_is_created_read_listed_and_deleted(client: Client) -> None:
    workflow_id = await created(client)
    assert (await client.http.get(f"/api/v1/workflows/{workflow_id}")).json()["name"] == "diamond"
    listed = (await client.http.get("/api/v1/workflows", params={"limit": 1, "name": "diamond"})).json()
    assert [item["workflow_id"] for item in listed["items"]] == [workflow_id]
    deleted = await client.http.delete(f"/api/v1/workflows/{workflow_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.http.get(f"/api/v1/workflows/{workflow_id}")).status_code == 404


async def test_an_execution_is_paused_resumed_checkpointed_and_cancelled(client: Client) -> None:
    execution_id = await executed(client)
    base = f"/api/v1/executions/{execution_id}"
    assert (await client.http.get(base)).json()["status"] == "executing"
    assert (await client.http.post(f"{base}/pause")).json()["status"] == "paused"
    again = await client.http.post(f"{base}/pause", json={})
    assert (again.status_code, again.json()["code"]) == (409, "INVALID_TRANSITION")
    assert (await client.http.post(f"{base}/resume", json={})).json()["status"] == "executing"
    checkpoint = await client.http.post(f"{base}/checkpoints", json={"reason": "before the release"})
    assert (checkpoint.status_code, checkpoint.json()["reason"]) == (201, "checkpoint")
    listed = (await client.http.get(f"{base}/checkpoints")).json()["items"]
    assert len(listed) == 2
    wrong = await client.http.post(f"{base}/resume", json={"checkpoint_id": str(uuid4())})
    assert wrong.status_code in (404, 409)
    assert (await client.http.post(f"{base}/cancel")).json()["status"] == "cancelled"


async def test_an_unknown_checkpoint_is_404_with_its_own_code(client: Client) -> None:
    base = f"/api/v1/executions/{await executed(client)}"
    await client.http.post(f"{base}/pause")
    answer = await client.http.post(f"{base}/resume", json={"checkpoint_id": str(uuid4())})
    assert (answer.status_code, answer.json()["code"]) == (404, "CHECKPOINT_NOT_FOUND")


async def test_the_audit_log_of_an_execution_comes_in_order_and_in_pages(client: Client) -> None:
    base = f"/api/v1/executions/{await executed(client)}"
    await client.http.post(f"{base}/pause")
    seen, token = [], None
    for _ in range(10):
        params = {"limit": 2} | ({"page_token": token} if token else {})
        page = (await client.http.get(f"{base}/events", params=params)).json()
        seen += [item["sequence"] for item in page["items"]]
        token = page["next_page_token"]
        if token is None:
            break
    assert seen == [1, 2, 3, 4]
    refused = await client.http.get(f"{base}/events", params={"page_token": "abc"})
    assert (refused.status_code, refused.json()["errors"][0]["location"]) == (400, "page_token")


async def test_tasks_are_listed_by_state(client: Client, gateway: Gateway) -> None:
    execution_id = await executed(client)
    gateway.executions.row("default", UUID(execution_id)).task_states["a"] = TaskState.COMPLETED
    page = await client.http.get(f"/api/v1/executions/{execution_id}/tasks", params={"state": "completed"})
    assert [item["task_id"] for item in page.json()["items"]] == ["a"]


async def test_a_large_result_is_answered_whole_and_what_has_none_like_a_foreign_execution(
    client: Client, gateway: Gateway
) -> None:
    execution_id = await executed(client)
    answer = {"task_id": "a", "state": "completed", "attempt": 2, "result": {"text": "x" * 10_000}}
    stored = TaskResultView.model_validate(answer)
    gateway.dispatch.completed["default", UUID(execution_id)] = {"a": stored}
    base = "/api/v1/executions"
    assert (await client.http.get(f"{base}/{execution_id}/tasks/a/result")).json() == answer
    assert await client.result("execution.result", {"execution_id": execution_id, "task_id": "a"}) == answer

    unknown = [f"{execution_id}/tasks/b", f"{execution_id}/tasks/nobody", f"{uuid4()}/tasks/a"]
    refusals = [await client.http.get(f"{base}/{path}/result") for path in unknown]
    assert {(refusal.status_code, refusal.json()["detail"]) for refusal in refusals} == {
        (404, "no such thing, or not yours")
    }
    malformed = await client.http.get(f"{base}/{execution_id}/tasks/a%20b/result")
    assert (malformed.status_code, malformed.json()["errors"][0]["location"]) == (400, "task_id")


@pytest.mark.parametrize(
    ("query", "location"),
    [
        ("limt=5", "limt"),
        ("limit=5&limit=6", "limit"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=abc", "limit"),
        ("limit=1e2", "limit"),
        ("page_token=a%20b", "page_token"),
        ("status=odd", "status"),
        ("workflow_id=1", "workflow_id"),
        ("tenant=other", "tenant"),
        ("%00=1", "'\\x00'"),
    ],
)
async def test_query_parameters_that_are_unknown_or_wrong_are_refused_by_name(
    client: Client, query: str, location: str
) -> None:
    answer = await client.http.get(f"/api/v1/executions?{query}")
    assert answer.status_code == 400
    assert [item["location"] for item in answer.json()["errors"]] == [location]


async def test_patterns_come_in_pages_and_with_the_schema_of_their_settings(client: Client) -> None:
    first = (await client.http.get("/api/v1/patterns", params={"limit": 4})).json()
    second = (
        await client.http.get("/api/v1/patterns", params={"limit": 4, "page_token": first["next_page_token"]})
    ).json()
    assert len(first["items"]) + len(second["items"]) == 7
    assert second["next_page_token"] is None
    supervisor = (await client.http.get("/api/v1/patterns/supervisor")).json()
    assert supervisor["config_schema"]["properties"]["strategy"]["default"] == "least_loaded"
    swarm = (await client.http.get("/api/v1/patterns/swarm")).json()
    assert swarm["config_schema"]["additionalProperties"] is False
    assert (await client.http.get("/api/v1/patterns/odd")).status_code == 404


async def test_capacity_counts_open_executions_and_slots(client: Client) -> None:
    await executed(client)
    body = (await client.http.get("/api/v1/capacity")).json()
    assert body["executions"] == {"planning": 0, "executing": 1, "paused": 0}
    assert (body["hosts"], body["slots"]) == (0, 0)
    assert (await client.http.get("/api/v1/agents", params={"type": "synthetic"})).json()["items"] == []


async def test_the_same_key_with_another_body_is_a_conflict(client: Client) -> None:
    first = await executed(client, **{"Idempotency-Key": "k"})
    workflow_id = (await client.result("workflow.status", [first]))["workflow_id"]
    path = f"/api/v1/workflows/{workflow_id}/execute"
    again = await client.http.post(path, json={"input_data": {}}, headers={"Idempotency-Key": "k"})
    assert again.json()["execution_id"] == first
    other = await client.http.post(path, json={"input_data": {"x": 1}}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é"])
async def test_an_idempotency_key_has_1_to_255_visible_characters(client: Client, key: str) -> None:
    answer = await client.http.post(
        "/api/v1/workflows", json=definition(), headers=[(b"Idempotency-Key", key.encode())]
    )
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["location"] == "idempotency_key"


async def test_header_and_body_must_not_name_different_keys_nor_path_and_body_different_ids(
    client: Client,
) -> None:
    answer = await client.http.post(
        "/api/v1/workflows", json=definition(idempotency_key="a"), headers={"Idempotency-Key": "b"}
    )
    assert answer.status_code == 400
    workflow_id = await created(client)
    body = {"input_data": {}, "workflow_id": str(uuid4())}
    assert (await client.http.post(f"/api/v1/workflows/{workflow_id}/execute", json=body)).status_code == 400


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null"])
async def test_a_body_that_is_no_object_is_refused(client: Client, body: bytes) -> None:
    assert (await client.http.post("/api/v1/workflows", content=body)).status_code == 400


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/nothing", "/api/v1/workflows/", "/api/v2/workflows"])
async def test_unknown_paths_are_problems_too(client: Client, path: str) -> None:
    answer = await client.http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/api/v1/workflows"), ("GET", "/api/v1/jsonrpc"), ("DELETE", "/health")]
)
async def test_methods_that_are_not_allowed_are_problems_too(client: Client, method: str, path: str) -> None:
    answer = await client.http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
    assert "Allow" in answer.headers


async def test_a_server_that_is_away_is_503_with_a_time_to_come_back(client: Client, gateway: Gateway) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("PostgreSQL does not answer")

    gateway.definitions.list = away  # type: ignore[method-assign]  # a store whose server is away
    answer = await client.http.get("/api/v1/workflows")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


async def test_a_bug_is_500_without_any_detail(client: Client, gateway: Gateway) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    gateway.definitions.list = broken  # type: ignore[method-assign]  # a store with a bug
    answer = await client.http.get("/api/v1/workflows")
    assert answer.status_code == 500
    assert set(answer.json()) == {"type", "title", "status", "code", "request_id"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_problems_name_the_error_the_place_and_the_request(client: Client) -> None:
    answer = await client.http.post("/api/v1/workflows", json=definition(tasks=[{"id": "a", "agent": "nobody"}]))
    body = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (400, "INVALID_DEFINITION", 400)
    assert body["errors"][0]["location"] == "tasks[0].agent"
    assert body["request_id"] == answer.headers["X-Request-ID"]
