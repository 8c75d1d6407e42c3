"""The whole engine and its agents, with their own login, on a Redis Cluster of three nodes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from engine.agents.credentials import agent_password, agent_url
from engine.concurrency import end_all, run_together
from engine.contracts.execution import ExecutionStatus
from engine.events import keys
from engine.events.hosts import HostStreams
from engine.postgres.stores import Stores
from engine.settings import Settings
from tests.fakes.streams import eventually
from tests.integration.engine.bench import DIAMOND, Bench, definition, open_bench, types
from tests.integration.events.cluster import ValkeyCluster, running_cluster
from worker import ROLES, build

SECRET = b"s" * 32


@pytest.fixture(scope="module")
async def cluster(server_directory: Path) -> AsyncIterator[ValkeyCluster]:
    async with running_cluster(server_directory / "cluster-of-the-engine") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def clustered(engine_settings: Settings, cluster: ValkeyCluster) -> Settings:
    changed = {"redis_url": cluster.url, "task_queue": "on-a-cluster", "host_lost_after_seconds": 8.0}
    return Settings.model_validate(engine_settings.model_dump() | changed)


@pytest.fixture(scope="module")
async def clustered_worker(clustered: Settings) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        running = asyncio.create_task(run_together(await build(clustered, ROLES, stack)))
        yield
        await end_all([running])


@pytest.fixture
async def bench(clustered: Settings, stores: Stores, clustered_worker: None, tenant: str) -> AsyncIterator[Bench]:
    """Its host has the tenant's own login, as agents have."""
    url = agent_url(clustered.redis_url.get_secret_value(), SECRET, tenant)
    async with open_bench(clustered, stores, tenant, redis_url=url) as bench:
        await HostStreams(bench.redis, clustered.event_partitions).set_login(tenant, agent_password(SECRET, tenant))
        await bench.start_host()
        yield bench


async def test_an_execution_runs_end_to_end_and_its_facts_are_published(bench: Bench) -> None:
    execution_id = await bench.start(definition(*DIAMOND))
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    stream = keys.workflow_events_prefix(bench.tenant) + str(view.workflow_id)

    async def published() -> bool:
        return await bench.redis.xlen(stream) >= len(events)

    await eventually(published, 20)
    entries: Any = await bench.redis.xrange(stream)
    assert [fields[b"type"].decode() for _, fields in entries] == types(events)
