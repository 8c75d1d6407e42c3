"""Every operation by every role, and two tenants: over JSON-RPC, REST and the WebSocket's operation."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest

from engine.contracts.execution import TaskState
from engine.contracts.views import TaskResultView
from engine.security.permissions import ROLES
from gateway.operations.table import METHODS
from gateway.rest.routes import ROUTES, Route
from tests.unit.gateway.conftest import Client, ClientOf, Gateway, definition
from tests.unit.security.test_tokens import claims

ALLOWED = {
    "workflow.create": {"admin", "developer"},
    "workflow.execute": {"admin", "operator", "developer"},
    "workflow.delete": {"admin", "operator"},
    "workflow.pause": {"admin", "operator"},
    "workflow.resume": {"admin", "operator"},
    "workflow.cancel": {"admin", "operator"},
    "execution.checkpoint": {"admin", "operator"},
    "execution.send_event": {"admin", "operator", "developer"},
    "audit.list": {"admin", "operator"},
    "breaker.reset": {"admin", "operator"},
    "execution.retry_compensation": {"admin", "operator"},
    "execution.mark_compensation_done": {"admin", "operator"},
    "pattern.register": {"admin", "developer"},
    "dead_letter.list": {"admin", "operator"},
    "dead_letter.get": {"admin", "operator"},
    "dead_letter.replay": {"admin", "operator"},
    "dead_letter.purge": {"admin", "operator"},
    "hooks.register": {"admin", "developer"},
    "hooks.update": {"admin", "developer"},
    "hooks.enable": {"admin", "developer"},
    "hooks.disable": {"admin", "developer"},
    "hooks.delete": {"admin", "developer"},
    "hooks.set_switch": {"admin", "developer"},
    "hooks.execute": {"admin", "operator", "developer"},
}
"""Everything else is reading, and open to every role."""

REFUSED = "FORBIDDEN"
PATTERN = {
    "name": "mine",
    "version": "1",
    "coordination_logic": {"start": "end", "states": {"end": {"do": "finish"}}},
}


def path_of(route: Route, **ids: str) -> str:
    known = {"workflow_id": str(uuid4()), "execution_id": str(uuid4()), "task_id": "a", "name": "supervisor"}
    known |= {"letter_id": "1-0", "hook_id": str(uuid4()), "host_id": "a-host", "service": "agent:coder"} | ids
    return "/api/v1" + route.path.format(**known)


async def call(http: httpx.AsyncClient, route: Route, **ids: str) -> httpx.Response:
    body = definition() if route.operation == "workflow.create" else {}
    if route.operation == "workflow.execute":
        body = {"input_data": {}}
    if route.operation == "pattern.register":
        body = PATTERN
    if route.operation == "execution.send_event":
        body = {"event_type": "approval"}
    if route.operation == "swarm.recount":
        body = {"voting": {"rule": "quorum"}}
    if route.operation in ("dead_letter.replay", "dead_letter.purge"):
        body = {"all": True}
    if route.operation == "hooks.set_switch":
        body = {"enabled": True}
    if route.operation == "hooks.update":
        body = {"priority": 1}
    if route.operation == "hooks.execute":
        body = {"context": {}}
    return await http.request(route.method, path_of(route, **ids), json=body if route.body != "none" else None)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
async def test_rest_allows_what_the_role_allows(client_of: ClientOf, gateway: Gateway, route: Route, role: str) -> None:
    answer = await call(client_of(role).http, route)
    allowed = role in ALLOWED.get(route.operation, set(ROLES))
    assert (answer.status_code != 403) is allowed
    ((operation, outcome),) = gateway.outcomes()
    assert operation == route.operation
    assert (outcome != REFUSED) is allowed
    if not allowed:
        assert answer.json()["code"] == REFUSED
        assert not gateway.definitions.rows


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", METHODS)
async def test_jsonrpc_allows_what_the_role_allows(
    client_of: ClientOf, gateway: Gateway, method: str, role: str
) -> None:
    body = await client_of(role).rpc(method, [])
    allowed = role in ALLOWED.get(method, set(ROLES))
    assert (body.get("error", {}).get("code") != -32017) is allowed
    assert (gateway.outcomes()[-1] == (method, REFUSED)) is not allowed


def test_every_operation_is_in_the_matrix(gateway: Gateway) -> None:
    reached = {route.operation for route in ROUTES} | set(METHODS) | {"execution.watch"}
    assert reached == set(gateway.dependencies.operations.names())
    assert set(ALLOWED) <= reached


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
async def test_rest_wants_a_token(client_of: ClientOf, gateway: Gateway, route: Route) -> None:
    answer = await call(client_of(None).http, route)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "UNAUTHENTICATED"
    assert not gateway.log.records


@pytest.mark.parametrize("method", [*METHODS, "no.such.method"])
async def test_jsonrpc_wants_a_token_and_does_not_tell_which_methods_there_are(
    client_of: ClientOf, gateway: Gateway, method: str
) -> None:
    error = await client_of(None).error(method, [])
    assert error["code"] == -32016
    assert not gateway.log.records


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YWRtaW46YWRtaW4=",
        "Bearer nonsense",
        "bearer " + jwt.encode(claims(), "x" * 32, algorithm="HS256"),
    ],
)
async def test_a_header_without_a_good_token_is_refused(client_of: ClientOf, header: str) -> None:
    answer = await client_of(None).http.get("/api/v1/workflows", headers={"Authorization": header})
    assert answer.status_code == 401


async def test_two_authorization_headers_are_refused(client_of: ClientOf, gateway: Gateway) -> None:
    token = f"Bearer {gateway.token()}"
    answer = await client_of(None).http.get(
        "/api/v1/workflows", headers=[("Authorization", token), ("Authorization", token)]
    )
    assert answer.status_code == 401


async def test_an_expired_token_is_refused(client_of: ClientOf, gateway: Gateway) -> None:
    token = gateway.token(lifetime_seconds=-1)
    answer = await client_of(None).http.get("/api/v1/workflows", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert answer.json()["detail"] == "the token has expired"


async def test_the_id_of_an_unauthenticated_call_comes_back_unless_the_body_is_large(client_of: ClientOf) -> None:
    http = client_of(None).http
    call_of = '{"jsonrpc": "2.0", "method": "workflow.list", "id": 7, "x": "%s"}'
    small = await http.post("/api/v1/jsonrpc", content=call_of % "")
    assert (small.json()["id"], small.json()["error"]["code"]) == (7, -32016)
    large = await http.post("/api/v1/jsonrpc", content=call_of % ("x" * 100_000))
    assert (large.json()["id"], large.json()["error"]["code"]) == (None, -32016)
    malformed = await http.post("/api/v1/jsonrpc", content="{")
    assert malformed.json()["error"]["code"] == -32016


def complete(gateway: Gateway, execution_id: str) -> None:
    """Task a of it, as the default tenant's."""
    result = TaskResultView(task_id="a", state=TaskState.COMPLETED, attempt=1, result="secret")
    gateway.dispatch.completed["default", UUID(execution_id)] = {"a": result}


