"""The queues of hook entries: one stream a tenant and band, read by the group `hook_workers`.

An entry of a stream only says that something is to be done; what, stands in PostgreSQL, where a worker claims it. So a
lost entry costs time (overdue ones are told of again) and one that comes twice costs nothing. Runs that somebody waits
for are the exception: they stand in the stream itself, and the answer goes to a key of its own.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from engine.contracts.hooks import DeliveryKey, HookEntry
from engine.errors import UnavailableError
from engine.events import keys
from engine.hook_ports import OverdueEntry
from engine.observability.log import get_logger

log = get_logger(__name__)

BANDS: Final = 3
ENTRIES_MAX: Final = 100_000
"""In one stream; what is cut off is overdue some time and told of again."""
PUT_TIMEOUT_SECONDS: Final = 2.0
READ_BLOCK_MS: Final = 250
TENANTS_REFRESH_SECONDS: Final = 0.25
TAKE_OVER_MAX: Final = 100
REPLY_SECONDS: Final = 60
RECONNECT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """One entry of a stream: a journalled entry to claim, or a run that somebody waits for."""

    tenant: str
    band: int
    entry_id: str
    key: DeliveryKey | None = field(compare=False)
    request: dict[str, Any] | None = field(compare=False)
    deliveries: int = field(default=1, compare=False)
    """How often it was given to a reader, as far as it is known: counted for requests that were taken over."""

    @property
    def stream(self) -> str:
        return keys.hooks_queue(self.tenant, self.band)


class RedisHookQueue:
    """Implements `engine.hook_ports.HookQueue`, and the waiting for a run's answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, tenant: str, entries: Sequence[HookEntry]) -> None:
        await self._add([(tenant, entry.band, _entry_fields(entry)) for entry in entries])

    async def put_again(self, overdue: Sequence[OverdueEntry]) -> None:
        await self._add([(item.tenant, item.band, _key_fields(item.key)) for item in overdue])

    async def _add(self, items: Sequence[tuple[str, int, dict[Any, Any]]]) -> None:
        try:
            async with asyncio.timeout(PUT_TIMEOUT_SECONDS), self._redis.pipeline(transaction=False) as pipe:
                for tenant in sorted({tenant for tenant, _, _ in items}):
                    pipe.sadd(keys.HOOK_TENANTS, tenant)
                for tenant, band, fields in items:
                    pipe.xadd(keys.hooks_queue(tenant, band), fields, maxlen=ENTRIES_MAX, approximate=True)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("hooks.not_queued", entries=len(items), error=str(error))

    async def changed(self, tenant: str) -> None:
        try:
            async with asyncio.timeout(PUT_TIMEOUT_SECONDS):
                await self._redis.publish(keys.HOOKS_CHANGED_CHANNEL, tenant)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("hooks.nudge_lost", tenant=tenant, error=str(error))

    async def ask(self, tenant: str, request: dict[str, Any], timeout_seconds: float) -> dict[str, Any] | None:
        """Have a hook worker run something now; None when none answers in time. Raises UnavailableError.

        The request says until when it is waited for, by the clocks of the machines."""
        reply_key = keys.hooks_reply(tenant, str(request["request_id"]))
        deadline_ms = round((time.time() + timeout_seconds) * 1000)
        fields: dict[Any, Any] = {"request": orjson.dumps(request | {"deadline_ms": deadline_ms})}
        try:
            await self._redis.sadd(keys.HOOK_TENANTS, tenant)
            await self._redis.xadd(keys.hooks_queue(tenant, 0), fields, maxlen=ENTRIES_MAX, approximate=True)
            until = time.monotonic() + timeout_seconds
            while (left := until - time.monotonic()) > 0:
                # In short turns: the connection's own timeout is shorter than a hook may take.
                reply: Any = await self._redis.blpop([reply_key], timeout=min(left, 5.0))
                if reply is not None:
                    answer: dict[str, Any] = orjson.loads(reply[1])
                    return answer
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
        return None

    async def reply(self, tenant: str, request_id: str, answer: dict[str, Any]) -> None:
        key = keys.hooks_reply(tenant, request_id)
        try:
            async with asyncio.timeout(PUT_TIMEOUT_SECONDS), self._redis.pipeline(transaction=True) as pipe:
                pipe.rpush(key, orjson.dumps(answer))
                pipe.expire(key, REPLY_SECONDS)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("hooks.reply_lost", tenant=tenant, error=str(error))

    async def depth(self, tenant: str) -> int:
        """Entries that wait or are being worked on."""
        return sum([int(await self._redis.xlen(keys.hooks_queue(tenant, band))) for band in range(BANDS)])


