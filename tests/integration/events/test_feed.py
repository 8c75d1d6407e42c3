"""Nudges: who watches hears of it; an outage costs time and nothing else."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from engine.embedded.valkey import ValkeyServer
from engine.events import feed as feed_module
from engine.events import keys
from engine.events.connection import connect
from engine.events.feed import RedisFeed
from engine.settings import Settings


async def test_each_watcher_of_an_execution_hears_its_nudges_and_no_others(redis: Redis, tenant: str) -> None:
    feed = RedisFeed(redis)
    one, two = uuid4(), uuid4()
    async with feed.subscribe(tenant, one) as first, feed.subscribe(tenant, one) as second:
        async with feed.subscribe(tenant, two) as other:
            await feed.nudge(tenant, str(one), {"sequence": 1})
            await feed.nudge(tenant, str(two), {"sequence": 2})
            async with asyncio.timeout(60):
                assert await anext(first) == {"sequence": 1}
                assert await anext(second) == {"sequence": 1}
                assert await anext(other) == {"sequence": 2}
        await feed.nudge(tenant, str(one), {"sequence": 3})
        async with asyncio.timeout(60):
            assert await anext(first) == {"sequence": 3}
    assert feed._watchers == {}
    await feed.close()


async def test_what_is_no_json_is_passed_over(redis: Redis, tenant: str) -> None:
    feed, execution_id = RedisFeed(redis), uuid4()
    async with feed.subscribe(tenant, execution_id) as nudges:
        await redis.publish(keys.feed_channel(tenant, str(execution_id)), "{")
        await feed.nudge(tenant, str(execution_id), {"sequence": 1})
        async with asyncio.timeout(60):
            assert await anext(nudges) == {"sequence": 1}
    await feed.close()


async def test_a_slow_watcher_loses_nudges_and_keeps_nobody_waiting(
    redis: Redis, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "NUDGES_MAX", 2)
    feed, execution_id = RedisFeed(redis), uuid4()
    async with feed.subscribe(tenant, execution_id) as slow:
        for n in range(10):
            await feed.nudge(tenant, str(execution_id), {"sequence": n})
        async with feed.subscribe(tenant, uuid4()) as other:
            await feed.nudge(tenant, str(execution_id), {"sequence": 10})
            async with asyncio.timeout(60):
                assert [(await anext(slow))["sequence"] for _ in range(2)] == [0, 1]
            assert other is not slow
    await feed.close()


async def test_watching_again_after_all_have_left(redis: Redis, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "RECONNECT_SECONDS", 0.01)
    feed = RedisFeed(redis)
    for _ in range(3):
        execution_id = uuid4()
        async with feed.subscribe(tenant, execution_id) as nudges:
            await feed.nudge(tenant, str(execution_id), {"sequence": 1})
            async with asyncio.timeout(60):
                assert await anext(nudges) == {"sequence": 1}
    await feed.close()


async def test_an_outage_is_survived_and_watchers_who_came_during_it_are_served(
    tmp_path: Path, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "RECONNECT_SECONDS", 0.05)
    server = ValkeyServer(tmp_path / "valkey")
    await server.start()
    redis = connect(Settings.model_validate({"redis_url": server.url}))
    again: ValkeyServer | None = None
    feed, early, late = RedisFeed(redis), uuid4(), uuid4()
    try:
        async with feed.subscribe(tenant, early) as first:
            port = server.port
            await server.stop()
            await feed.nudge(tenant, str(early), {"sequence": 0})
            async with feed.subscribe(tenant, late) as second:
                again = ValkeyServer(tmp_path / "valkey", port)
                await again.start()
                hearing = [asyncio.ensure_future(anext(nudges)) for nudges in (first, second)]
                async with asyncio.timeout(60):
                    while not all(task.done() for task in hearing):
                        for execution_id in (early, late):
                            await feed.nudge(tenant, str(execution_id), {"sequence": 1})
                        await asyncio.sleep(0.05)
                assert [task.result() for task in hearing] == [{"sequence": 1}] * 2
    finally:
        await feed.close()
        await redis.aclose()
        await (again or server).stop()


async def test_a_hanging_redis_costs_a_nudge_no_time(tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "NUDGE_TIMEOUT_SECONDS", 0.05)
    silent = await asyncio.start_server(_say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    redis = connect(Settings.model_validate({"redis_url": f"redis://127.0.0.1:{port}/0"}), repeat=False)
    feed = RedisFeed(redis)
    async with asyncio.timeout(2):
        await feed.nudge(tenant, "x", {})
    await feed.close()
    await redis.aclose()
    silent.close()
    await silent.wait_closed()


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()
