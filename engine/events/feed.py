"""Nudges over pub/sub: something was committed for an execution. Facts are read from the store."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.concurrency import end_all
from engine.events import keys
from engine.observability.log import get_logger

log = get_logger(__name__)

RECONNECT_SECONDS = 0.5
NUDGES_MAX = 1_000
NUDGES_AT_ONCE = 500
NUDGE_TIMEOUT_SECONDS = 0.5
"""A nudge stands between a tick's commit and its answer: it must not cost the tick its time."""


class RedisFeed:
    """One pub/sub connection for all watchers of this process. A slow watcher loses nudges, never facts."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._watchers: dict[bytes, set[asyncio.Queue[dict[str, Any]]]] = {}
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)
        self._reader: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def nudge(self, tenant: str, execution_id: str, message: dict[str, Any]) -> None:
        """Tell watchers. Losing it is allowed, so that a Redis outage costs watchers time and nothing else."""
        try:
            async with asyncio.timeout(NUDGE_TIMEOUT_SECONDS):
                await self._redis.publish(keys.feed_channel(tenant, execution_id), orjson.dumps(message))
        except (RedisError, OSError) as error:
            log.warning("feed.nudge_lost", execution_id=execution_id, error=str(error))

    async def nudge_all(self, tenant: str, execution_id: str, messages: Sequence[dict[str, Any]]) -> None:
        """Many at once, in their order."""
        channel = keys.feed_channel(tenant, execution_id)
        try:
            for first in range(0, len(messages), NUDGES_AT_ONCE):
                async with asyncio.timeout(NUDGE_TIMEOUT_SECONDS), self._redis.pipeline(transaction=False) as pipe:
                    for message in messages[first : first + NUDGES_AT_ONCE]:
                        pipe.publish(channel, orjson.dumps(message))
                    await pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("feed.nudges_lost", execution_id=execution_id, error=str(error))

    @asynccontextmanager
    async def subscribe(self, tenant: str, execution_id: UUID) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        channel = keys.feed_channel(tenant, str(execution_id)).encode()
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(NUDGES_MAX)
        async with self._lock:
            first = channel not in self._watchers
            self._watchers.setdefault(channel, set()).add(queue)
            if first:
                await self._try(self._pubsub.subscribe(channel))
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read(), name="feed-reader")
        try:
            yield _drain(queue)
        finally:
            async with self._lock:
                self._watchers[channel].discard(queue)
                if not self._watchers[channel]:
                    del self._watchers[channel]
                    await self._try(self._pubsub.unsubscribe(channel))

    async def close(self) -> None:
        if self._reader is not None:
            await end_all([self._reader])
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # the library's own omission

    async def _try(self, command: Any) -> None:
        try:
            await command
        except (RedisError, OSError) as error:
            log.warning("feed.unavailable", error=str(error))

    async def _read(self) -> None:
        while True:
            try:
                message = await self._pubsub.get_message(timeout=30.0)
            except (RedisError, OSError) as error:
                log.warning("feed.lost_connection", error=str(error))
                await asyncio.sleep(RECONNECT_SECONDS)
                await self._begin_anew()
                continue
            if message is None:
                if not self._pubsub.subscribed:
                    await asyncio.sleep(RECONNECT_SECONDS)
                    await self._subscribe_again()
                continue
            try:
                nudge = orjson.loads(message["data"])
            except orjson.JSONDecodeError:
                continue
            for queue in self._watchers.get(message["channel"], ()):
                if not queue.full():
                    queue.put_nowait(nudge)

    async def _begin_anew(self) -> None:
        """Over another connection: in a cluster, the node of the last one may not come back."""
        async with self._lock:
            await self._try(self._pubsub.aclose())  # type: ignore[no-untyped-call]  # the library's own omission
            self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            if self._watchers:
                await self._try(self._pubsub.subscribe(*self._watchers))

    async def _subscribe_again(self) -> None:
        """Channels whose subscription failed while Redis was away: the client knows only those that succeeded."""
        async with self._lock:
            missing = [channel for channel in self._watchers if channel not in self._pubsub.channels]
            if missing:
                await self._try(self._pubsub.subscribe(*missing))


async def _drain(queue: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    while True:
        yield await queue.get()
