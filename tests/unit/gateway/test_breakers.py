"""Circuit breakers over HTTP and JSON-RPC."""

import pytest

from engine.contracts.circuits import CircuitState, CircuitView
from tests.unit.gateway.conftest import Client, Gateway


@pytest.fixture(autouse=True)
def breakers(gateway: Gateway) -> None:
    opened = CircuitView(
        service="agent:coder", state=CircuitState.OPEN, failures=3, threshold=3, retry_in_ms=12_500, opened_by="e-1",
        total=7,
    )  # fmt: skip
    gateway.breakers.of["default"] = [opened, CircuitView(service="agent:writer", failures=1, total=1)]
    gateway.breakers.of["stranger"] = [CircuitView(service="agent:theirs", failures=1, total=1)]


async def test_a_tenants_breakers_are_listed_in_pages(client: Client) -> None:
    first = (await client.http.get("/api/v1/breakers", params={"limit": "1"})).json()
    assert first["items"] == [
        {
            "service": "agent:coder",
            "state": "open",
            "failures": 3,
            "threshold": 3,
            "retry_in_seconds": 12.5,
            "opened_by": "e-1",
            "failures_total": 7,
        }
    ]
    rest = await client.result("breaker.list", {"limit": 1, "page_token": first["next_page_token"]})
    assert [item["service"] for item in rest["items"]] == ["agent:writer"]
    assert rest["next_page_token"] is None


async def test_a_page_token_of_something_else_is_refused(client: Client) -> None:
    assert (await client.http.get("/api/v1/breakers", params={"page_token": "abc"})).status_code == 400


async def test_a_breaker_is_closed_by_hand_and_the_log_says_by_whom(client: Client, gateway: Gateway) -> None:
    answer = await client.http.post("/api/v1/breakers/agent:coder/reset")
    assert (answer.status_code, answer.json()) == (200, {"service": "agent:coder", "state": "closed"})
    assert [view.service for view in gateway.breakers.of["default"]] == ["agent:writer"]
    assert (await client.http.post("/api/v1/breakers/agent:coder/reset")).status_code == 404
    assert (await client.http.post("/api/v1/breakers/agent:theirs/reset")).status_code == 404
    assert any("breaker.reset" in str(record) for record in gateway.log.records)
