"""The server-side functions: each is one step, and each may be repeated."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine.events import keys
from engine.events.facts import Pack
from engine.events.functions import Functions

TICK, PARTITION, FACTS = "orc:{t}:x:e:tick", "orc:{t}:in:0", "orc:{t}:events:0"
CHANNEL = keys.feed_channel("t", "e")
HOSTS = ["orc:{t}:tasks:h1", "orc:{t}:tasks:h2"]


async def write(
    functions: Functions, tick: int, acknowledge: list[str], bodies: list[str], packs: Sequence[Pack] = (), to: int = 0
) -> int:
    """Answers whether it was written."""
    written, _ = await publish(functions, tick, acknowledge, bodies, packs, to)
    return written


async def publish(
    functions: Functions, tick: int, acknowledge: list[str], bodies: list[str], packs: Sequence[Pack], to: int
) -> tuple[int, int]:
    args: list[Any] = [
        tick, 60, keys.GROUP, CHANNEL, f'{{"sequence":{tick}}}', packs[0].first_sequence if packs else 0, to,
        "e", "w", "t", len(packs), len(acknowledge), *(part for pack in packs for part in pack), *acknowledge, *bodies,
    ]  # fmt: skip
    written, published = await functions.ask("orc_write_tick", [TICK, PARTITION, FACTS, *HOSTS[: len(bodies)]], args)
    return written, published


async def bodies_of(redis: Redis, stream: str) -> list[bytes]:
    entries: Any = await redis.xrange(stream)
    return [fields[b"b"] for _, fields in entries]


async def test_a_tick_is_written_once_and_a_later_one_after_it(redis: Redis) -> None:
    functions = Functions(redis)
    assert await write(functions, 3, [], ["one", "two"]) == 1
    assert await write(functions, 3, [], ["one", "two"]) == 0
    assert await write(functions, 2, [], ["old"]) == 0
    assert await write(functions, 4, [], ["four"]) == 1
    assert await bodies_of(redis, HOSTS[0]) == [b"one", b"four"]
    assert await bodies_of(redis, HOSTS[1]) == [b"two"]
    assert 0 < await redis.ttl(TICK) <= 60


async def test_facts_are_appended_in_order_once_and_never_behind_a_gap(redis: Redis) -> None:
    functions = Functions(redis)
    assert await publish(functions, 1, [], ["one"], [Pack(1, b"a"), Pack(3, b"b")], 4) == (1, 4)
    assert await publish(functions, 1, [], ["one"], [Pack(1, b"a"), Pack(3, b"b")], 4) == (0, 4)
    assert await publish(functions, 3, [], [], [Pack(6, b"late")], 7) == (1, 4)
    assert await publish(functions, 3, [], [], [Pack(4, b"overlapping")], 7) == (0, 4)
    who = ["e", "w", "t"]
    assert await functions.call("orc_publish_facts", [TICK, FACTS], [60, 5, 7, *who, 5, b"missed"]) == 7
    assert await functions.call("orc_publish_facts", [TICK, FACTS], [60, 5, 7, *who, 5, b"missed"]) == 7
    assert await publish(functions, 4, [], [], [Pack(8, b"next")], 8) == (1, 8)
    assert await bodies_of(redis, FACTS) == [b"a", b"b", b"missed", b"next"]
    entries: Any = await redis.xrange(FACTS)
    assert [fields[b"n"] for _, fields in entries] == [b"1", b"3", b"5", b"8"]
    assert entries[0][1] == {b"x": b"e", b"w": b"w", b"t": b"t", b"n": b"1", b"b": b"a"}
    assert await redis.get(TICK) == b"4 8"


async def test_a_key_of_before_facts_were_published_is_understood(redis: Redis) -> None:
    await redis.set(TICK, "7")
    assert await publish(Functions(redis), 7, [], ["one"], [Pack(9, b"a")], 9) == (0, 0)
    assert await publish(Functions(redis), 8, [], [], [Pack(1, b"a")], 9) == (1, 9)


async def test_a_repeated_tick_still_acknowledges(redis: Redis) -> None:
    functions = Functions(redis)
    await redis.xgroup_create(PARTITION, keys.GROUP, id="0", mkstream=True)
    fields: dict[Any, Any] = {"b": "[]"}
    added: list[Any] = [await redis.xadd(PARTITION, fields) for _ in range(1_100)]
    entries = [entry_id.decode() for entry_id in added]
    names: dict[Any, Any] = {PARTITION: ">"}
    await redis.xreadgroup(keys.GROUP, "c", names, count=2_000)
    await write(functions, 1, [], ["one"])
    assert await write(functions, 1, entries[:-1], ["one"]) == 0
    assert await redis.xlen(PARTITION) == 1
    summary: Any = await redis.xpending(PARTITION, keys.GROUP)
    assert (summary["pending"], summary["min"]) == (1, entries[-1].encode())


async def test_watchers_are_told_with_each_call_and_also_when_nothing_is_written(redis: Redis) -> None:
    functions = Functions(redis)
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(CHANNEL)
        await write(functions, 1, [], ["one"])
        await write(functions, 1, [], ["one"])
        await write(functions, 2, [], [])
        heard: list[bytes] = []
        async with asyncio.timeout(10):
            while len(heard) < 3:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1)
                if message is not None:
                    heard.append(message["data"])
    assert heard == [b'{"sequence":1}', b'{"sequence":1}', b'{"sequence":2}']


async def test_a_server_that_lost_the_functions_gets_them_again(redis: Redis) -> None:
    functions = Functions(redis)
    await redis.function_flush()
    assert await write(functions, 1, [], ["one"]) == 1


async def test_other_refusals_of_the_server_are_passed_on(redis: Redis) -> None:
    await redis.set(HOSTS[0], "not a stream")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await write(Functions(redis), 1, [], ["one"])
    assert await redis.get(TICK) is None
