"""What the fleet, the registry and binding do in Redis."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from engine.agents.credentials import agent_password, agent_url, load_agent_secret
from engine.agents.hostport import FleetPort, RegistryPort
from engine.contracts.hosts import Group
from engine.contracts.streams import partition_of
from engine.embedded.host_fleet import tenant_agent_url
from engine.embedded.valkey import ValkeyServer
from engine.errors import ConfigurationError, UnavailableError
from engine.events import keys, wire
from engine.events.hosts import HostStreams
from engine.settings import Settings

PARTITIONS = 4


@pytest.fixture
async def redis(valkey_server: ValkeyServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey_server.url)
    yield client
    await client.aclose()


@pytest.fixture
async def streams(redis: Redis) -> AsyncIterator[HostStreams]:
    found = HostStreams(redis, PARTITIONS)
    _fleet: FleetPort = found
    _registry: RegistryPort = found
    yield found
    await found.close()


def soon(seconds: float = 60.0) -> int:
    return int((time.time() + seconds) * 1000)


async def test_a_wish_is_found_by_the_fleet_and_makes_the_tenant_known(streams: HostStreams, tenant: str) -> None:
    group, until_ms = Group(tenant, "coder"), soon()
    await streams.want(group, 2, until_ms)
    assert tenant in await streams.tenants()
    wanted = (await streams.wanted([tenant]))[group]
    assert (wanted.hosts, wanted.until_ms) == (2, until_ms)


async def test_the_larger_wish_stands_until_it_is_over(streams: HostStreams, tenant: str) -> None:
    standing, over = Group(tenant, "coder"), Group(tenant, "tester")
    await streams.want(standing, 3, soon())
    await streams.want(over, 3, soon(-1))
    for group in (standing, over):
        await streams.want(group, 1, soon(30))
    wanted = await streams.wanted([tenant])
    assert (wanted[standing].hosts, wanted[over].hosts) == (3, 1)


async def test_a_prolonged_wish_is_not_forgotten(streams: HostStreams, tenant: str) -> None:
    group, until_ms = Group(tenant, "coder"), soon()
    await streams.want(group, 1, until_ms)
    await streams.forget_wish(group, until_ms - 1)
    assert group in await streams.wanted([tenant])
    await streams.forget_wish(group, until_ms)
    assert await streams.wanted([tenant]) == {}


async def test_a_wish_that_does_not_parse_is_passed_over(streams: HostStreams, redis: Redis, tenant: str) -> None:
    await redis.hset(keys.hosts_wanted(tenant), "coder", "{")
    assert await streams.wanted([tenant]) == {}


async def test_a_wish_wakes_the_fleet(streams: HostStreams, tenant: str) -> None:
    await streams.woken(0.01)  # subscribed from here on
    waiting = asyncio.create_task(streams.woken(10.0))
    await asyncio.sleep(0)
    began = time.monotonic()
    await streams.want(Group(tenant, "coder"), 1, soon())
    await asyncio.wait_for(waiting, 5)
    assert time.monotonic() - began < 5


async def test_reports_come_in_order_from_any_position_and_bad_ones_are_passed_over(
    streams: HostStreams, redis: Redis, tenant: str
) -> None:
    stream = keys.agents_stream(tenant)
    payload = {"host_id": "h1", "types": ["coder"], "capabilities": "*", "slots": 2, "pid": 1, "unknown": True}
    await redis.xadd(stream, {"event_type": "agent.registered", "payload": orjson.dumps(payload)})
    for bad in ({"event_type": "agent.registered"}, {"event_type": "other", "payload": orjson.dumps(payload)},
                {"event_type": "agent.heartbeat", "payload": b"[]"},
                {"event_type": "agent.heartbeat", "payload": orjson.dumps({**payload, "host_id": "a b"})}):  # fmt: skip
        await redis.xadd(stream, bad)  # type: ignore[arg-type]  # the client's own gap
    await streams.host_gone(tenant, "h1")
    reports, position = (await streams.reports({tenant: "0-0"}, 0.01))[tenant]
    assert [(r.event, r.host_id) for r in reports] == [("agent.registered", "h1"), ("agent.disconnected", "h1")]
    assert (reports[0].slots, reports[0].capabilities) == (2, "*")
    assert await streams.reports({tenant: position}, 0.01) == {}
    await streams.trim_reports({tenant: position})


async def test_executions_hear_of_hosts_in_their_partitions(streams: HostStreams, redis: Redis, tenant: str) -> None:
    executions = [uuid4() for _ in range(20)]
    await streams.tell_executions(tenant, executions, "agent.disconnected", "h1")
    heard: set[UUID] = set()
    for partition in range(PARTITIONS):
        entries: Any = await redis.xrange(keys.partition_stream(tenant, partition))
        for _, fields in entries:
            report = wire.decode_report(fields)
            assert partition_of(report.execution_id, PARTITIONS) == partition
            assert [(event.type, event.host_id) for event in report.events] == [("agent.disconnected", "h1")]
            heard.add(UUID(report.execution_id))
    assert heard == set(executions)


async def test_a_gone_hosts_stream_ends_by_itself(streams: HostStreams, redis: Redis, tenant: str) -> None:
    await streams.tell_host_to_renew(tenant, "h1")
    stream = keys.tasks_stream(tenant, "h1")
    entries: Any = await redis.xrange(stream)
    assert orjson.loads(entries[0][1][b"b"]) == {"v": 1, "renew": True}
    await redis.persist(stream)
    await streams.retire_stream(tenant, "h1")
    assert 0 < await redis.ttl(stream) <= 3600


async def test_logins_are_made_where_they_are_missing(
    streams: HostStreams, valkey_server: ValkeyServer, tenant: str
) -> None:
    passwords = {tenant: agent_password(b"s" * 32, tenant)}
    assert await streams.ensure_logins(passwords) == [tenant]
    assert await streams.ensure_logins(passwords) == []
    client = Redis.from_url(agent_url(valkey_server.url, b"s" * 32, tenant))
    assert await client.ping()
    await client.aclose()


async def test_an_agents_login_reaches_its_tenants_streams_and_nothing_else(
    valkey_server: ValkeyServer, tenant: str, tmp_path: Path
) -> None:
    settings = Settings(redis_url=SecretStr(valkey_server.url), data_dir=tmp_path)
    agent = Redis.from_url(await tenant_agent_url(settings, tenant))
    own, mine = keys.tasks_stream(tenant, "h1"), keys.partition_stream(tenant, 0)
    await agent.xadd(mine, {"x": "1"})
    await agent.xadd(keys.agents_stream(tenant), {"x": "1"}, maxlen=10, approximate=True)
    assert await agent.xread({own: "0-0"}) in ([], {})
    await agent.xtrim(own, minid="1-1")
    await agent.delete(own)
    other = f"{tenant}-other"
    forbidden = [
        agent.xadd(keys.partition_stream(other, 0), {"x": "1"}),
        agent.xread({keys.tasks_stream(other, "h1"): "0-0"}),
        agent.xread({mine: "0-0"}),
        agent.delete(mine),
        agent.xadd(own, {"x": "1"}),
        agent.hset(keys.hosts_wanted(tenant), "coder", "{}"),
        agent.sadd(keys.TENANTS, other),
        agent.publish(keys.FLEET_CHANNEL, "x"),
        agent.keys("*"),
        agent.flushall(),
        agent.config_get("*"),
        agent.acl_list(),
    ]
    for attempt in forbidden:
        with pytest.raises(NoPermissionError):
            await attempt
    await agent.aclose()
    wrong = Redis.from_url(agent_url(valkey_server.url, b"another secret".ljust(32), tenant))
    with pytest.raises(AuthenticationError):
        await wrong.ping()
    await wrong.aclose()
    assert load_agent_secret(settings) == (tmp_path / "agent-secret").read_bytes()


async def test_an_engine_login_that_may_not_is_a_matter_of_configuration(
    valkey_server: ValkeyServer, tenant: str, tmp_path: Path
) -> None:
    settings = Settings(redis_url=SecretStr(valkey_server.url), data_dir=tmp_path)
    weak = settings.model_copy(update={"redis_url": SecretStr(await tenant_agent_url(settings, tenant))})
    with pytest.raises(ConfigurationError, match="ACL"):
        await tenant_agent_url(weak, tenant)


async def test_a_server_that_is_away_is_unavailable(tenant: str) -> None:
    client = Redis.from_url("redis://127.0.0.1:1/0")
    away = HostStreams(client, PARTITIONS)
    with pytest.raises(UnavailableError):
        await away.tenants()
    with pytest.raises(UnavailableError):
        await away.woken(0.01)
    await client.aclose()


async def test_a_lost_subscription_is_made_again(streams: HostStreams, redis: Redis, tenant: str) -> None:
    await streams.woken(0.01)
    assert streams._subscription is not None
    connection = streams._subscription.connection
    assert connection is not None
    await connection.disconnect()
    for _ in range(2):
        try:
            await streams.woken(0.01)
        except UnavailableError:
            continue
    waiting = asyncio.create_task(streams.woken(10.0))
    await asyncio.sleep(0.05)
    await streams.want(Group(tenant, "coder"), 1, soon())
    await asyncio.wait_for(waiting, 5)
