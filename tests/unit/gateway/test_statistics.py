"""Statistics over HTTP: the caller's tenant's own, as they were counted."""

from datetime import UTC, datetime
from uuid import uuid4

from engine.contracts.statistics import RunStatistics, Statistics, WorkflowStatistics
from tests.unit.gateway.conftest import Client, ClientOf, Gateway

COUNTS = {"planning": 0, "executing": 1, "paused": 0, "completed": 2, "failed": 0, "cancelled": 0}


async def test_statistics_are_the_tenants_own(client: Client, client_of: ClientOf, gateway: Gateway) -> None:
    workflow_id = uuid4()
    one = WorkflowStatistics(
        executions=COUNTS,
        workflow_id=workflow_id,
        workflow_name="w",
        version="1.0.0",
        orchestration_pattern="swarm",
        duration_p50_seconds=1.5,
    )
    gateway.statistics.of["default"] = Statistics(
        items=(one,),
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        total=RunStatistics(executions=COUNTS),
        patterns={"swarm": RunStatistics(executions=COUNTS)},
    )
    answer = await client.http.get("/api/v1/statistics", params={"limit": 7, "workflow_id": str(workflow_id)})
    assert answer.status_code == 200
    body = answer.json()
    assert body["as_of"] == "2026-01-01T00:00:00Z"
    assert body["items"][0]["duration_p50_seconds"] == 1.5
    assert body["total"]["executions"] == body["patterns"]["swarm"]["executions"] == COUNTS
    assert gateway.statistics.asked == [("default", 7, workflow_id)]
    assert (await client_of(tenant="stranger").http.get("/api/v1/statistics")).json()["items"] == []


async def test_what_is_no_workflow_is_refused(client: Client) -> None:
    for asked in ({"workflow_id": "x"}, {"limit": "0"}, {"page_token": "?"}):
        assert (await client.http.get("/api/v1/statistics", params=asked)).status_code == 400
