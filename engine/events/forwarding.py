"""External events that come over a partition stream: each is a signal of its own, acknowledged once Temporal has it.

There are few of them, and order among them and agents' reports means nothing. So they wait for no tick: an event's id
makes it count once, however often it is signalled.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from redis.exceptions import RedisError

from engine.concurrency import end_all
from engine.contracts.dynamic import ExternalEvent
from engine.errors import EngineError, NotFoundError, UnavailableError
from engine.observability.log import get_logger
from engine.ports import Launcher, MaintenanceStore

log = get_logger(__name__)

UNDER_WAY_MAX: Final = 200
TRIES_MAX: Final = 5
TRY_AGAIN_SECONDS: Final = 1.0
SIGNAL_TIMEOUT_SECONDS: Final = 10.0

Acknowledge = Callable[[str, int, str], Awaitable[None]]
Bury = Callable[[str, int, str, str, int], Awaitable[None]]


class Forwarding:
    """What is under way in one bridge."""

    def __init__(self, launcher: Launcher, maintenance: MaintenanceStore, acknowledge: Acknowledge, bury: Bury) -> None:
        self._launcher = launcher
        self._maintenance = maintenance
        self._acknowledge = acknowledge
        self._bury = bury
        self._under_way: dict[tuple[str, int, str], asyncio.Task[None]] = {}

    def begin(self, tenant: str, execution_id: str, partition: int, entry_id: str, event: ExternalEvent) -> None:
        """Raises UnavailableError when too much is under way: the entry stays pending and is read again."""
        key = (tenant, partition, entry_id)
        if key in self._under_way:
            return
        if len(self._under_way) >= UNDER_WAY_MAX:
            raise UnavailableError("too many external events are under way")
        named = event if event.event_id else event.model_copy(update={"event_id": f"{partition}:{entry_id}"})
        task = asyncio.create_task(self._forward(key, execution_id, named), name=f"external-{entry_id}")
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key, None))

    async def stop(self) -> None:
        await end_all(list(self._under_way.values()))

    async def _forward(self, key: tuple[str, int, str], execution_id: str, event: ExternalEvent) -> None:
        unknown = 0
        while True:
            try:
                problem = await self._signal(key[0], execution_id, event)
                if problem is None:
                    await self._acknowledge(*key)
                    return
                unknown += 1
                if unknown >= TRIES_MAX:
                    await self._bury(*key, problem, unknown)
                    return
            except (EngineError, RedisError, OSError, TimeoutError) as error:
                log.warning("forwarding.interrupted", execution_id=execution_id, error=repr(error))
            await asyncio.sleep(TRY_AGAIN_SECONDS)

    async def _signal(self, tenant: str, execution_id: str, event: ExternalEvent) -> str | None:
        """None once Temporal has it; else why it cannot have it."""
        try:
            async with asyncio.timeout(SIGNAL_TIMEOUT_SECONDS):
                await self._launcher.signal(tenant, UUID(execution_id), "external_event", event)
        except NotFoundError:
            closed = await self._maintenance.is_closed(tenant, UUID(execution_id))
            if closed is None:
                return "no such execution"
            if closed:
                return "too late: the execution is closed"
            raise UnavailableError("its run has not begun") from None
        return None
