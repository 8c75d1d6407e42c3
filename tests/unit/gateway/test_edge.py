"""What every answer has: headers, ids, limits; and the pages and probes."""

import re

import pytest
from prometheus_client import CollectorRegistry

from gateway.metrics import HttpMetrics
from gateway.pages import DOCS_POLICY
from tests.unit.gateway.conftest import Client, ClientOf, Gateway, settings_of


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/health", "/api/v1/workflows", "/nothing", "/console/console.js"]
)
async def test_every_answer_has_the_security_headers(client: Client, path: str) -> None:
    headers = (await client.http.get(path)).headers
    assert headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"] == (DOCS_POLICY if path == "/docs" else "default-src 'self'")
    assert headers["X-Request-ID"]
    assert "Server" not in headers


async def test_a_harmless_request_id_is_kept_and_any_other_replaced(client: Client, gateway: Gateway) -> None:
    kept = await client.http.get("/api/v1/workflows", headers={"X-Request-ID": "order-7.a_b"})
    assert kept.headers["X-Request-ID"] == "order-7.a_b"
    assert gateway.log.records[-1][1].request_id == "order-7.a_b"
    for odd in ("a b", "x" * 129, "<script>", ""):
        answer = await client.http.get("/health", headers={"X-Request-ID": odd})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


async def test_the_clients_trace_is_the_executions_trace(client: Client, gateway: Gateway) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    client.http.headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-01"
    await client.execution()
    assert gateway.launcher.launched[0].trace_id.replace("-", "") == trace


@pytest.mark.parametrize("host", ["evil.test/path", "a b", "[::1", "x" * 300, ""])
async def test_a_host_header_that_is_none_does_not_get_into_urls(client: Client, gateway: Gateway, host: str) -> None:
    execution_id = await client.execution()
    answer = await client.http.post(f"/api/v1/executions/{execution_id}/pause", headers={"Host": host})
    assert answer.json()["resume_url"].startswith("http://gateway.test")


async def test_urls_use_the_public_address_where_there_is_one() -> None:
    gateway = Gateway(settings_of(public_url="https://orchestrator.example/"))
    async with gateway.client() as http:
        client = Client(http)
        execution_id = await client.execution()
        paused = await client.result("workflow.pause", [execution_id])
    assert paused["resume_url"] == f"https://orchestrator.example/api/v1/executions/{execution_id}/resume"


async def test_over_the_limit_is_429_with_a_time_to_come_back(client: Client, gateway: Gateway) -> None:
    gateway.rate_limit.wait_seconds = 17.2
    answer = await client.http.get("/api/v1/workflows")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "17")
    assert (answer.json()["code"], answer.json()["status"]) == ("TOO_MANY_REQUESTS", 429)
    assert answer.headers["X-Frame-Options"] == "DENY"
    rpc = await client.http.post("/api/v1/jsonrpc", json={})
    assert (rpc.status_code, rpc.json()["error"]["code"], rpc.headers["Retry-After"]) == (200, -32020, "17")
    assert gateway.rate_limit.asked == ["192.0.2.7", "192.0.2.7"]
    assert not gateway.log.records


async def test_probes_are_not_limited(client: Client, gateway: Gateway) -> None:
    gateway.rate_limit.wait_seconds = 60.0
    for path in ("/health", "/ready", "/startup"):
        assert (await client.http.get(path)).status_code == 200


async def test_only_allowed_origins_may_read_answers() -> None:
    gateway = Gateway(settings_of(allowed_origins="https://console.example, https://b.example"))
    async with gateway.client() as http:
        mine = await http.get("/api/v1/workflows", headers={"Origin": "https://console.example"})
        other = await http.get("/api/v1/workflows", headers={"Origin": "https://evil.example"})
        preflight = await http.options(
            "/api/v1/workflows",
            headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
        )
    assert mine.headers["Access-Control-Allow-Origin"] == "https://console.example"
    assert "Access-Control-Allow-Origin" not in other.headers
    assert preflight.status_code == 400


async def test_health_asks_no_server_and_ready_names_those_that_are_away(client_of: ClientOf, gateway: Gateway) -> None:
    http = client_of(None).http
    gateway.servers.away = {"postgresql", "redis", "temporal"}
    assert (await http.get("/health")).status_code == 200
    assert (await http.get("/startup")).status_code == 503
    gateway.servers.away = {"redis"}
    ready = await http.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["servers"] == {"postgresql": True, "redis": False, "temporal": True}
    gateway.servers.away = set()
    assert (await http.get("/ready")).status_code == 200
    gateway.servers.away = {"temporal"}
    assert (await http.get("/startup")).status_code == 200


async def test_metrics_want_a_token_and_name_routes_not_ids(client: Client, client_of: ClientOf) -> None:
    execution_id = await client.execution()
    await client.http.get(f"/api/v1/executions/{execution_id}")
    assert (await client_of(None).http.get("/metrics")).status_code == 401
    text = (await client.http.get("/metrics")).text
    assert 'route="/api/v1/executions/{execution_id}"' in text
    assert execution_id not in text


def test_odd_methods_share_one_label() -> None:
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    for method in ("BREW", "PROPFIND"):
        metrics.observe(method, "unmatched", 405, 0.1)
    labels = {"method": "OTHER", "route": "unmatched", "status": "405"}
    assert registry.get_sample_value("orchestrator_http_requests_total", labels) == 2


async def test_pages_load_nothing_from_elsewhere(client_of: ClientOf) -> None:
    http = client_of(None).http
    for page in ("/", "/docs"):
        html = (await http.get(page)).text
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", html)
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|<style|style=", html)
        for path in re.findall(r"(?:src|href)=\"(/[^\"]+)\"", html):
            assert (await http.get(path)).status_code == 200


async def test_the_console_learns_where_temporals_ui_is() -> None:
    gateway = Gateway(settings_of(temporal_ui_url="http://127.0.0.1:8233"))
    async with gateway.client(None) as http:
        assert (await http.get("/console/settings.json")).json() == {"temporal_ui_url": "http://127.0.0.1:8233"}


async def test_the_openapi_document_describes_bodies_parameters_and_problems(client: Client) -> None:
    document = (await client.http.get("/openapi.json")).json()
    create = document["paths"]["/api/v1/workflows"]["post"]
    assert create["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/WorkflowDefinition"
    }
    events = document["paths"]["/api/v1/executions/{execution_id}/events"]["get"]
    assert {item["name"] for item in events["parameters"]} == {"execution_id", "limit", "page_token"}
    schemas = document["components"]["schemas"]
    references = set(re.findall(r"#/components/schemas/([^\"]+)", (await client.http.get("/openapi.json")).text))
    assert references <= set(schemas)
    assert {"WorkflowDefinition", "TaskDefinition", "Problem", "ExecutionView"} <= set(schemas)
