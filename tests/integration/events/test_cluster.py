"""On a cluster of three nodes: all that one server-side step touches of a tenant lies in one slot."""

from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio.cluster import RedisCluster

from engine.events import keys
from engine.events.publisher import source_prefix
from tests.integration.events.cluster import ValkeyCluster, running_cluster

TENANTS = [f"tenant-{n}" for n in range(12)]
WORKFLOW, TRACE = str(uuid4()), str(uuid4())


@pytest.fixture(scope="module")
async def cluster(server_directory: Path) -> AsyncIterator[ValkeyCluster]:
    async with running_cluster(server_directory / "cluster") as cluster:
        yield cluster


@pytest.fixture
async def client(cluster: ValkeyCluster) -> AsyncIterator[RedisCluster]:
    client = RedisCluster(host="127.0.0.1", port=cluster.ports[0])
    code = files("engine.events").joinpath("functions.lua").read_text()
    await client.execute_command("FUNCTION", "LOAD", "REPLACE", code, target_nodes=RedisCluster.PRIMARIES)
    yield client
    await client.aclose()


async def call(client: RedisCluster, name: str, names: list[str], *arguments: Any) -> Any:
    return await client.execute_command("FCALL", name, len(names), *names, *arguments)


async def test_tenants_are_spread_over_the_nodes_and_each_is_in_one_place(client: RedisCluster) -> None:
    nodes = set()
    for tenant in TENANTS:
        names = [
            keys.partition_stream(tenant, 1), keys.facts_stream(tenant, 1), keys.facts_expanded(tenant, 1),
            keys.tick_key(tenant, "x"), keys.tasks_stream(tenant, "h"), keys.dead_letters(tenant),
            keys.workflow_events_prefix(tenant) + WORKFLOW, keys.agents_stream(tenant),
        ]  # fmt: skip
        assert len({client.keyslot(name) for name in names}) == 1
        nodes.add(client.get_node_from_key(names[0]))
    assert len(nodes) == 3


@pytest.mark.parametrize("tenant", TENANTS)
async def test_a_tick_is_written_published_expanded_trimmed_and_a_letter_replayed(
    client: RedisCluster, tenant: str
) -> None:
    execution_id = str(uuid4())
    incoming, facts = keys.partition_stream(tenant, 1), keys.facts_stream(tenant, 1)
    await client.xgroup_create(incoming, keys.GROUP, id="0", mkstream=True)
    entry_id = await client.xadd(incoming, {"x": execution_id, "b": "[]"})
    await client.xreadgroup(keys.GROUP, "me", {incoming: ">"})
    line = "task.completed\t2026-01-01T00:00:00.000Z\t1\t{}\n"
    names = [keys.tick_key(tenant, execution_id), incoming, facts, keys.tasks_stream(tenant, "h")]
    written = await call(
        client, "orc_write_tick", names, 1, 60, keys.GROUP, keys.feed_channel(tenant, execution_id), "{}", 1, 2,
        execution_id, WORKFLOW, TRACE, 1, 1, 1, line * 2, entry_id, "body",
    )  # fmt: skip
    assert written == [1, 2]
    assert await client.xlen(incoming) == 0
    both = [facts, keys.facts_expanded(tenant, 1)]
    prefix = keys.workflow_events_prefix(tenant)
    expanded = await call(client, "orc_expand_facts", both, prefix, source_prefix(tenant), 100, 60_000, "monitor")
    assert expanded == [2, 0]
    entries: Any = await client.xrange(prefix + WORKFLOW)
    assert [fields[b"sequence"] for _, fields in entries] == [b"1", b"2"]
    assert await call(client, "orc_trim_facts", both, 60_000) == [1, 0]
    letter_id = await client.xadd(keys.dead_letters(tenant), {"entry:b": "[]"})
    letters = [keys.dead_letters(tenant), incoming]
    assert await call(client, "orc_replay_letter", letters, letter_id, "b", "[]") == 1
    assert await client.xlen(incoming) == 1
