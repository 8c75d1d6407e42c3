"""The server-side functions: each is one step, and each may be repeated."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine.events import keys
from engine.events.functions import Functions

TICK, PARTITION = "orc:{t}:x:e:tick", "orc:{t}:in:0"
CHANNEL = keys.feed_channel("t", "e")
HOSTS = ["orc:{t}:tasks:h1", "orc:{t}:tasks:h2"]


async def write(functions: Functions, tick: int, acknowledge: list[str], bodies: list[str]) -> int:
    nudge = f'{{"sequence":{tick}}}'
    args: list[Any] = [tick, 60, keys.GROUP, CHANNEL, nudge, len(acknowledge), *acknowledge, *bodies]
    return await functions.call("orc_write_tick", [TICK, PARTITION, *HOSTS[: len(bodies)]], args)


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
