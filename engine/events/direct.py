"""One task for one host, with a stream of its own for the reports: for what an activity has done by an agent.

Such reports go to whoever reads that stream and not to the execution's workflow. The stream stays for a while after the
end: an activity that is done again finds there what came of its first time.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.errors import UnavailableError
from engine.events import keys, wire
from engine.observability.log import get_logger

log = get_logger(__name__)

READ_COUNT: Final = 100
REPLIES_KEPT_SECONDS: Final = 2 * 3600
"""Longer than a host sends a report again that nobody has taken."""


class DirectLine:
    """Raises UnavailableError when Redis does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def send(self, tenant: str, host_id: str, document: dict[str, Any]) -> None:
        """Write an entry into a host's stream, as `docs/agent-protocol.md` describes it."""
        fields: dict[Any, Any] = {"b": wire.encode_host_entry(document)}
        async with _available():
            await self._redis.xadd(keys.tasks_stream(tenant, host_id), fields)

    async def listen(self, stream: str, after: str, wait_seconds: float) -> tuple[Sequence[wire.WireEvent], str]:
        """Reports behind that entry, and the id to go on from. What cannot be understood is logged and passed over."""
        async with _available():
            answer: Any = await self._redis.xread({stream: after}, count=READ_COUNT, block=int(wait_seconds * 1000))
        events: list[wire.WireEvent] = []
        for _, entries in answer or ():
            for entry_id, fields in entries:
                after = entry_id.decode()
                try:
                    events += wire.decode_report(fields).events
                except wire.WireError as error:
                    log.warning("direct.report_malformed", stream=stream, entry_id=after, error=str(error))
        return events, after

    async def let_expire(self, stream: str) -> None:
        async with _available():
            await self._redis.expire(stream, REPLIES_KEPT_SECONDS)


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    """The driver's errors as ours, and no cancellation lost in it, see `engine.events.hosts`."""
    task = asyncio.current_task()
    cancellations = 0 if task is None else task.cancelling()
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Redis does not answer: {type(error).__name__}: {error}") from error
    finally:
        if task is not None and task.cancelling() > cancellations:
            raise asyncio.CancelledError
