"""The queues of hook entries on a real server: bands, readers that die, answers, and servers that lose everything."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from engine.concurrency import end_all
from engine.contracts.hooks import DeliveryKey, HookEntry, HookTrigger
from engine.errors import UnavailableError
from engine.events import keys
from engine.events.connection import connect
from engine.events.hook_queue import HookChanges, HookQueueReader, QueuedRun, RedisHookQueue
from engine.hook_ports import OverdueEntry
from engine.settings import Settings

DEADLINE_SECONDS = 10.0


@pytest.fixture
async def blocking_redis(redis_settings: Settings) -> AsyncIterator[Redis]:
    client = connect(redis_settings, repeat=False)
    yield client
    await client.aclose()


def entry(band: int = 1, tick: int = 1) -> HookEntry:
    return HookEntry(
        execution_id=str(uuid4()), workflow_id=str(uuid4()), tick=tick, position=0, trigger=HookTrigger.POST_TASK,
        event_type="task.completed", subject="s", band=band, hooks=(uuid4(),), at_ms=5,
    )  # fmt: skip


def key_of(item: HookEntry) -> DeliveryKey:
    return DeliveryKey(execution_id=UUID(item.execution_id), tick=item.tick, position=item.position)


async def taken(reader: HookQueueReader, count: int) -> list[QueuedRun]:
    found: list[QueuedRun] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(found) < count:
            found += await reader.take(100)
    return found


async def test_entries_come_by_band_each_once_and_are_gone_when_acknowledged(
    redis: Redis, blocking_redis: Redis, tenant: str
) -> None:
    queue, reader = RedisHookQueue(redis), HookQueueReader(redis, blocking_redis, "me")
    assert await reader.take(10) == [], "no tenant has any"
    items = [entry(band) for band in (2, 1, 0, 1)]
    await queue.put(tenant, items)
    assert await queue.depth(tenant) == 4
    found = await taken(reader, 4)
    wanted = [items[2], items[1], items[3], items[0]]
    assert [run.key for run in found] == [key_of(item) for item in wanted]
    assert [run.band for run in found] == [0, 1, 1, 2]
    await reader.acknowledge(found)
    assert await queue.depth(tenant) == 0
    assert await reader.take(10) == []
    await reader.leave()
    assert await redis.xinfo_consumers(keys.hooks_queue(tenant, 1), keys.HOOK_GROUP) == []


async def test_an_entry_says_what_it_is_about_to_whoever_looks(redis: Redis, tenant: str) -> None:
    item = entry()
    await RedisHookQueue(redis).put(tenant, [item])
    found: Any = await redis.xrange(keys.hooks_queue(tenant, 1))
    [(_, fields)] = found
    assert fields[b"triggered_by"] == b"task.completed"
    assert fields[b"execution_id"] == item.execution_id.encode()
    assert str(item.hooks[0]).encode() in fields[b"hook_ids"]


async def test_what_a_dead_reader_had_is_taken_over_and_what_is_kept_is_not(
    redis: Redis, blocking_redis: Redis, tenant: str
) -> None:
    queue = RedisHookQueue(redis)
    dead, alive = HookQueueReader(redis, blocking_redis, "dead"), HookQueueReader(redis, blocking_redis, "alive")
    await queue.put(tenant, [entry(), entry()])
    first, second = await taken(dead, 2)
    await alive.take(1)
    await asyncio.sleep(0.3)
    await dead.keep([first])
    over = await alive.take_over(250)
    assert [run.entry_id for run in over] == [second.entry_id]
    assert over[0].key == second.key


async def test_overdue_entries_are_told_of_again_and_nonsense_is_recognised(
    redis: Redis, blocking_redis: Redis, tenant: str
) -> None:
    queue, reader = RedisHookQueue(redis), HookQueueReader(redis, blocking_redis, "me")
    late = OverdueEntry(tenant=tenant, key=key_of(entry()), band=2)
    await queue.put_again([late])
    await redis.xadd(keys.hooks_queue(tenant, 0), {"execution_id": "no id"})
    found = await taken(reader, 2)
    assert [run.key for run in found] == [None, late.key]
    assert found[0].request is None


async def test_a_run_that_somebody_waits_for_is_asked_for_and_answered(
    redis: Redis, blocking_redis: Redis, tenant: str
) -> None:
    queue, reader = RedisHookQueue(redis), HookQueueReader(redis, blocking_redis, "me")
    asking = asyncio.create_task(queue.ask(tenant, {"request_id": "r1", "hook_id": "h"}, DEADLINE_SECONDS))
    [run] = await taken(reader, 1)
    assert run.request is not None
    assert time.time() * 1000 < run.request.pop("deadline_ms") <= (time.time() + DEADLINE_SECONDS) * 1000
    assert run.request == {"request_id": "r1", "hook_id": "h"}
    await queue.reply(tenant, "r1", {"status": "completed"})
    assert await asking == {"status": "completed"}
    assert await queue.ask(tenant, {"request_id": "r2"}, 0.1) is None


async def test_a_request_says_how_many_readers_have_had_it(redis: Redis, blocking_redis: Redis, tenant: str) -> None:
    queue = RedisHookQueue(redis)
    dead, alive = HookQueueReader(redis, blocking_redis, "dead"), HookQueueReader(redis, blocking_redis, "alive")
    assert await queue.ask(tenant, {"request_id": "r1"}, 0.05) is None
    [first] = await taken(dead, 1)
    await alive.take(1)
    await dead.keep([first])
    [second] = await alive.take_over(0)
    [third] = await dead.take_over(0)
    assert (first.deliveries, second.deliveries, third.deliveries) == (1, 2, 3)
    assert first == second == third


async def test_a_server_that_was_emptied_gets_its_groups_again(
    redis: Redis, blocking_redis: Redis, tenant: str
) -> None:
    queue, reader = RedisHookQueue(redis), HookQueueReader(redis, blocking_redis, "me")
    await queue.put(tenant, [entry()])
    await taken(reader, 1)
    await redis.flushdb()
    await queue.put(tenant, [entry()])
    assert len(await taken(reader, 1)) == 1


async def test_changes_are_heard_of_and_so_is_that_some_may_have_been_missed(redis: Redis, tenant: str) -> None:
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    listening = asyncio.create_task(HookChanges(redis, heard.put_nowait).run())
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await heard.get() is None
        await RedisHookQueue(redis).changed(tenant)
        assert await heard.get() == tenant
    await end_all([listening])


async def test_without_a_server_writing_is_lost_in_peace_and_reading_says_so(tenant: str) -> None:
    away = connect(Settings(_env_file=None, redis_url="redis://127.0.0.1:1/0"), repeat=False)
    queue, reader = RedisHookQueue(away), HookQueueReader(away, away, "me")
    await queue.put(tenant, [entry()])
    await queue.changed(tenant)
    await queue.reply(tenant, "r", {})
    run = QueuedRun(tenant, 0, "1-0", None, None)
    for call in (
        reader.take(1),
        reader.keep([run]),
        reader.acknowledge([run]),
        queue.ask(tenant, {"request_id": 1}, 1),
    ):
        with pytest.raises(UnavailableError):
            await call
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    listening = asyncio.create_task(HookChanges(away, heard.put_nowait).run())
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await heard.get() is None
    await end_all([listening])
    await away.aclose()
