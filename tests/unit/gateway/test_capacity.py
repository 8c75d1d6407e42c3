"""Constraints of an execution, waiting for capacity, and the numbers of both."""

from typing import Any

import pytest

from tests.unit.gateway.conftest import Client, ClientOf, Gateway, definition, settings_of

AGENTS = {
    "coder": {"type": "synthetic", "count": 4, "resources": {"cpu": "2", "memory": "4GB"}},
    "worker": {"type": "synthetic", "count": 3, "resources": {"cpu": "500m", "memory": "1GB"}},
}


async def execute(client: Client, **options: Any) -> dict[str, Any]:
    workflow = await client.result("workflow.create", definition(agents=AGENTS))
    return await client.rpc(
        "workflow.execute",
        {
            "workflow_id": workflow["workflow_id"],
            "input_data": {},
            "execution_options": {"allow_concurrent": True, **options},
        },
    )


@pytest.mark.parametrize(
    ("constraints", "coders", "workers"),
    [
        ({}, 4, 3),
        ({"max_agents": 7}, 4, 3),
        ({"max_agents": 2}, 1, 1),
        ({"max_agents": 5}, 3, 2),
        ({"max_cpu": "5 cores"}, 2, 2),
        ({"max_memory": "9.5GB", "max_agents": 6}, 2, 1),
    ],
)
async def test_no_more_agents_are_launched_than_the_constraints_allow(
    client: Client, gateway: Gateway, constraints: dict[str, Any], coders: int, workers: int
) -> None:
    started = (await execute(client, resource_constraints=constraints))["result"]
    (launch,) = gateway.launcher.launched
    assert {name: role.count for name, role in launch.plan.roles.items()} == {"coder": coders, "worker": workers}
    assert started["allotment"] == {
        "coder": {"wanted": 4, "allotted": coders},
        "worker": {"wanted": 3, "allotted": workers},
    }
    assert len(started["allocated_agents"]) == coders + workers
    assert launch.plan.roles["coder"].wanted == (4 if coders < 4 else None)


@pytest.mark.parametrize(
    ("constraints", "exceeded"),
    [
        ({"max_agents": 1}, "2 agents of at most 1"),
        ({"max_cpu": "2"}, "2.5 cores of at most 2"),
        ({"max_memory": "1GB"}, "5000000000 bytes of memory of at most 1000000000"),
    ],
)
async def test_below_one_agent_of_each_role_the_execution_is_refused(
    client: Client, gateway: Gateway, constraints: dict[str, Any], exceeded: str
) -> None:
    error = (await execute(client, resource_constraints=constraints))["error"]
    assert (error["code"], error["data"]["exceeded"]) == (-32005, [exceeded])
    assert "one agent of each role" in error["message"]
    assert not gateway.executions.rows


async def test_what_the_whole_engine_could_never_hold_is_refused_with_the_remedy() -> None:
    gateway = Gateway(settings_of(capacity_agents_max=5, capacity_cpu_cores_max=8.0))
    async with gateway.client() as http:
        client = Client(http)
        error = (await execute(client))["error"]
        assert error["code"] == -32002
        assert error["data"]["exceeded"] == ["7 agents of at most 5", "9.5 cores of at most 8"]
        assert "resource_constraints" in error["message"]
        assert not gateway.executions.rows
        fitting = (await execute(client, resource_constraints={"max_agents": 4}))["result"]
        assert sum(role["allotted"] for role in fitting["allotment"].values()) == 4


async def test_what_waits_is_acknowledged_and_not_launched(client: Client, gateway: Gateway) -> None:
    gateway.executions.full = True
    started = (await execute(client, priority="high"))["result"]
    assert (started["status"], started["queued"]) == ("planning", True)
    assert gateway.launcher.launched == []
    (row,) = gateway.executions.rows.values()
    assert (row.priority, row.demand.agents, row.demand.cpu_micros) == ("high", 7, 9_500_000)


async def test_a_priority_is_low_normal_or_high(client: Client) -> None:
    assert (await execute(client, priority="urgent"))["error"]["code"] == -32602


async def test_low_priority_is_refused_with_429_while_too_many_wait(client: Client, gateway: Gateway) -> None:
    gateway.executions.queue_full = True
    error = (await execute(client, priority="low"))["error"]
    assert (error["code"], error["data"]["code"], error["data"]["waiting"]) == (-32020, "TOO_MANY_REQUESTS", 1_000)
    workflow_id = (await client.result("workflow.create", definition(agents=AGENTS)))["workflow_id"]
    answer = await client.http.post(
        f"/api/v1/workflows/{workflow_id}/execute",
        json={"input_data": {}, "execution_options": {"priority": "low"}},
    )
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "30")
    assert "result" in await execute(client)


async def test_what_waits_cannot_be_paused_and_is_cancelled_at_once_without_a_signal(
    client: Client, gateway: Gateway
) -> None:
    gateway.executions.full = True
    waiting = (await execute(client))["result"]["execution_id"]
    assert (await client.error("workflow.pause", [waiting]))["code"] == -32007
    assert (await client.result("workflow.cancel", [waiting]))["status"] == "cancelled"
    assert gateway.launcher.signals == []


async def test_capacity_shows_totals_and_only_the_callers_own(client: Client, client_of: ClientOf) -> None:
    settings = settings_of(capacity_executions_max=10, tenant_executions_max=3, capacity_cpu_cores_max=100.0)
    gateway = Gateway(settings)
    async with gateway.client() as one, gateway.client(tenant="other") as two:
        await execute(Client(one))
        await execute(Client(two))
        body = (await one.get("/api/v1/capacity")).json()
        assert body["limits"] == {"executions": 10, "agents": None, "cpu_cores": 100.0, "memory_bytes": None}
        assert body["in_use"] == {
            "executions": 2, "agents": 14, "cpu_cores": 19.0, "memory_bytes": 38_000_000_000
        }  # fmt: skip
        own = body["tenant"]
        assert (own["in_use"]["executions"], own["in_use"]["agents"]) == (1, 7)
        assert (own["executions_max"], own["available_executions"]) == (3, 2)
        assert body["accepts"] == {"high": True, "normal": True, "low": True}
        gateway.executions.full = True
        await execute(Client(two), priority="low")
        body = (await one.get("/api/v1/capacity")).json()
        assert body["waiting"] == {"high": 0, "normal": 0, "low": 1}
        assert body["tenant"]["waiting"] == {"high": 0, "normal": 0, "low": 0}
        assert body["tenant"]["available_executions"] == 0


async def test_without_limits_capacity_says_so() -> None:
    gateway = Gateway(settings_of(queue_waiting_max=1))
    async with gateway.client() as http:
        gateway.executions.full = True
        await execute(Client(http))
        body = (await http.get("/api/v1/capacity")).json()
        assert body["accepts"] == {"high": True, "normal": True, "low": False}
        assert body["waiting_max"] == 1
