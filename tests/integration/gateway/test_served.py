import asyncio
import socket
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from temporalio.client import Client

from engine.contracts.limits import REQUEST_BYTES_MAX
from engine.embedded.temporal import TemporalServer
from engine.errors import ConfigurationError
from engine.settings import Settings
from gateway.serve import gateway_dependencies, serve_gateway
from tests.integration.deployment.chart import metrics_named
from tests.integration.gateway.conftest import ClientOf, answering
from tests.unit.gateway.conftest import definition


async def rpc(http: httpx.AsyncClient, method: str, params: Any = None, **headers: str) -> dict[str, Any]:
    request = {"jsonrpc": "2.0", "method": method, "params": params or {}, "id": 1}
    answer = await http.post("/api/v1/jsonrpc", json=request, headers=headers)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


async def execution(http: httpx.AsyncClient, **headers: str) -> dict[str, Any]:
    created = (await rpc(http, "workflow.create", definition()))["result"]
    params = {"workflow_id": created["workflow_id"], "input_data": {"x": 1}}
    started: dict[str, Any] = (await rpc(http, "workflow.execute", params, **headers))["result"]
    return started


async def test_every_server_answers(http: httpx.AsyncClient) -> None:
    ready = await http.get("/ready")
    assert ready.json() == {
        "status": "ready",
        "servers": {"postgresql": True, "redis": True, "temporal": True},
    }
    assert (await http.get("/startup")).status_code == 200
    assert "server" not in ready.headers
    assert "process_cpu_seconds_total" in (await http.get("/metrics")).text


async def test_every_metric_that_alerts_and_autoscalers_name_is_shown(http: httpx.AsyncClient) -> None:
    """A rule about a metric that does not exist never speaks, and nobody notices."""
    await execution(http)
    families = list(text_string_to_metric_families((await http.get("/metrics")).text))
    shown = {family.name for family in families} | {sample.name for family in families for sample in family.samples}
    shown |= {f"{family.name}_total" for family in families if family.type == "counter"}
    deploy = Path(__file__).parents[3] / "deploy"
    groups = yaml.safe_load((deploy / "prometheus" / "alerts.yaml").read_text())["groups"]
    rules = yaml.safe_load((deploy / "prometheus" / "adapter-rules.yaml").read_text())["externalRules"]
    named = {rule["alert"]: metrics_named(rule["expr"]) for group in groups for rule in group["rules"]}
    named |= {f"autoscaling by {rule['name']['as']}": {rule["seriesQuery"]} for rule in rules}
    assert len(named) >= 10
    assert all(named.values())
    assert {alert: names - shown for alert, names in named.items() if names - shown} == {}


async def test_an_acknowledged_execution_is_in_postgresql_and_in_temporal(
    http: httpx.AsyncClient, tenant: str, temporal_server: TemporalServer
) -> None:
    started = await execution(http)
    execution_id = started["execution_id"]
    status = (await rpc(http, "workflow.status", {"execution_id": execution_id}))["result"]
    assert (status["status"], set(status["task_states"])) == ("planning", {"a", "b", "c", "d"})
    temporal = await Client.connect(temporal_server.address, namespace=temporal_server.namespace)
    described = await temporal.get_workflow_handle(f"{tenant}/{execution_id}").describe()
    assert described.workflow_type == "SupervisorWorkflow"
    assert (await rpc(http, "workflow.execute", {"workflow_id": started["workflow_id"], "input_data": {}}))["error"][
        "code"
    ] == -32004
    deleting = await rpc(http, "workflow.delete", {"workflow_id": started["workflow_id"]})
    assert deleting["error"]["code"] == -32004


async def test_every_listing_is_served_and_every_operation_recorded(http: httpx.AsyncClient) -> None:
    started = await execution(http)
    base = f"/api/v1/executions/{started['execution_id']}"
    for path in (
        "/api/v1/workflows",
        "/api/v1/executions",
        "/api/v1/patterns",
        "/api/v1/agents",
        base,
        f"{base}/tasks",
        f"{base}/events",
        f"{base}/checkpoints",
        f"/api/v1/workflows/{started['workflow_id']}",
    ):
        assert (await http.get(path)).status_code == 200, path
    assert (await http.get("/api/v1/capacity")).json()["executions"]["planning"] == 1
    events = (await http.get(f"{base}/events")).json()["items"]
    assert events[0]["payload"]["new_status"] == "planning"
    recorded = (await http.get("/api/v1/audit")).json()["items"]
    assert [item["operation"] for item in reversed(recorded)][:2] == ["workflow.create", "workflow.execute"]
    assert {item["outcome"] for item in recorded} == {"ok"}
    assert {item["address"] for item in recorded} == {"127.0.0.1"}