class HookQueueReader:
    """What a hook worker reads. `reader` must not repeat commands by itself: the first answer would be lost."""

    def __init__(self, redis: Redis, reader: Redis, worker_id: str) -> None:
        self._redis = redis
        self._reader = reader
        self._worker_id = worker_id
        self._tenants: list[str] = []
        self._tenants_at = 0.0
        self._grouped: set[str] = set()

    async def take(self, limit: int) -> list[QueuedRun]:
        """About that many (one a tenant at least), the most urgent band first; waits a moment when there are none.
        Raises UnavailableError, as all of these do."""
        with _answering():
            return await self._take(limit)

    async def _take(self, limit: int) -> list[QueuedRun]:
        await self._look_for_tenants()
        if not self._tenants:
            await asyncio.sleep(READ_BLOCK_MS / 1000)
            return []
        taken: list[QueuedRun] = []
        for band in range(BANDS):
            taken += await self._read([band], limit - len(taken), None)
            if len(taken) >= limit:
                return taken
        return taken or await self._read(range(BANDS), limit, READ_BLOCK_MS)

    async def take_over(self, idle_ms: int) -> list[QueuedRun]:
        """What readers took that have not been heard of since."""
        with _answering():
            return await self._take_over(idle_ms)

    async def _take_over(self, idle_ms: int) -> list[QueuedRun]:
        taken: list[QueuedRun] = []
        for tenant, band in [(tenant, band) for tenant in self._tenants for band in range(BANDS)]:
            stream = keys.hooks_queue(tenant, band)
            if stream in self._grouped:
                reply: Any = await self._redis.xautoclaim(
                    stream, keys.HOOK_GROUP, self._worker_id, min_idle_time=idle_ms, count=TAKE_OVER_MAX
                )
                taken += [_queued(tenant, band, entry_id, fields) for entry_id, fields in reply[1]]
        return [run if run.request is None else await self._counted(run) for run in taken]

    async def _counted(self, run: QueuedRun) -> QueuedRun:
        found: Any = await self._redis.xpending_range(run.stream, keys.HOOK_GROUP, run.entry_id, run.entry_id, 1)
        return replace(run, deliveries=int(found[0]["times_delivered"])) if found else run

    async def keep(self, runs: Sequence[QueuedRun]) -> None:
        """They are still being worked on."""
        with _answering():
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, ids in _by_stream(runs).items():
                    pipe.xclaim(stream, keys.HOOK_GROUP, self._worker_id, 0, [*ids], justid=True)
                await pipe.execute()

    async def acknowledge(self, runs: Sequence[QueuedRun]) -> None:
        with _answering():
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, ids in _by_stream(runs).items():
                    pipe.xack(stream, keys.HOOK_GROUP, *ids)
                    pipe.xdel(stream, *ids)
                await pipe.execute()

    async def leave(self) -> None:
        """Forget this reader where it has nothing left."""
        with _answering():
            for stream in sorted(self._grouped):
                pending: Any = await self._redis.xpending_range(
                    stream, keys.HOOK_GROUP, "-", "+", 1, consumername=self._worker_id
                )
                if not pending:
                    await self._redis.xgroup_delconsumer(stream, keys.HOOK_GROUP, self._worker_id)

    async def _look_for_tenants(self) -> None:
        now = time.monotonic()
        if now - self._tenants_at < TENANTS_REFRESH_SECONDS:
            return
        members: Any = await self._redis.smembers(keys.HOOK_TENANTS)
        self._tenants = sorted(member.decode() for member in members)
        self._tenants_at = now
        for stream in [keys.hooks_queue(tenant, band) for tenant in self._tenants for band in range(BANDS)]:
            if stream not in self._grouped:
                await self._make_group(stream)

    async def _make_group(self, stream: str) -> None:
        try:
            await self._redis.xgroup_create(stream, keys.HOOK_GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._grouped.add(stream)

    async def _read(self, bands: Sequence[int], count: int, block_ms: int | None) -> list[QueuedRun]:
        streams = {keys.hooks_queue(tenant, band): (tenant, band) for band in bands for tenant in self._tenants}
        names: dict[Any, Any] = dict.fromkeys(streams, ">")
        # The count holds for each stream: with many tenants each gets its part.
        each = max(1, count // len(self._tenants)) if block_ms is None else 1
        try:
            reply: Any = await self._reader.xreadgroup(
                keys.HOOK_GROUP, self._worker_id, names, count=each, block=block_ms
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error) and "no such key" not in str(error):
                raise
            # The server was emptied: the groups are made anew.
            self._grouped.clear()
            self._tenants_at = 0.0
            return []
        return [
            _queued(*streams[name.decode()], entry_id, fields)
            for name, entries in reply or ()
            for entry_id, fields in entries
        ]


class HookChanges:
    """Hears of changed hooks and tells whoever keeps them in memory."""

    def __init__(self, redis: Redis, forget: Callable[[str | None], None]) -> None:
        self._redis = redis
        self._forget = forget

    async def run(self) -> None:
        """Until cancelled. After a connection is lost everything may have changed."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                log.warning("hooks.nudges_interrupted", error=str(error))
            self._forget(None)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self) -> None:
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(keys.HOOKS_CHANGED_CHANNEL)
            self._forget(None)
            while pubsub.subscribed:
                message = await pubsub.get_message(timeout=30.0)
                if message is not None:
                    self._forget(message["data"].decode("utf-8", "replace"))
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # the library's own omission


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error


def _by_stream(runs: Sequence[QueuedRun]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(run.stream, []).append(run.entry_id)
    return found


def _entry_fields(entry: HookEntry) -> dict[Any, Any]:
    key = DeliveryKey(execution_id=UUID(entry.execution_id), tick=entry.tick, position=entry.position)
    return _key_fields(key) | {
        "hook_ids": orjson.dumps([str(hook_id) for hook_id in entry.hooks]),
        "triggered_by": entry.event_type,
        "trigger": entry.trigger.value,
        "priority": entry.band,
        "timestamp": entry.at_ms,
    }


def _key_fields(key: DeliveryKey) -> dict[Any, Any]:
    return {"execution_id": str(key.execution_id), "tick": key.tick, "position": key.position}


def _queued(tenant: str, band: int, entry_id: bytes, fields: dict[bytes, bytes] | None) -> QueuedRun:
    """What is not understood is neither: it is acknowledged and forgotten."""
    key = request = None
    try:
        if fields and b"request" in fields:
            request = orjson.loads(fields[b"request"])
        elif fields:
            key = DeliveryKey(
                execution_id=UUID(fields[b"execution_id"].decode()),
                tick=int(fields[b"tick"]),
                position=int(fields[b"position"]),
            )
    except (KeyError, ValueError):
        log.warning("hooks.entry_not_understood", tenant=tenant, entry_id=entry_id.decode())
    return QueuedRun(tenant, band, entry_id.decode(), key, request if isinstance(request, dict) else None)
