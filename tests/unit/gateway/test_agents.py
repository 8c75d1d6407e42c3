"""Hosts of agents over HTTP and JSON-RPC."""

import pytest

from tests.fakes.agents import agent_detail
from tests.unit.gateway.conftest import Client, ClientOf, Gateway


@pytest.fixture
def hosts(gateway: Gateway) -> None:
    gateway.agents.of["default"] = [
        agent_detail("well"),
        agent_detail("quiet", "suspect", types=("coder",), state_reason="silent for 5.1 s"),
        agent_detail("lost", "gone"),
    ]
    gateway.agents.of["stranger"] = [agent_detail("theirs")]


async def ids(client: Client, **params: str) -> list[str]:
    answer = await client.http.get("/api/v1/agents", params=params)
    assert answer.status_code == 200, answer.text
    return [item["host_id"] for item in answer.json()["items"]]


@pytest.mark.usefixtures("hosts")
async def test_agents_that_are_not_gone_are_listed_and_others_when_asked_for(client: Client) -> None:
    assert await ids(client) == ["well", "quiet"]
    assert await ids(client, state="gone") == ["lost"]
    assert await ids(client, state="suspect") == ["quiet"]
    assert await ids(client, type="coder") == ["quiet"]
    listed = await client.result("agent.list", {"limit": 1})
    assert [item["host_id"] for item in listed["items"]] == ["well"]
    assert listed["next_page_token"] == "more"
    assert "history" not in listed["items"][0]


@pytest.mark.usefixtures("hosts")
async def test_an_agent_is_shown_with_state_load_speed_and_history_the_same_both_ways(client: Client) -> None:
    answer = await client.http.get("/api/v1/agents/quiet")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["state"], body["state_reason"]) == ("suspect", "silent for 5.1 s")
    assert body["load"] == {"agents": 2, "executions": 1, "tasks_in_flight": 3}
    assert (body["speed"], body["slots"], body["capabilities"]) == (1.0, 8, "*")
    assert body["last_seen"] == "2026-01-02T03:04:05Z"
    assert body["history"] == [{"at": "2026-01-02T03:04:05Z", "state": "suspect", "speed": 1.0, "reason": ""}]
    assert await client.result("agent.get", {"host_id": "quiet"}) == body


@pytest.mark.usefixtures("hosts")
async def test_another_tenants_hosts_are_as_if_they_were_not_there(client: Client, client_of: ClientOf) -> None:
    foreign, missing = await client.http.get("/api/v1/agents/theirs"), await client.http.get("/api/v1/agents/nobody")
    assert (foreign.status_code, missing.status_code) == (404, 404)
    assert foreign.json()["code"] == missing.json()["code"]
    stranger = client_of(tenant="stranger")
    assert await ids(stranger) == ["theirs"]
    assert (await stranger.http.get("/api/v1/agents/well")).status_code == 404


@pytest.mark.parametrize("asked", [{"state": "sleepy"}, {"limit": "0"}, {"host": "x"}])
async def test_questions_that_make_no_sense_are_refused(client: Client, asked: dict[str, str]) -> None:
    assert (await client.http.get("/api/v1/agents", params=asked)).status_code == 400


async def test_what_cannot_be_a_host_is_refused(client: Client) -> None:
    assert (await client.http.get("/api/v1/agents/a%00b")).status_code == 400


async def test_both_ways_are_described(client: Client) -> None:
    paths = (await client.http.get("/openapi.json")).json()["paths"]
    assert "state" in {parameter["name"] for parameter in paths["/api/v1/agents"]["get"]["parameters"]}
    assert "/api/v1/agents/{host_id}" in paths
