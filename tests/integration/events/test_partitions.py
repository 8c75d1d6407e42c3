"""Leases: one owner a partition, and a fence that rises with each new one."""

import asyncio
import socket
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from engine.concurrency import end_all
from engine.errors import UnavailableError
from engine.events import keys, partitions
from engine.events.connection import connect
from engine.events.functions import Functions
from engine.events.partitions import PartitionLeases, look_at_shares, read_shares
from engine.settings import Settings
from tests.fakes.streams import eventually, until


def leases(redis: Redis) -> PartitionLeases:
    return PartitionLeases(Functions(redis), 3)


def read_on(*owners: PartitionLeases) -> None:
    """A round of reading ends in each, and the next begins."""
    for owner in owners:
        owner.reading()


async def test_the_first_owns_all_and_gives_the_second_its_share(redis: Redis) -> None:
    first, second = leases(redis), leases(redis)
    await first.renew()
    assert set(first.fences) == {0, 1, 2}
    before = dict(first.fences)
    await second.renew()
    assert second.fences == {}
    await first.renew()
    assert first.fences == {0: before[0], 1: before[1]}, "what is kept is read on under its fence"
    await first.renew()
    await second.renew()
    assert second.fences == {}, "the first may still be reading it"
    read_on(first)
    await first.renew()
    await second.renew()
    assert set(second.fences) == {2}
    assert second.fences[2] > before[2]
    assert first.fences == {0: before[0], 1: before[1]}
    assert await read_shares(redis, 3) == {first.owner_id: [0, 1], second.owner_id: [2]}


async def test_what_was_to_be_given_up_and_need_not_be_is_read_again_under_a_new_fence(redis: Redis) -> None:
    first, second = leases(redis), leases(redis)
    await first.renew()
    before = dict(first.fences)
    await second.renew()
    await first.renew()
    await second.release()
    read_on(first)
    await first.renew()
    assert first.fences == {**before, 2: first.fences[2]}
    assert first.fences[2] > before[2]


async def test_leaving_lets_others_take_all_at_once(redis: Redis) -> None:
    first, second = leases(redis), leases(redis)
    await first.renew()
    await second.renew()
    await second.release()
    assert set((await read_shares(redis, 3))[first.owner_id]) == {0, 1, 2}, "it took nothing from its owner"
    await first.release()
    assert first.fences == {}
    assert await read_shares(redis, 3) == {}
    await second.renew()
    assert set(second.fences) == {0, 1, 2}


async def test_renewing_keeps_the_fence(redis: Redis) -> None:
    only = leases(redis)
    await only.renew()
    before = dict(only.fences)
    await only.renew()
    assert only.fences == before


async def test_fences_rise_even_when_the_server_has_lost_everything(redis: Redis) -> None:
    first = leases(redis)
    await first.renew()
    before = dict(first.fences)
    await asyncio.sleep(0.002)
    await redis.flushdb()
    await first.renew()
    assert set(first.fences) == {0, 1, 2}
    assert all(first.fences[partition] > before[partition] for partition in range(3))


async def test_a_lease_that_ended_goes_to_another_and_its_old_owner_notices(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LEASE_MS", 50)
    first, second = leases(redis), leases(redis)
    await first.renew()
    before = dict(first.fences)
    await asyncio.sleep(0.06)
    assert first.fences == {}, "its own clock tells it, whether or not it could ask"
    monkeypatch.setattr(partitions, "LEASE_MS", 5_000)

    async def taken() -> bool:
        await second.renew()
        return len(second.fences) == 3

    await eventually(taken)
    assert all(second.fences[partition] > before[partition] for partition in range(3))
    await first.renew()
    assert first.fences == {}


async def test_leases_are_kept_while_they_are_renewed(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "LEASE_MS", 1_000)
    monkeypatch.setattr(partitions, "RENEW_SECONDS", 0.02)
    first = leases(redis)
    await first.renew()
    before = dict(first.fences)
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(1.3)
    assert first.fences == before
    assert await read_shares(redis, 3) == {first.owner_id: [0, 1, 2]}
    await end_all([keeping])


async def test_two_that_keep_renewing_share_soon(redis: Redis) -> None:
    first, second = leases(redis), leases(redis)
    await first.renew()
    await second.renew()
    keeping = [asyncio.create_task(owner.keep()) for owner in (first, second)]

    def shared() -> bool:
        read_on(first, second)
        return len(first.fences) == 2 and len(second.fences) == 1

    await until(shared, partitions.RENEW_SECONDS + 3.0)
    await end_all(keeping)


class _Slow(Functions):
    """The answer comes when the lease is over by the caller's clock."""

    async def ask(self, name: str, keys: list[str], args: list[Any]) -> Any:
        answer = await super().ask(name, keys, args)
        await asyncio.sleep(0.9)
        return answer


async def test_what_ran_out_while_the_answer_was_under_way_is_read_under_a_new_fence_only(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LEASE_MS", 1_500)
    slow = PartitionLeases(_Slow(redis), 3)
    await slow.renew()
    before = dict(slow.fences)
    assert set(before) == {0, 1, 2}
    await slow.renew()
    assert slow.fences == {}
    await slow.renew()
    assert all(slow.fences[partition] > before[partition] for partition in range(3))


async def test_without_redis_nothing_is_owned_and_nothing_raised(redis: Redis) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"redis://127.0.0.1:{bound.getsockname()[1]}/0"
        away = connect(Settings.model_validate({"redis_url": address}), repeat=False)
        lost = leases(redis)
        await lost.renew()
        assert len(lost.fences) == 3
        lost._functions = Functions(away)
        await lost.renew()
        assert lost.fences == {}
        await lost.release()
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


async def test_an_owner_whose_lease_is_gone_from_the_server_takes_it_anew(redis: Redis) -> None:
    first = leases(redis)
    await first.renew()
    before = dict(first.fences)
    await redis.delete(keys.partition_owner(1))
    await first.renew()
    assert first.fences == {**before, 1: first.fences[1]}
    assert first.fences[1] > before[1]


async def test_shares_can_be_looked_at_from_outside(redis: Redis, redis_settings: Settings) -> None:
    settings = redis_settings.model_copy(update={"event_partitions": 3})
    assert await look_at_shares(settings) == {}
    owner = leases(redis)
    await owner.renew()
    assert await look_at_shares(settings) == {owner.owner_id: [0, 1, 2]}
    away = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    with pytest.raises(UnavailableError):
        await look_at_shares(away)
