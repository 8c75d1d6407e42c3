"""Warm pools: the keeper on a real control plane, claims in a real PostgreSQL."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from engine.agents.kubernetes import keeper as keeper_module
from engine.agents.kubernetes import names, warm
from engine.agents.kubernetes.client import PODS, RESOURCE_QUOTAS, ClusterAccess, open_api
from engine.agents.kubernetes.names import Identity
from engine.agents.kubernetes.warm import PoolClaims, WarmPools
from engine.agents.sizes import AgentSizes
from engine.contracts.catalogue import SYNTHETIC, Catalogue
from engine.contracts.hosts import Dedication
from engine.contracts.pods import PodSettings, WarmPool
from engine.pod_ports import Claim, ExecutionKey, HostKey
from engine.ports import HostRecord
from engine.postgres.cluster import ClusterUrls
from engine.postgres.hosts import PostgresHostStore
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.pod_owners import PostgresPodOwners
from engine.postgres.pool import Database
from engine.settings import Settings
from tests.cluster.control_plane import ControlPlane
from tests.integration.agents.keeping import Deployment, until

POOLED = SYNTHETIC.model_copy(
    update={"kubernetes": PodSettings(warm=WarmPool(size=2, max=3, idle_seconds=1.5)), "image": "registry.example/a:1"}
)
CATALOGUE = Catalogue(agents={"synthetic": POOLED})


@pytest.fixture(autouse=True)
def fast_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "ROUND_SECONDS", 0.1)
    monkeypatch.setattr(warm, "DEMAND_SECONDS", 1.0)


@pytest.fixture
async def database(migrated_database: ClusterUrls) -> AsyncIterator[Database]:
    database = await Database.connect(Settings.model_validate({"database_url": migrated_database.app}))
    yield database
    await database.close()


@pytest.fixture
async def deployment(control_plane: ControlPlane, tenant: str) -> AsyncIterator[Deployment]:
    async with open_api(ClusterAccess(kubeconfig=control_plane.kubeconfig)) as api:
        deployment = Deployment(api, tenant)
        await deployment.make_namespace()
        yield deployment


def pools(deployment: Deployment) -> WarmPools:
    sizes = AgentSizes(CATALOGUE, in_pods=True, cpu_micros=100_000, memory_bytes=64 * 1024**2)
    return WarmPools(deployment.api, deployment.owners, CATALOGUE, sizes, deployment.defaults)


async def waiting(deployment: Deployment) -> set[str]:
    return {name for name in await deployment.names() if name.startswith("pool-")}


async def test_a_pool_is_filled_while_its_type_is_used_and_empty_when_it_is_not(deployment: Deployment) -> None:
    execution = str(uuid.uuid4())
    key = ExecutionKey(deployment.tenant, execution)
    deployment.owners.open[key] = True
    for n in range(1, 6):
        await deployment.pod(execution, f"worker-{n}")
    async with deployment.kept(pools=pools(deployment)):

        async def has(wanted: int) -> bool:
            return len(await waiting(deployment)) == wanted

        await until(lambda: has(3), "as many as began, at most `max`")
        await until(lambda: has(2), "`size`, once nothing begins")
        deployment.owners.open[key] = False
        await until(lambda: has(0), "none when the type is not used", 10)
        assert await deployment.names() == set()
    assert len(deployment.owners.retired) == 3  # nobody could claim them any more


async def test_a_pool_takes_no_more_than_the_quota_leaves(deployment: Deployment) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}}
    await deployment.api.create(RESOURCE_QUOTAS, deployment.namespace, quota)

    async def counted() -> bool:
        found = await deployment.api.get(RESOURCE_QUOTAS, deployment.namespace, "q")
        return "pods" in found.get("status", {}).get("used", {})

    await until(counted, "the quota is in force")
    await deployment.pod()
    async with deployment.kept(pools=pools(deployment)):

        async def filled() -> bool:
            return len(await waiting(deployment)) == 1

        await until(filled, "what fits")
        calls = deployment.api.calls["POST pods"]
        rounds = deployment.owners.questions

        async def later() -> bool:
            return deployment.owners.questions >= rounds + 5

        await until(later, "more rounds")
        assert deployment.api.calls["POST pods"] <= calls + 1  # it waits before it asks again


async def test_each_waiting_pod_is_claimed_once(deployment: Deployment, database: Database, tenant: str) -> None:
    hosts = PostgresHostStore(database)
    made = [await deployment.pool_pod(n) for n in range(1, 4)]
    moment = datetime.now(UTC)
    records = [
        HostRecord(
            host_id=names.host_id(pod["metadata"]["name"], pod["metadata"]["uid"]), types=("synthetic",),
            capabilities="*", slots=1, dedicated_to=Dedication(), registered_at=moment, last_seen=moment,
        )
        for pod in made
    ]  # fmt: skip
    await hosts.upsert(tenant, records)
    claims = PoolClaims(deployment.api, hosts, CATALOGUE, lambda _: deployment.namespace)
    executions = [str(uuid.uuid4()) for _ in range(4)]
    wanted = [Identity(tenant, execution, "worker", "worker-1", "synthetic") for execution in executions]
    answers = await asyncio.gather(*(claims.claim([who]) for who in wanted))
    assert sorted(len(answer) for answer in answers) == [0, 1, 1, 1]

    owners = PostgresPodOwners(database, PostgresMaintenanceStore(database))
    keys = [HostKey(tenant, record.host_id) for record in records]
    found = await owners.claims([*keys, HostKey("another", records[0].host_id)])
    winners = {execution for execution, answer in zip(executions, answers, strict=True) if answer}
    assert {claim.execution_id for claim in found.values()} == winners
    listed = await deployment.api.list(PODS, deployment.namespace)
    for pod in listed.items:
        claim = found[HostKey(tenant, names.host_id(pod["metadata"]["name"], pod["metadata"]["uid"]))]
        assert names.identity_of(pod["metadata"]) == (tenant, claim.execution_id, "worker", "worker-1", "synthetic")
        assert pod["metadata"]["labels"][names.EXECUTION] == claim.execution_id
        assert names.POOL not in pod["metadata"]["labels"]
    # A repeated allocation finds its host, and takes no second one.
    await hosts.upsert(tenant, records)
    assert await owners.claims(keys) == found


async def test_a_pod_that_is_about_to_go_cannot_be_claimed(database: Database, tenant: str) -> None:
    hosts, owners = PostgresHostStore(database), PostgresPodOwners(database, PostgresMaintenanceStore(database))
    moment = datetime.now(UTC)
    fields = {"types": ("synthetic",), "capabilities": "*", "slots": 1, "registered_at": moment, "last_seen": moment}
    records = [HostRecord(host_id=f"h{n}", dedicated_to=Dedication(), **fields) for n in range(2)]
    await hosts.upsert(tenant, records)
    execution = str(uuid.uuid4())
    assert await hosts.claim(tenant, "h0", execution, "worker-1")
    await owners.retire_pooled(tenant, ["h0", "h1"])
    assert not await hosts.claim(tenant, "h1", str(uuid.uuid4()), "worker-1")
    assert [host.host_id for host in await hosts.live_for(tenant, execution, 10)] == ["h0"]
    assert await owners.claims([HostKey(tenant, "h0"), HostKey(tenant, "h1")]) == {
        HostKey(tenant, "h0"): Claim(execution, "worker-1")
    }


async def test_executions_that_nobody_knows_are_left_out(database: Database, tenant: str) -> None:
    owners = PostgresPodOwners(database, PostgresMaintenanceStore(database))
    strange = ("", "no-uuid", str(uuid.uuid4()), str(uuid.uuid4()).upper())
    assert await owners.open_among([ExecutionKey(tenant, text) for text in strange]) == {}
    assert await owners.open_among([]) == {}
