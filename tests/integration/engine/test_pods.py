"""A whole engine whose agents are pods of a real API server. No kubelet is there: a harness plays the containers, one
agent process of the protocol for each pod that it sees."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import PODS, ClusterAccess, Document, KubernetesApi, open_api
from engine.agents.kubernetes.keeper import Keeper
from engine.concurrency import end_all, run_together
from engine.errors import EngineError, NotFoundError
from engine.events.connection import connect as connect_redis
from engine.events.hosts import HostStreams
from engine.plans import PlanLoader
from engine.postgres.pod_owners import PostgresPodOwners
from engine.postgres.stores import Stores
from engine.settings import Settings
from engine.temporal.connection import connect as connect_temporal
from engine.temporal.launcher import TemporalLauncher
from orchestration_agent.host import AgentHost, HostGivenUp, HostOptions
from orchestration_agent.synthetic import run as synthetic
from tests.cluster.control_plane import ControlPlane
from tests.integration.engine.bench import Bench, definition
from worker import ROLES, build

LOOK_SECONDS = 0.1
PREFIX = "it-"


class Harness:
    """What nodes would do: runs an agent for each pod, and kills it without a word when its pod ends."""

    def __init__(self, api: KubernetesApi, settings: Settings) -> None:
        self._api = api
        self._settings = settings
        self._selector = names.agents_selector(settings.kubernetes_owner)
        self.agents: dict[str, asyncio.Task[None]] = {}
        """By uid."""
        self.most_at_once: dict[tuple[str, str], int] = {}
        """Live pods of one agent."""

    async def run(self) -> None:
        try:
            while True:
                with contextlib.suppress(EngineError):  # the API server may be away, as for any node
                    await self._look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await end_all(self.agents.values())

    async def pods(self) -> list[Document]:
        return list((await self._api.list(PODS, None, selector=self._selector)).items)

    async def _look(self) -> None:
        pods = {pod["metadata"]["uid"]: pod for pod in await self.pods() if _lives(pod)}
        for uid in [uid for uid in self.agents if uid not in pods]:
            await end_all([self.agents.pop(uid)])
        agents: dict[tuple[str, str], int] = {}
        for uid, pod in pods.items():
            who = names.identity_of(pod["metadata"])
            assert who is not None
            key = (who.execution_id, who.agent_id)
            agents[key] = agents.get(key, 0) + 1
            self.most_at_once[key] = max(self.most_at_once.get(key, 0), agents[key])
            if uid not in self.agents:
                self.agents[uid] = asyncio.create_task(self._agent(pod, who))

    async def _agent(self, pod: Document, who: names.Identity) -> None:
        await self.say(pod, phase="Running")
        options = HostOptions(
            redis_url=self._settings.redis_url.get_secret_value(),
            tenant=who.tenant,
            types=(who.agent_type,),
            capabilities="*",
            slots=2,
            heartbeat_seconds=0.5,
            host_id=names.host_id(pod["metadata"]["name"], pod["metadata"]["uid"]),
            dedicated_to=(who.execution_id, who.agent_id),
        )
        with contextlib.suppress(HostGivenUp):
            await AgentHost(synthetic, options).run()

    async def say(self, pod: Document, **status: Any) -> None:
        path = PODS.path(pod["metadata"]["namespace"], pod["metadata"]["name"], "status")
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        with contextlib.suppress(NotFoundError):
            await self._api.request("PATCH", PODS, path, body=body, content_type="application/merge-patch+json")


def _lives(pod: Document) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] in ("Pending", "Running")


class Cluster:
    def __init__(self, bench: Bench, api: KubernetesApi, harness: Harness) -> None:
        self.bench = bench
        self.api = api
        self.harness = harness

    async def pods_of(self, execution_id: UUID) -> dict[str, Document]:
        found: dict[str, Document] = {}
        for pod in await self.harness.pods():
            who = names.identity_of(pod["metadata"])
            if who is not None and who.execution_id == str(execution_id):
                found[who.agent_id] = pod
        return found

    async def until_running(self, execution_id: UUID, task_id: str) -> tuple[str, Document]:
        """The agent that has the task, and its pod."""
        event = await self.bench.until_event(execution_id, "agent.task_started", task_id=task_id)
        agent_id = event.payload["agent_id"]
        return agent_id, (await self.pods_of(execution_id))[agent_id]

    async def until_released(self, execution_id: UUID) -> None:
        async def released() -> bool:
            return not await self.pods_of(execution_id)

        await self.bench.until(released, "its pods are gone", 20)


@pytest.fixture(scope="module")
async def pod_settings(
    engine_settings: Settings, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    folder: Path = tmp_path_factory.mktemp("pods")
    values: dict[str, Any] = {
        "allocator": "kubernetes",
        "kubernetes_kubeconfig": control_plane.kubeconfig,
        "kubernetes_owner": "in-process",
        "kubernetes_namespace_prefix": PREFIX,
        "kubernetes_agent_image": "registry.example/agent:1",
        "task_queue": "in-process-pods",
        "data_dir": folder,
    }
    return engine_settings.model_copy(update=values)


@pytest.fixture(scope="module")
async def running_engine(pod_settings: Settings) -> AsyncIterator[Harness]:
    """Worker, bridge and registry; the keeper; and the harness."""
    async with AsyncExitStack() as stack:
        jobs = await build(pod_settings, ROLES, stack)
        stores = await stack.enter_async_context(Stores.open(pod_settings))
        redis = connect_redis(pod_settings)
        stack.push_async_callback(redis.aclose)
        streams = HostStreams(redis, pod_settings.event_partitions)
        api = await stack.enter_async_context(open_api(ClusterAccess.of(pod_settings)))
        owners = PostgresPodOwners(stores.database, stores.maintenance)
        keeper = Keeper(api, streams, owners, pod_settings.kubernetes_owner)
        harness = Harness(api, pod_settings)
        running = asyncio.create_task(run_together([*jobs, keeper.run, harness.run]))
        yield harness
        await end_all([running])


@pytest.fixture
async def cluster(
    pod_settings: Settings, stores: Stores, running_engine: Harness, tenant: str
) -> AsyncIterator[Cluster]:
    redis = connect_redis(pod_settings)
    client = await connect_temporal(pod_settings, PlanLoader(stores.plans), stores.dispatch)
    options = HostOptions(redis_url="", tenant=tenant, types=("synthetic",))
    bench = Bench(tenant, stores, TemporalLauncher(client, pod_settings), client, redis, pod_settings, options)
    async with open_api(ClusterAccess.of(pod_settings)) as api:
        yield Cluster(bench, api, running_engine)
    await redis.aclose()


def long_task(name: str, duration_ms: int = 1_500) -> dict[str, Any]:
    return {"id": name, "input": {"duration_ms": duration_ms}}


async def test_agents_get_pods_and_the_pods_go_when_the_work_is_done(cluster: Cluster) -> None:
    execution_id = await cluster.bench.start(definition({"id": "a"}, {"id": "b", "depends_on": ["a"]}, agents=3))
    view = await cluster.bench.until_closed(execution_id)
    assert view.status == "completed", view.error_details
    await cluster.until_released(execution_id)
    assert {count for (x, _), count in cluster.harness.most_at_once.items() if x == str(execution_id)} == {1}
    await cluster.bench.assert_replays(execution_id)


async def test_what_an_evicted_pod_did_is_done_by_its_successor_and_the_log_says_why(cluster: Cluster) -> None:
    execution_id = await cluster.bench.start(definition(long_task("a"), agents=1))
    agent_id, pod = await cluster.until_running(execution_id, "a")
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    began = time.monotonic()
    await cluster.api.request("POST", PODS, PODS.path(namespace, name, "eviction"), body=eviction)
    lost = await cluster.bench.until_event(execution_id, "agent.disconnected", agent_id=agent_id)
    assert time.monotonic() - began < 2.0
    assert lost.payload["reason"].startswith(("Evicted", "Deleted"))
    await cluster.bench.until_event(execution_id, "agent.task_assigned", task_id="a", attempt=2)
    assert time.monotonic() - began < 30.0
    assert (await cluster.bench.until_closed(execution_id)).status == "completed"
    ended = await cluster.bench.until_event(execution_id, "task.completed", task_id="a", attempt=1)
    assert lost.payload["reason"] in str(ended.payload["error"])
    await cluster.until_released(execution_id)
    assert {count for (x, _), count in cluster.harness.most_at_once.items() if x == str(execution_id)} == {1}
    await cluster.bench.assert_replays(execution_id)


async def test_one_killed_for_its_memory_is_told_as_such(cluster: Cluster) -> None:
    execution_id = await cluster.bench.start(definition(long_task("a"), agents=1))
    agent_id, pod = await cluster.until_running(execution_id, "a")
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    container = {"name": "agent", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": ended}
    await cluster.harness.say(pod, phase="Failed", containerStatuses=[container])
    lost = await cluster.bench.until_event(execution_id, "agent.disconnected", agent_id=agent_id)
    assert lost.payload["reason"].startswith("OOMKilled")
    assert (await cluster.bench.until_closed(execution_id)).status == "completed"
    await cluster.until_released(execution_id)


async def test_work_goes_on_after_the_api_server_was_away(cluster: Cluster, control_plane: ControlPlane) -> None:
    execution_id = await cluster.bench.start(definition(long_task("a"), {"id": "b", "depends_on": ["a"]}, agents=1))
    await cluster.until_running(execution_id, "a")
    await control_plane.stop_api_server()
    assert (await cluster.bench.until_closed(execution_id)).status == "completed"
    await control_plane.start_api_server()
    await cluster.until_released(execution_id)