def comparable(body: Any) -> Any:
    """Without what differs from request to request by its nature."""
    if isinstance(body, dict):
        return {name: comparable(value) for name, value in body.items() if name != "request_id"}
    return body


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "_id}" in route.path], ids=lambda route: route.operation
)
async def test_what_is_anothers_answers_exactly_like_what_is_not_there(
    client: Client, client_of: ClientOf, gateway: Gateway, route: Route
) -> None:
    execution_id = await client.execution()
    complete(gateway, execution_id)
    workflow_id = (await client.result("workflow.status", [execution_id]))["workflow_id"]
    stranger = client_of(tenant="stranger").http
    theirs = await call(stranger, route, execution_id=execution_id, workflow_id=workflow_id)
    nothing = await call(stranger, route)
    assert theirs.status_code == nothing.status_code == 404
    assert comparable(theirs.json()) == comparable(nothing.json())
    assert set(theirs.headers) == set(nothing.headers)


@pytest.mark.parametrize(
    "method", ["workflow.status", "workflow.pause", "workflow.resume", "workflow.cancel", "workflow.get"]
)
async def test_jsonrpc_too_tells_nothing_of_other_tenants(
    client: Client, client_of: ClientOf, gateway: Gateway, method: str
) -> None:
    execution_id = await client.execution()
    workflow_id = (await client.result("workflow.status", [execution_id]))["workflow_id"]
    stranger = client_of(tenant="stranger")
    theirs = await stranger.error(method, [workflow_id if method == "workflow.get" else execution_id])
    nothing = await stranger.error(method, [str(uuid4())])
    assert comparable(theirs) == comparable(nothing)
    assert theirs["code"] == -32003
    assert not gateway.launcher.signals


async def test_jsonrpc_tells_nothing_of_the_results_of_other_tenants(
    client: Client, client_of: ClientOf, gateway: Gateway
) -> None:
    execution_id = await client.execution()
    complete(gateway, execution_id)
    stranger = client_of(tenant="stranger")
    theirs = await stranger.error("execution.result", [execution_id, "a"])
    nothing = await stranger.error("execution.result", [str(uuid4()), "a"])
    assert comparable(theirs) == comparable(nothing)
    assert theirs["code"] == -32003
    assert (await client.result("execution.result", [execution_id, "a"]))["result"] == "secret"


async def test_a_tenant_lists_and_counts_its_own_only(client: Client, client_of: ClientOf) -> None:
    await client.execution()
    stranger = client_of(tenant="stranger")
    for method in ("workflow.list", "execution.list"):
        assert (await stranger.result(method))["items"] == []
    assert (await stranger.http.get("/api/v1/capacity")).json()["executions"]["executing"] == 0
    operations = (await stranger.http.get("/api/v1/audit")).json()["items"]
    assert {item["operation"] for item in operations} == {"workflow.list", "execution.list", "capacity.get"}


async def test_a_cached_plan_is_not_another_tenants(client: Client, client_of: ClientOf) -> None:
    workflow_id = (await client.result("workflow.create", definition()))["workflow_id"]
    await client.result("workflow.execute", {"workflow_id": workflow_id, "input_data": {}})
    error = await client_of(tenant="stranger").error("workflow.execute", {"workflow_id": workflow_id, "input_data": {}})
    assert error["code"] == -32003
