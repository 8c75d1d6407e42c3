"""The engine's own client on a cluster of three nodes: bridges, leases, publishing, watching, dead letters, logins."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisClusterException, ResponseError

from engine.errors import ConfigurationError
from engine.events import keys
from engine.events.connection import connect
from engine.events.dead_letters import DeadLetters
from engine.events.figures import StreamBacklogs
from engine.events.functions import Functions
from engine.events.hosts import USER_PREFIX, HostStreams
from engine.events.partitions import read_shares
from engine.settings import Settings
from tests.fakes.streams import eventually, until
from tests.integration.events.cluster import ValkeyCluster, running_cluster
from tests.integration.events.crossing import PARTITIONS, Crossing, completed

TENANTS = [f"tenant-{n}" for n in range(6)]
"""On all three nodes, as `test_cluster.py` shows."""


@pytest.fixture(scope="module")
async def cluster(server_directory: Path) -> AsyncIterator[ValkeyCluster]:
    async with running_cluster(server_directory / "cluster-client") as cluster:
        yield cluster


@pytest.fixture
def settings(cluster: ValkeyCluster) -> Settings:
    return Settings.model_validate({"redis_url": cluster.url})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(settings)
    await client.flushall()
    await Functions(client).load()
    yield client
    await client.aclose()


@pytest.fixture
async def crossings(client: Redis, settings: Settings) -> AsyncIterator[list[Crossing]]:
    found = [Crossing(client, settings, tenant) for tenant in TENANTS]
    await client.sadd(keys.TENANTS, *TENANTS)
    yield found
    for crossing in found:
        await _close(crossing)


async def _close(crossing: Crossing) -> None:
    crossing.launcher.gate.set()
    for bridge in list(crossing._running):
        await crossing.stop(bridge)
    await crossing.feed.close()
    for reader in crossing._readers:
        await reader.aclose()


async def test_one_bridge_reads_all_tenants_wherever_their_streams_lie(crossings: list[Crossing]) -> None:
    first = crossings[0]
    first.start()
    told: dict[str, str] = {}
    for number, crossing in enumerate(crossings):
        execution_id = crossing.execution(number % PARTITIONS)
        told[execution_id] = await crossing.report(execution_id, completed())
    await until(lambda: all(first.launcher.batches(execution_id) for execution_id in told))
    for execution_id, entry_id in told.items():
        assert [batch.entry_id for batch in first.launcher.batches(execution_id)] == [entry_id]


async def test_bridges_share_the_partitions_and_follow_one_that_dies(client: Redis, crossings: list[Crossing]) -> None:
    crossing = crossings[0]
    first, second = crossing.start(), crossing.start()
    await until(lambda: len(first._leases.fences) == len(second._leases.fences) == 1)
    shares = await read_shares(client, PARTITIONS)
    assert sorted(owned for owned in shares.values()) == [[0], [1]]
    execution_id = crossing.execution(next(iter(first._leases.fences)))
    entry_id = await crossing.report(execution_id, completed())
    await until(lambda: bool(crossing.launcher.batches(execution_id)))
    await crossing.kill(first)
    await until(lambda: len(crossing.launcher.batches(execution_id)) >= 2, 12)
    before, after = crossing.launcher.batches(execution_id)[:2]
    assert before.entry_id == after.entry_id == entry_id
    assert before.fence < after.fence
    assert set(second._leases.fences) == {0, 1}
    # What a process read that had lost its lease is written again.
    await crossing.consume(second, execution_id, entry_id)
    stray = await crossing.report(execution_id, completed("late"))
    await client.xclaim(crossing.stream(before.partition), keys.GROUP, "stranger", 0, [stray])
    assert await second._leases.requeue_strays(crossing.tenant, before.partition) in (0, 1)


async def test_poison_is_buried_and_counted_and_sent_again(client: Redis, crossings: list[Crossing]) -> None:
    crossings[0].start()
    for crossing in crossings:
        await client.xadd(crossing.stream(0), {"x": crossing.execution(1), "b": "[]"})
    letters = DeadLetters(client, PARTITIONS)
    for crossing in crossings:
        await eventually(crossing.dead_letters)
        outcome = await letters.replay(crossing.tenant, None)
        assert len(outcome.replayed) == 1
        await letters.bury(crossing.tenant, 0, "1-0", {b"x": b"?"}, "odd")
    backlogs = await StreamBacklogs(client, PARTITIONS).backlogs()
    assert backlogs.dead_letters == len(crossings)
    assert backlogs.dead_letter_bytes > 0
    assert (await letters.purge(TENANTS[0], None)).purged == 1


async def test_watchers_hear_of_every_tenants_executions(crossings: list[Crossing]) -> None:
    for crossing in crossings[:3]:
        execution_id = uuid4()
        async with crossings[0].feed.subscribe(crossing.tenant, execution_id) as nudges, asyncio.timeout(10):
            hearing = asyncio.ensure_future(anext(aiter(nudges)))
            while not hearing.done():
                await crossing.feed.nudge(crossing.tenant, str(execution_id), {"sequence": 7})
                await asyncio.sleep(0.02)
            assert hearing.result() == {"sequence": 7}


async def test_hosts_are_heard_and_logins_are_on_every_node(
    client: Redis, cluster: ValkeyCluster, crossings: list[Crossing]
) -> None:
    streams = HostStreams(client, PARTITIONS)
    for tenant in TENANTS:
        await streams.host_gone(tenant, "h-1")
    heard = await streams.reports(dict.fromkeys(TENANTS, "0-0"), 0.2)
    assert sorted(heard) == TENANTS
    assert await streams.reports({tenant: last for tenant, (_, last) in heard.items()}, 0.05) == {}
    passwords = dict.fromkeys(TENANTS[:2], "secret")
    assert sorted(await streams.ensure_logins(passwords)) == TENANTS[:2]
    assert await streams.ensure_logins(passwords) == []
    # A node that came back without them gets them again.
    async with Redis(host="127.0.0.1", port=cluster.ports[1]) as node:
        assert await node.acl_deluser(USER_PREFIX + TENANTS[0]) == 1
    assert list(await streams.ensure_logins(passwords)) == TENANTS[:1]
    for port in cluster.ports:
        async with Redis(host="127.0.0.1", port=port) as node:
            assert {USER_PREFIX + tenant for tenant in passwords} <= set(await node.acl_users())


async def test_what_is_asked_of_a_server_is_asked_of_all(client: Redis, crossings: list[Crossing]) -> None:
    memory: Any = await client.info("memory")
    assert memory["used_memory"] > 0
    tenant = TENANTS[2]
    for number in range(30):
        await client.xadd(keys.workflow_events_prefix(tenant) + str(number), {"a": "b"})
    found: set[Any] = set()
    names: Any
    cursor: Any = 0
    while True:
        cursor, names = await client.scan(cursor, match=keys.workflow_events_prefix(tenant) + "*", _type="stream")
        found.update(names)
        if not cursor:
            break
    assert len(found) == 30
    with pytest.raises(RedisClusterException):
        await client.scan(0, match="orc:*")
    with pytest.raises(RedisClusterException):
        await Functions(client).ask("orc_trim_facts", [keys.facts_stream(t, 0) for t in TENANTS], [1])


async def test_a_stream_without_its_group_is_told_of_whatever_the_others_say(
    client: Redis, crossings: list[Crossing]
) -> None:
    names: dict[Any, Any] = {keys.partition_stream(tenant, 0): ">" for tenant in TENANTS[:3]}
    for name in list(names)[:2]:
        await client.xgroup_create(name, keys.GROUP, id="0", mkstream=True)
        await client.xadd(name, {"a": "b"})
    with pytest.raises(ResponseError, match="NOGROUP"):
        await client.xreadgroup(keys.GROUP, "me", names, count=10, block=50)


async def test_a_node_that_is_restarted_loses_nothing_and_the_bridge_goes_on(
    client: Redis, cluster: ValkeyCluster, crossings: list[Crossing]
) -> None:
    first = crossings[0]
    first.start()
    told = {}
    for number in (0, 1, 2):
        await cluster.kill(number)
        await cluster.restart(number)
        for crossing in crossings:
            execution_id = crossing.execution(number % PARTITIONS)
            told[execution_id] = await _reported(crossing, execution_id)
    await until(lambda: all(first.launcher.batches(execution_id) for execution_id in told), 90)
    for execution_id, entry_id in told.items():
        assert {batch.entry_id for batch in first.launcher.batches(execution_id)} == {entry_id}


async def _reported(crossing: Crossing, execution_id: str) -> str:
    async with asyncio.timeout(20):
        while True:
            try:
                return await crossing.report(execution_id, completed())
            except (RedisClusterException, ResponseError, OSError, ConnectionError):
                await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "url", ["redis-cluster://", "redis-cluster://host:port", "redis-cluster://h:1/3", "rediss-cluster://h:1?db=1"]
)
async def test_addresses_that_no_cluster_has_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        connect(Settings.model_validate({"redis_url": url}))


async def test_a_login_and_several_addresses_are_taken_from_the_url() -> None:
    client: Any = connect(Settings.model_validate({"redis_url": "redis-cluster://me:p%40ss@one:7000,two,[::1]:7002"}))
    assert sorted(client.nodes_manager.startup_nodes) == ["::1:7002", "one:7000", "two:6379"]
    assert client.connection_kwargs["username"] == "me"
    assert client.connection_kwargs["password"] == "p@ss"
