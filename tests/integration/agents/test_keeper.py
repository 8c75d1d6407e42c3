"""The keeper on a real control plane without kubelets: the tests say what a kubelet would say of a pod."""

import asyncio
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.agents.kubernetes import keeper as keeper_module
from engine.agents.kubernetes import names, reconciling
from engine.agents.kubernetes.client import NODES, PODS, ClusterAccess, open_api
from engine.agents.kubernetes.keeper import Keeper
from engine.concurrency import end_all
from engine.embedded.host_fleet import serve_hosts
from engine.embedded.valkey import ValkeyServer
from engine.pod_ports import Claim, ExecutionKey, HostKey
from engine.postgres.cluster import ClusterUrls
from engine.settings import Settings
from tests.cluster.control_plane import ControlPlane
from tests.integration.agents.keeping import Deployment, FakeOwners, Proxy, container, until
from tests.unit.agents.fakes import FakePort

NODE = "node-of-keeper"


@pytest.fixture(autouse=True)
def fast_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "ROUND_SECONDS", 0.2)


@pytest.fixture
async def deployment(control_plane: ControlPlane, tenant: str) -> AsyncIterator[Deployment]:
    async with open_api(ClusterAccess(kubeconfig=control_plane.kubeconfig)) as api:
        deployment = Deployment(api, tenant)
        await deployment.make_namespace()
        yield deployment


@pytest.fixture
async def proxy(control_plane: ControlPlane) -> AsyncIterator[Proxy]:
    context = ssl.create_default_context(cafile=str(control_plane.certificate_authority))
    async with Proxy(control_plane.url, context).running() as proxy:
        yield proxy


