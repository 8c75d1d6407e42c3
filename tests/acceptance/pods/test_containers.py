"""Agents that are pods: they work in real containers, and die there in all the ways in which pods die."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from engine.agents.kubernetes import names
from tests.acceptance.audit import of_type
from tests.acceptance.caller import Caller
from tests.acceptance.running import RunningEngine
from tests.cluster.control_plane import ControlPlane
from tests.cluster.http import ApiClient

pytestmark = pytest.mark.acceptance

REASSIGNED_SECONDS = 30.0
GONE_SECONDS = 60.0
RESOURCES = {"cpu": "300m", "memory": "96Mi"}
Pod = dict[str, Any]


async def eventually(look: Callable[[], Awaitable[bool]], what: str, seconds: float = 60.0) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    while not await look():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def pods_of(client: ApiClient, execution_id: str) -> list[Pod]:
    selector = f"{names.EXECUTION}%3D{execution_id}".replace("/", "%2F")
    items: list[Pod] = (await client.get(f"/api/v1/pods?labelSelector={selector}"))["items"]
    return items


def path_of(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


async def until_gone(client: ApiClient, execution_id: str) -> None:
    async def gone() -> bool:
        return not await pods_of(client, execution_id)

    await eventually(gone, "the pods are gone", GONE_SECONDS)


def begin(caller: Caller, *tasks: dict[str, Any], agents: int = 2) -> str:
    definition = {
        "name": f"wf-{uuid.uuid4().hex[:12]}",
        "version": "1.0",
        "orchestration_pattern": "supervisor",
        "agents": {"worker": {"type": "contained", "count": agents, "resources": {"cpu": "0.3", "memory": "96Mi"}}},
        "tasks": [{"agent": "worker", **task} for task in tasks],
        "coordination": {"type": "hybrid"},
    }
    return caller.execute(caller.rpc("workflow.create", **definition)["workflow_id"])


async def ended_well(caller: Caller, execution_id: str) -> None:
    await asyncio.to_thread(caller.until_completed, execution_id)


async def logs_its_work(client: ApiClient, pod: dict[str, Any]) -> bool:
    status, log = await client.request("GET", f"{path_of(pod)}/log")
    return status == 200 and "working on t" in log


async def test_each_agent_works_in_a_container_of_its_own(
    engine: RunningEngine, caller: Caller, control_plane: ControlPlane
) -> None:
    client = control_plane.client()
    tasks = [{"id": f"t{number}", "input": {"duration_ms": 1500}} for number in range(4)]
    execution_id = await asyncio.to_thread(begin, caller, *tasks)

    async def working() -> bool:
        return len(of_type(await asyncio.to_thread(caller.events, execution_id), "agent.task_started")) == len(tasks)

    await eventually(working, "all tasks have started")
    pods = await pods_of(client, execution_id)
    assert {pod["metadata"]["annotations"][names.AGENT] for pod in pods} == {"worker-1", "worker-2"}
    for pod in pods:
        [container] = pod["spec"]["containers"]
        assert container["resources"] == {"requests": RESOURCES, "limits": RESOURCES}
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["metadata"]["labels"][names.EXECUTION] == execution_id
        await eventually(partial(logs_its_work, client, pod), "its log is there")
    await ended_well(caller, execution_id)
    found = await asyncio.to_thread(
        lambda: caller.rest("GET", f"/executions/{execution_id}/tasks").json()["items"]
    )  # fmt: skip
    assert {task["result"]["pod"] for task in found} == {pod["metadata"]["name"] for pod in pods}
    assert {(task["result"]["user"], task["result"]["token"]) for task in found} == {(65532, False)}
    await until_gone(client, execution_id)


async def test_an_agent_over_its_memory_is_killed_and_its_task_done_in_another_pod(
    engine: RunningEngine, caller: Caller, control_plane: ControlPlane
) -> None:
    client = control_plane.client()
    execution_id = await asyncio.to_thread(begin, caller, {"id": "greedy", "input": {"hog": True}}, agents=1)
    await ended_well(caller, execution_id)
    events = await asyncio.to_thread(caller.events, execution_id)
    [lost] = of_type(events, "agent.disconnected")
    assert "OOMKilled" in str(lost["payload"])
    # That the first one has started may die with its agent.
    assert [event["payload"]["attempt"] for event in of_type(events, "agent.task_assigned")] == [1, 2]
    await until_gone(client, execution_id)


@pytest.mark.parametrize("way", ["evicted", "deleted"])
async def test_the_task_of_a_pod_that_is_taken_away_is_done_by_another(
    engine: RunningEngine, caller: Caller, control_plane: ControlPlane, way: str
) -> None:
    client = control_plane.client()
    execution_id = await asyncio.to_thread(begin, caller, {"id": "long", "input": {"lasting": True}}, agents=1)
    await asyncio.to_thread(caller.until_event, execution_id, "agent.task_started", task_id="long")
    [pod] = await pods_of(client, execution_id)
    if way == "evicted":
        metadata = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        await client.create(f"{path_of(pod)}/eviction", eviction)
    else:
        await client.delete(path_of(pod))
    began = time.monotonic()
    await asyncio.to_thread(caller.until_event, execution_id, "agent.task_started", task_id="long", attempt=2)
    assert time.monotonic() - began < REASSIGNED_SECONDS
    await ended_well(caller, execution_id)
    events = await asyncio.to_thread(caller.events, execution_id)
    [lost] = of_type(events, "agent.disconnected")
    assert lost["payload"]["agent_id"] == "worker-1"
    assert lost["payload"].get("reason"), "the reason is recorded"
    await until_gone(client, execution_id)
