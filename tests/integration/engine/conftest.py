"""A whole engine inside the test's process, on real servers: worker, bridge, registry, reconciler and a host."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from engine.concurrency import end_all, run_together
from engine.embedded.temporal import TemporalServer
from engine.embedded.valkey import ValkeyServer
from engine.postgres.cluster import ClusterUrls
from engine.postgres.stores import Stores
from engine.settings import Settings
from tests.integration.engine.bench import Bench, open_bench
from worker import ROLES, build


@pytest.fixture(scope="session")
def engine_settings(
    migrated_database: ClusterUrls, valkey_server: ValkeyServer, temporal_server: TemporalServer
) -> Settings:
    values: dict[str, Any] = {
        "database_url": migrated_database.app,
        "redis_url": valkey_server.url,
        "temporal_address": temporal_server.address,
        "temporal_namespace": temporal_server.namespace,
        "task_queue": "in-process",
        "event_partitions": 2,
        "host_lost_after_seconds": 3.0,
        "heartbeat_seconds": 0.5,
        "started_held_seconds": 0.1,
        "log_level": "WARNING",
    }
    return Settings.model_validate(values)


@pytest.fixture(scope="session")
async def stores(engine_settings: Settings) -> AsyncIterator[Stores]:
    async with Stores.open(engine_settings) as stores:
        yield stores


@pytest.fixture(scope="module")
async def running_worker(engine_settings: Settings) -> AsyncIterator[None]:
    """Ends with the module: other tests of this process count tasks and processes, or lead in the same database."""
    async with AsyncExitStack() as stack:
        jobs = await build(engine_settings, ROLES, stack)
        running = asyncio.create_task(run_together(jobs))
        yield
        await end_all([running])


@pytest.fixture
async def bench(engine_settings: Settings, stores: Stores, running_worker: None, tenant: str) -> AsyncIterator[Bench]:
    """A tenant of its own with one host for `synthetic`."""
    async with open_bench(engine_settings, stores, tenant) as bench:
        await bench.start_host()
        yield bench
