"""Leases: one owner a partition, and a fence that rises with each new one."""

import asyncio
import socket
from typing import Any

import pytest
from redis.asyncio import Redis

from engine.concurrency import end_all
from engine.events import keys, partitions
from engine.events.connection import connect
from engine.events.functions import Functions
from engine.events.partitions import PartitionLeases
from engine.settings import Settings
from tests.fakes.streams import eventually, until


def leases(redis: Redis) -> PartitionLeases:
    return PartitionLeases(Functions(redis), 3)


async def test_the_first_owns_all_and_the_second_nothing_until_it_lets_go(redis: Redis) -> None:
    first, second = leases(redis), leases(redis)
    await first.renew()
    await second.renew()
    assert first.fences == {0: 1, 1: 1, 2: 1}
    assert second.fences == {}
    await second.release()
    await second.renew()
    assert second.fences == {}, "letting go of what one does not own takes nothing from its owner"
    await first.release()
    assert first.fences == {}
    await second.renew()
    assert second.fences == {0: 2, 1: 2, 2: 2}


async def test_renewing_keeps_the_fence(redis: Redis) -> None:
    only = leases(redis)
    await only.renew()
    await only.renew()
    assert only.fences == {0: 1, 1: 1, 2: 1}


async def test_a_lease_that_ended_goes_to_another_and_its_old_owner_notices(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LEASE_MS", 50)
    first, second = leases(redis), leases(redis)
    await first.renew()
    monkeypatch.setattr(partitions, "LEASE_MS", 5_000)

    async def taken() -> bool:
        await second.renew()
        return len(second.fences) == 3

    await eventually(taken)
    assert set(second.fences.values()) == {2}
    await first.renew()
    assert first.fences == {}


async def test_leases_are_kept_while_they_are_renewed(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "LEASE_MS", 400)
    monkeypatch.setattr(partitions, "RENEW_SECONDS", 0.02)
    first, second = leases(redis), leases(redis)
    await first.renew()
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(0.8)
    await second.renew()
    assert second.fences == {}
    await end_all([keeping])


async def test_without_redis_nothing_is_owned_and_nothing_raised(redis: Redis) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"redis://127.0.0.1:{bound.getsockname()[1]}/0"
        away = connect(Settings.model_validate({"redis_url": address}), repeat=False)
        lost = leases(away)
        lost.fences = {0: 4, 1: 4, 2: 4}
        await lost.renew()
        assert lost.fences == {}
        lost.fences = {0: 4}
        await lost.release()
        assert lost.fences == {}
        await away.aclose()


async def test_only_the_owner_may_write_strays_again_and_only_others_entries_are_strays(redis: Redis) -> None:
    owner, other = leases(redis), leases(redis)
    await owner.renew()
    stream = keys.partition_stream("t", 0)
    await redis.xgroup_create(stream, keys.GROUP, id="0", mkstream=True)
    fields: dict[Any, Any] = {"x": "e", "b": "[]"}
    names: dict[Any, Any] = {stream: ">"}
    own = await redis.xadd(stream, fields)
    await redis.xreadgroup(keys.GROUP, owner.owner_id, names)
    stray = await redis.xadd(stream, fields)
    await redis.xreadgroup(keys.GROUP, "stale", names)
    assert await other.requeue_strays("t", 0) == 0
    assert await owner.requeue_strays("t", 0) == 1
    entries: Any = await redis.xrange(stream)
    assert entries[0] == (own, {b"x": b"e", b"b": b"[]"})
    assert entries[1][0] > stray
    assert entries[1][1] == {b"x": b"e", b"b": b"[]"}
    assert len(entries) == 2
    assert await owner.requeue_strays("t", 0) == 0


async def test_readers_that_are_long_gone_are_forgotten(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = leases(redis)
    await owner.renew()
    stream = keys.partition_stream("t", 0)
    await redis.xgroup_create(stream, keys.GROUP, id="0", mkstream=True)
    await redis.xgroup_createconsumer(stream, keys.GROUP, owner.owner_id)
    await redis.xgroup_createconsumer(stream, keys.GROUP, "gone")
    await owner.requeue_strays("t", 0)

    async def readers() -> set[bytes]:
        found: Any = await redis.xinfo_consumers(stream, keys.GROUP)
        return {reader["name"] for reader in found}

    assert await readers() == {owner.owner_id.encode(), b"gone"}
    monkeypatch.setattr(partitions, "READER_FORGOTTEN_MS", 1)
    await asyncio.sleep(0.01)
    await owner.requeue_strays("t", 0)
    assert await readers() == {owner.owner_id.encode()}


async def test_a_partition_is_taken_when_the_owner_appears_to_be_gone(redis: Redis) -> None:
    first, second = leases(redis), leases(redis)
    await first.renew()
    await redis.delete(keys.partition_owner(1))
    await second.renew()
    assert second.fences == {1: 2}
    await first.renew()
    await until(lambda: first.fences == {0: 1, 2: 1}, 1.0)
