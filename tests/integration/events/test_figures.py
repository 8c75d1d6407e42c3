"""Backlogs of the streams, on a real server."""

import pytest
from redis.asyncio import Redis

from engine.contracts.circuits import CallEnd, CircuitAsk, CircuitRule
from engine.errors import UnavailableError
from engine.events import figures, keys
from engine.events.breakers import RedisBreakers
from engine.events.connection import connect
from engine.events.figures import Backlogs, StreamBacklogs
from engine.events.functions import Functions
from engine.settings import Settings

PARTITIONS = 3


async def test_what_waits_is_summed_over_tenants_partitions_and_bands(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "TENANTS_AT_ONCE", 2)
    backlogs = StreamBacklogs(redis, PARTITIONS)
    assert await backlogs.backlogs() == Backlogs(0, 0, 0)
    for number in range(5):
        tenant = f"figures-{number}"
        await redis.sadd(keys.TENANTS, tenant)
        for partition in range(PARTITIONS):
            await redis.xadd(keys.partition_stream(tenant, partition), {"b": "x"})
        await redis.xadd(keys.hooks_queue(tenant, 1), {"b": "x"})
        for _ in range(2):
            await redis.xadd(keys.dead_letters(tenant), {"b": "x"})
    await redis.sadd(keys.HOOK_TENANTS, "hooks-only")
    await redis.xadd(keys.hooks_queue("hooks-only", 0), {"b": "x"})
    assert await backlogs.backlogs() == Backlogs(reports=15, hooks=6, dead_letters=10)


async def test_no_more_tenants_are_asked_than_the_limit(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "TENANTS_MAX", 3)
    for number in range(10):
        await redis.sadd(keys.TENANTS, f"many-{number}")
        await redis.xadd(keys.dead_letters(f"many-{number}"), {"b": "x"})
    assert (await StreamBacklogs(redis, PARTITIONS).backlogs()).dead_letters == 3


async def test_breakers_of_tenants_and_of_the_engine_are_shown_by_service(redis: Redis) -> None:
    backlogs = StreamBacklogs(redis, PARTITIONS)
    assert await backlogs.circuits() == {}
    breakers, rule = RedisBreakers(redis, Functions(redis)), CircuitRule(failure_threshold=2)
    for tenant, failures in (("circuits-a", 2), ("circuits-b", 1), (None, 2)):
        if tenant is not None:
            await redis.sadd(keys.TENANTS, tenant)
        service = "kubernetes" if tenant is None else "agent:writer"
        for number in range(failures):
            ended = (CallEnd(verdict="failed", call_id=f"call-{number}"),)
            await breakers.consult(tenant, rule, [CircuitAsk(service=service, ended=ended)], "test")
    assert await backlogs.circuits() == {"agent:writer": {"open", "closed"}, "kubernetes": {"open"}}
    await breakers.count_failures("circuits-a", {"writer": 2})
    await breakers.count_failures("circuits-b", {"writer": 1})
    found = await backlogs.failures()
    assert found.services == {"agent:writer": 3, "kubernetes": 2}
    assert found.agents == {"writer": 3}


async def test_a_server_that_is_away_is_said_to_be() -> None:
    away = connect(Settings.model_validate({"redis_url": "redis://127.0.0.1:1/0"}), repeat=False)
    try:
        with pytest.raises(UnavailableError):
            await StreamBacklogs(away, PARTITIONS).backlogs()
        with pytest.raises(UnavailableError):
            await StreamBacklogs(away, PARTITIONS).circuits()
        with pytest.raises(UnavailableError):
            await StreamBacklogs(away, PARTITIONS).failures()
    finally:
        await away.aclose()