async def test_tenants_do_not_meet(http: httpx.AsyncClient, client_of: ClientOf, tenant: str) -> None:
    started = await execution(http)
    stranger = client_of(f"{tenant}-s")
    assert (await stranger.get("/api/v1/executions")).json()["items"] == []
    for path in (
        f"/api/v1/executions/{started['execution_id']}",
        f"/api/v1/executions/{started['execution_id']}/events",
        f"/api/v1/workflows/{started['workflow_id']}",
    ):
        identifier = path.split("/")[4]
        theirs, nothing = await stranger.get(path), await stranger.get(path.replace(identifier, str(uuid4())))
        assert theirs.status_code == nothing.status_code == 404
        assert theirs.json() | {"request_id": ""} == nothing.json() | {"request_id": ""}


async def test_one_key_is_one_execution_however_many_ask_at_once(http: httpx.AsyncClient) -> None:
    created = (await rpc(http, "workflow.create", definition()))["result"]
    params = {"workflow_id": created["workflow_id"], "input_data": {}, "idempotency_key": "same"}
    answers = await asyncio.gather(*(rpc(http, "workflow.execute", params) for _ in range(10)))
    assert len({answer["result"]["execution_id"] for answer in answers}) == 1
    other = await rpc(http, "workflow.execute", params | {"input_data": {"x": 2}})
    assert other["error"]["code"] == -32018


async def test_a_create_key_stands_for_one_body_however_many_ask_at_once(http: httpx.AsyncClient) -> None:
    bodies = [definition(name=f"w{number}", idempotency_key="same") for number in range(8)]
    answers = await asyncio.gather(*(rpc(http, "workflow.create", body) for body in bodies))
    codes = [answer.get("error", {}).get("code") for answer in answers]
    assert sorted(codes, key=str) == [-32018] * 7 + [None]
    winner = bodies[codes.index(None)]
    assert "result" in await rpc(http, "workflow.create", winner)


async def test_without_a_worker_a_pause_is_asked_and_not_acknowledged(http: httpx.AsyncClient) -> None:
    started = await execution(http)
    answer = await rpc(http, "workflow.pause", {"execution_id": started["execution_id"]})
    assert answer["error"]["data"]["code"] == "UNAVAILABLE"


async def test_a_client_that_sends_too_much_sees_the_answer(http: httpx.AsyncClient) -> None:
    for size in (REQUEST_BYTES_MAX + 1, 8 * 1024 * 1024):
        answer = await http.post("/api/v1/jsonrpc", content=b" " * size)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, -32019)


async def test_a_definition_with_text_that_sql_might_misread_is_stored_as_it_is(http: httpx.AsyncClient) -> None:
    text = "'; DROP TABLE workflow_definitions; -- $1 \\ \" \u2028 \U0001f600"
    tasks = [{"id": "a", "agent": "worker", "input": {text: [text]}}]
    created = (await rpc(http, "workflow.create", definition(tasks=tasks)))["result"]
    stored = (await rpc(http, "workflow.get", {"workflow_id": created["workflow_id"]}))["result"]
    assert stored["definition"]["tasks"][0]["input"] == {text: [text]}


async def test_requests_under_way_are_answered_before_the_server_ends(gateway_settings: Settings, tenant: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    serving = asyncio.create_task(serve_gateway(gateway_settings, listener))
    await answering(url, serving)
    async with httpx.AsyncClient(trust_env=False) as http:

        async def slow_body() -> Any:
            yield b'{"jsonrpc": "2.0", '
            serving.cancel()
            await asyncio.sleep(0.3)
            yield b'"method": "x", "id": 1}'

        answer = await http.post(f"{url}/api/v1/jsonrpc", content=slow_body())
    assert answer.json()["error"]["code"] == -32016
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_without_a_key_to_verify_with_the_gateway_does_not_start(gateway_settings: Settings) -> None:
    settings = gateway_settings.model_copy(update={"token_key_file": None})
    with pytest.raises(ConfigurationError, match="TOKEN_KEY_FILE"):
        await serve_gateway(settings)


async def test_with_an_outside_issuer_no_key_file_is_needed(gateway_settings: Settings) -> None:
    changes = {"token_key_file": None, "token_jwks_url": "http://127.0.0.1:9/jwks"}
    async with gateway_dependencies(gateway_settings.model_copy(update=changes)) as dependencies:
        assert "workflow.create" in dependencies.operations
