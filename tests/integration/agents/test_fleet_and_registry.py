"""Real host processes: wanted, started, found, killed, replaced, stopped."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from engine.agents.binding import Binder
from engine.agents.catalogue import load_catalogue
from engine.agents.registry import RegistryMonitor
from engine.contracts.kernel import BindRequest, BindResult, KernelRole
from engine.embedded.host_fleet import serve_hosts
from engine.embedded.valkey import ValkeyServer
from engine.events.connection import connect
from engine.events.hosts import HostStreams
from engine.postgres.cluster import ClusterUrls
from engine.postgres.host_health import PostgresHostHealthStore
from engine.postgres.hosts import PostgresHostStore
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.pool import Database
from engine.settings import Settings
from tests.integration.agents.conversation import Conversation

NEVER_SECONDS = 3600.0
CATALOGUE = """
agents:
  shouter:
    entry: python:shouting:shout
    python_path: code
    capabilities: [noise]
    agents_per_host: 1
    hosts_max: 2
"""


@dataclass
class Engine:
    settings: Settings
    redis: Redis
    hosts: PostgresHostStore
    binder: Binder

    async def bind(self, tenant: str, count: int = 1, type: str = "shouter", wait_seconds: float = 90.0) -> BindResult:
        roles = {"worker": KernelRole(type=type, count=count)}
        return await self.binder.bind(
            BindRequest(tenant=tenant, execution_id=str(uuid4()), roles=roles, wait_seconds=wait_seconds)
        )

    async def pid(self, tenant: str, host_id: str | None) -> int:
        (pid,) = [h.pid for h in await self.hosts.live(tenant, "shouter", 100) if h.host_id == host_id]
        assert pid is not None
        return pid


@pytest.fixture
async def engine(
    request: pytest.FixtureRequest, valkey_server: ValkeyServer, migrated_database: ClusterUrls, tmp_path: Path
) -> AsyncIterator[Engine]:
    """The parameter says after how many silent seconds a host is given up; without it, a busy machine loses none."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "shouting.py").write_text("def shout(task):\n    return task.input['word'].upper()\n")
    (tmp_path / "catalogue.yaml").write_text(CATALOGUE)
    settings = Settings(
        database_url=SecretStr(migrated_database.app),
        redis_url=SecretStr(valkey_server.url),
        data_dir=tmp_path / "data",
        catalogue_file=tmp_path / "catalogue.yaml",
        heartbeat_seconds=0.2,
        host_lost_after_seconds=getattr(request, "param", NEVER_SECONDS),
    )
    database, redis = await Database.connect(settings), connect(settings)
    hosts, streams = PostgresHostStore(database), HostStreams(redis, settings.event_partitions)
    health = PostgresHostHealthStore(database)
    monitor = RegistryMonitor(streams, hosts, PostgresMaintenanceStore(database), health, settings)
    binder = Binder(hosts, streams, load_catalogue(settings.catalogue_file), settings)
    async with running(monitor.run()):
        yield Engine(settings, redis, hosts, binder)
    await streams.close()
    await redis.aclose()
    await database.close()


@asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=60)
        assert done


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 90.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - other processes' doings have no event
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_hosts_are_started_when_wanted_and_do_their_tasks(engine: Engine, tenant: str) -> None:
    async with running(serve_hosts(engine.settings)):
        result = await engine.bind(tenant, count=2)
        assert result.missing == ()
        assert len({binding.host_id for binding in result.bindings}) == 2
        talk = Conversation(engine.redis, tenant)
        host_id = result.bindings[0].host_id
        assert host_id is not None
        await talk.assign(host_id, "a", input={"word": "hello"})
        await talk.ended("a")
        assert talk.seen("completed", "a")[0]["result"] == "HELLO"
        pid = await engine.pid(tenant, host_id)
        assert b"redis://" not in command_line(pid)
    assert not alive(pid)
    await until(lambda: _none_live(engine, tenant))
    logs = engine.settings.data_dir / "logs" / "hosts" / f"{tenant}.shouter.log"
    assert "registered as" in logs.read_text()


async def test_a_killed_host_is_gone_at_once_and_replaced(engine: Engine, tenant: str) -> None:
    async with running(serve_hosts(engine.settings)):
        (binding,) = (await engine.bind(tenant)).bindings
        os.kill(await engine.pid(tenant, binding.host_id), signal.SIGKILL)

        async def replaced() -> bool:
            live = await engine.hosts.live(tenant, "shouter", 10)
            return bool(live) and all(host.host_id != binding.host_id for host in live)

        await until(replaced)  # by its process's end, since nobody waits for its silence


@pytest.mark.parametrize("engine", [2.0], indirect=True)
async def test_a_host_that_stood_still_is_given_up_and_replaced(engine: Engine, tenant: str) -> None:
    async with running(serve_hosts(engine.settings)):
        (binding,) = (await engine.bind(tenant)).bindings
        pid = await engine.pid(tenant, binding.host_id)
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: _none_live(engine, tenant))
        os.kill(pid, signal.SIGCONT)

        async def back_under_another_id() -> bool:
            live = await engine.hosts.live(tenant, "shouter", 10)
            return bool(live) and live[0].host_id != binding.host_id

        await until(back_under_another_id)
        assert not alive(pid)


async def test_tenants_do_not_share_hosts(engine: Engine, tenant: str) -> None:
    other = f"{tenant}-b"
    async with running(serve_hosts(engine.settings)):
        first, second = await asyncio.gather(engine.bind(tenant), engine.bind(other))
    assert first.bindings[0].host_id != second.bindings[0].host_id


async def test_the_built_in_type_needs_no_catalogue_entry(engine: Engine, tenant: str) -> None:
    async with running(serve_hosts(engine.settings)):
        result = await engine.bind(tenant, count=3, type="synthetic")
    assert result.missing == ()
    assert {binding.slots for binding in result.bindings} == {8}


async def _none_live(engine: Engine, tenant: str) -> bool:
    return not await engine.hosts.live(tenant, "shouter", 10)