async def test_an_eviction_is_told_with_its_reason(deployment: Deployment) -> None:
    pod = await deployment.pod()
    await deployment.run_pod(pod)
    async with deployment.kept():
        name = pod["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        path = PODS.path(deployment.namespace, name, "eviction")
        await deployment.api.request("POST", PODS, path, body=eviction)
        assert (await deployment.told(pod)).startswith(("Evicted", "Deleted"))


async def test_a_container_over_its_memory_limit_is_told_as_such(deployment: Deployment) -> None:
    pod = await deployment.pod()
    await deployment.run_pod(pod)
    async with deployment.kept():
        ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
        await deployment.say(pod, phase="Failed", containerStatuses=[container(state=ended)])
        assert (await deployment.told(pod)).startswith("OOMKilled")


async def test_a_deletion_is_told_at_once_although_the_pod_is_still_ending(deployment: Deployment) -> None:
    await make_node(deployment)
    pod = await deployment.pod(node=NODE)
    await deployment.run_pod(pod)
    async with deployment.kept():
        await deployment.api.delete(PODS, deployment.namespace, pod["metadata"]["name"], grace_seconds=30)
        assert await deployment.told(pod) == "Deleted: the pod was deleted"


async def test_a_pod_of_a_node_that_does_not_answer_is_removed_by_force_before_it_is_told(
    deployment: Deployment,
) -> None:
    await make_node(deployment)
    pod = await deployment.pod(node=NODE)
    await deployment.run_pod(pod)
    async with deployment.kept():
        await deployment.say(pod, conditions=[{"type": "Ready", "status": "False"}])
        assert (await deployment.told(pod)).startswith("NodeNotReady")
        assert pod["metadata"]["name"] not in await deployment.names()


async def test_all_pods_of_a_closed_execution_go_and_nothing_else(deployment: Deployment) -> None:
    closed, still_open = str(uuid.uuid4()), str(uuid.uuid4())
    deployment.owners.open = {
        ExecutionKey(deployment.tenant, closed): True,
        ExecutionKey(deployment.tenant, still_open): True,
    }
    for n in range(5):
        await deployment.pod(closed, f"worker-{n}")
    stays = await deployment.pod(still_open)
    foreign = await deployment.pod(closed, owner="another-deployment")
    async with deployment.kept():
        assert len(await deployment.names()) == 7
        deployment.owners.open[ExecutionKey(deployment.tenant, closed)] = False
        before = deployment.api.calls["DELETE pods"]

        async def released() -> bool:
            return await deployment.names() == {stays["metadata"]["name"], foreign["metadata"]["name"]}

        await until(released, "the pods are gone", 5)
        assert deployment.api.calls["DELETE pods"] - before <= 2  # one call, or a second one before the watch spoke


async def test_a_pod_of_an_execution_that_nobody_knows_goes(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "ORPHAN_AGE_SECONDS", 1.0)
    await deployment.pod(str(uuid.uuid4()))
    foreign = await deployment.pod(str(uuid.uuid4()), owner="another-deployment")
    async with deployment.kept():

        async def gone() -> bool:
            return await deployment.names() == {foreign["metadata"]["name"]}

        await until(gone, "the orphan is gone", 10)


async def test_a_deletion_that_no_kubelet_confirms_is_forced(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "FORCE_AFTER_SECONDS", 0.5)
    await make_node(deployment)
    execution = str(uuid.uuid4())
    pod = await deployment.pod(execution, node=NODE)
    await deployment.run_pod(pod)
    deployment.owners.open[ExecutionKey(deployment.tenant, execution)] = False
    async with deployment.kept():

        async def gone() -> bool:
            return not (await deployment.api.list(PODS, deployment.namespace)).items

        await until(gone, "the pod is gone", 10)


async def test_a_claimed_pod_of_a_pool_goes_with_its_execution_though_its_labels_never_named_it(
    deployment: Deployment,
) -> None:
    pod, waiting = await deployment.pool_pod(1), await deployment.pool_pod(2)
    execution = str(uuid.uuid4())
    host = names.host_id(pod["metadata"]["name"], pod["metadata"]["uid"])
    deployment.owners.claimed[HostKey(deployment.tenant, host)] = Claim(execution, "worker-1")
    deployment.owners.open[ExecutionKey(deployment.tenant, execution)] = False
    async with deployment.kept():

        async def gone() -> bool:
            return await deployment.names() == {waiting["metadata"]["name"]}

        await until(gone, "the claimed pod is gone", 5)


async def test_what_happens_while_the_api_server_is_away_is_told_when_it_is_back(
    deployment: Deployment, control_plane: ControlPlane
) -> None:
    pod, other = await deployment.pod(), await deployment.pod()
    async with deployment.kept() as keeper:
        await control_plane.stop_api_server()

        async def broken() -> bool:
            return not keeper.namespaces()

        await until(broken, "the watches are broken", 30)
        await control_plane.start_api_server()
        await deployment.api.delete(PODS, deployment.namespace, pod["metadata"]["name"], grace_seconds=0)
        assert await deployment.told(pod, seconds=25) == "Deleted: the pod was deleted"
        assert other["metadata"]["name"] in await deployment.names()


async def test_losses_are_told_through_throttling_forgotten_versions_and_broken_watches(
    control_plane: ControlPlane, deployment: Deployment, proxy: Proxy, tmp_path: Path
) -> None:
    file = control_plane.write_kubeconfig("admin", tmp_path / "kubeconfig", server=proxy.url)
    pods = [await deployment.pod() for _ in range(4)]
    direct = deployment.api

    async def remove(n: int) -> float:
        await direct.delete(PODS, deployment.namespace, pods[n]["metadata"]["name"], grace_seconds=0)
        return time.monotonic()

    async with open_api(ClusterAccess(kubeconfig=file)) as behind_proxy:
        deployment.api = behind_proxy
        async with deployment.kept():
            lists = proxy.lists
            await proxy.until_watched(2)
            proxy.break_watches()  # resumed from the last version: no list
            await remove(0)
            await deployment.told(pods[0], seconds=10)
            assert proxy.lists == lists
            await proxy.until_watched(2)
            proxy.forgotten = 2
            proxy.break_watches()
            await remove(1)
            await deployment.told(pods[1], seconds=10)
            assert proxy.lists > lists
            await proxy.until_watched(2)
            proxy.throttled = 6
            proxy.break_watches()
            await remove(2)
            await deployment.told(pods[2], seconds=25)
            await proxy.until_watched(2)
            await remove(3)
            await deployment.told(pods[3])
    assert len(deployment.port.gone) == len(set(deployment.port.gone)) == 4


async def test_a_keeper_that_does_not_lead_does_nothing(deployment: Deployment) -> None:
    pod = await deployment.pod()
    owners, port = FakeOwners(), FakePort()
    owners.led_by_another = True
    idle = Keeper(deployment.api, port, owners, deployment.owner)
    running = asyncio.create_task(idle.run())
    async with deployment.kept():
        await deployment.api.delete(PODS, deployment.namespace, pod["metadata"]["name"], grace_seconds=0)
        await deployment.told(pod)
    await end_all([running])
    assert (idle.pods(), port.gone, owners.questions) == ([], [], 0)


async def test_redis_being_away_delays_the_news_and_loses_none(deployment: Deployment) -> None:
    pod = await deployment.pod()
    async with deployment.kept():
        deployment.port.down = True
        await deployment.api.delete(PODS, deployment.namespace, pod["metadata"]["name"], grace_seconds=0)

        async def tried() -> bool:
            return deployment.port.refused > 0

        await until(tried, "the report was tried")
        deployment.port.down = False
        await deployment.told(pod)


async def make_node(deployment: Deployment) -> None:
    """One without a kubelet; healthy as long as its grace lasts."""
    document = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    await deployment.api.delete(NODES, None, NODE, grace_seconds=0)
    await deployment.api.create(NODES, None, document)


async def test_the_role_hosts_keeps_pods_and_ends_when_it_is_told_to(
    deployment: Deployment, control_plane: ControlPlane, migrated_database: ClusterUrls, valkey_server: ValkeyServer,
    tmp_path: Path,
) -> None:  # fmt: skip
    orphan = await deployment.pod(str(uuid.uuid4()))
    values = {
        "database_url": migrated_database.app,
        "redis_url": valkey_server.url,
        "allocator": "kubernetes",
        "kubernetes_kubeconfig": control_plane.kubeconfig,
        "kubernetes_owner": deployment.owner,
        "data_dir": tmp_path,
    }
    role = asyncio.create_task(serve_hosts(Settings.model_validate(values)))
    try:

        async def gone() -> bool:
            return orphan["metadata"]["name"] not in await deployment.names()

        await until(gone, "the orphan is gone", 30)
    finally:
        (ended,) = await end_all([role])
    assert isinstance(ended, asyncio.CancelledError)
