"""One task for one host, and a stream of its own for the reports."""

import asyncio
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from engine.errors import UnavailableError
from engine.events import keys
from engine.events.direct import DirectLine
from engine.settings import Settings

EXECUTION = "00000000-0000-4000-8000-000000000001"


async def report(redis: Redis, stream: str, **fields: Any) -> None:
    event = {"type": "agent.task_completed", "task_id": "a", "agent_id": "w-1", "attempt": 1, "at_ms": 1, **fields}
    await redis.xadd(stream, {"x": EXECUTION, "b": orjson.dumps([event])})


async def test_a_host_finds_the_entry_and_its_reports_are_read_from_where_one_was(redis: Redis, tenant: str) -> None:
    line, stream = DirectLine(redis), keys.replies_stream(tenant, EXECUTION, "a[1]")
    await line.send(tenant, "host-1", {"v": 1, "reply_to": stream})
    entries: Any = await redis.xrange(keys.tasks_stream(tenant, "host-1"))
    ((_, fields),) = entries
    assert orjson.loads(fields[b"b"]) == {"v": 1, "reply_to": stream}
    await report(redis, stream, result={"n": 1})
    events, after = await line.listen(stream, "0-0", 0.01)
    assert [event.result for event in events] == [{"n": 1}]
    assert (await line.listen(stream, after, 0.01)) == ([], after)
    waiting = asyncio.create_task(line.listen(stream, after, 5.0))
    await report(redis, stream, attempt=2)
    events, _ = await waiting
    assert [event.attempt for event in events] == [2]


async def test_what_is_not_understood_is_passed_over(redis: Redis, tenant: str) -> None:
    line, stream = DirectLine(redis), keys.replies_stream(tenant, EXECUTION, "a")
    await redis.xadd(stream, {"x": "nonsense", "b": "[]"})
    await report(redis, stream)
    events, _ = await line.listen(stream, "0-0", 0.01)
    assert len(events) == 1


async def test_the_replies_stay_for_a_while(redis: Redis, tenant: str) -> None:
    line, stream = DirectLine(redis), keys.replies_stream(tenant, EXECUTION, "a")
    await report(redis, stream)
    await line.let_expire(stream)
    assert 3600 < await redis.ttl(stream) <= 7200


async def test_cancelling_a_wait_ends_it(redis: Redis, tenant: str) -> None:
    line = DirectLine(redis)
    waiting = asyncio.create_task(line.listen(keys.replies_stream(tenant, EXECUTION, "a"), "0-0", 5.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_server_that_does_not_answer_is_unavailable(tenant: str) -> None:
    settings = Settings.model_validate({"redis_url": "redis://127.0.0.1:1/0"})
    redis: Redis = Redis.from_url(settings.redis_url.get_secret_value(), socket_connect_timeout=0.2)
    with pytest.raises(UnavailableError):
        await DirectLine(redis).send(tenant, "host-1", {})
    await redis.aclose()
