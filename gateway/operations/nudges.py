"""Waiting for something to happen to an execution without asking the database all the time.

The feed only says that there may be news; it may lose that, and its server may be away. So whoever waits also
looks at the store now and then.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import structlog

from engine.ports import ExecutionFeed

SUBSCRIBE_TIMEOUT_SECONDS: Final = 1.0
RESUBSCRIBE_AFTER_SECONDS: Final = 1.0
PROGRESS_PENDING_MAX: Final = 1_000
"""Tasks whose progress is kept for a slow reader: the latest of each, the oldest task is dropped first."""


class Nudges:
    """What the feed has said and nobody has taken yet."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._progress: OrderedDict[str, dict[str, Any]] = OrderedDict()

    async def wait(self, timeout_seconds: float) -> None:
        """Until there may be news, or the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()

    def take_progress(self) -> list[dict[str, Any]]:
        taken = list(self._progress.values())
        self._progress.clear()
        return taken

    def put(self, nudge: dict[str, Any]) -> None:
        progress = nudge.get("progress")
        if isinstance(progress, dict):
            task_id = str(progress.get("task_id", ""))
            self._progress[task_id] = progress
            self._progress.move_to_end(task_id)
            while len(self._progress) > PROGRESS_PENDING_MAX:
                self._progress.popitem(last=False)
        self._news.set()


@asynccontextmanager
async def nudges_of(feed: ExecutionFeed, tenant: str, execution_id: UUID) -> AsyncIterator[Nudges]:
    """Subscribed when it yields, unless the feed is away."""
    nudges, tried = Nudges(), asyncio.Event()
    pump = asyncio.create_task(_pump(feed, tenant, execution_id, nudges, tried), name="execution-feed")
    try:
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT_SECONDS):
                await tried.wait()
        except TimeoutError:
            structlog.get_logger("gateway.nudges").warning("feed_not_answering", execution_id=str(execution_id))
        yield nudges
    finally:
        pump.cancel()
        await asyncio.wait({pump})


async def _pump(feed: ExecutionFeed, tenant: str, execution_id: UUID, nudges: Nudges, tried: asyncio.Event) -> None:
    logger = structlog.get_logger("gateway.nudges")
    while True:
        try:
            async with feed.subscribe(tenant, execution_id) as news:
                tried.set()
                async for nudge in news:
                    nudges.put(nudge)
        except Exception as error:
            # The end of this task's work, whatever the feed's client raised: readers go on by asking the store.
            logger.warning("feed_lost", execution_id=str(execution_id), error=repr(error))
        tried.set()
        await asyncio.sleep(RESUBSCRIBE_AFTER_SECONDS)
