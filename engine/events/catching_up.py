"""Publishing what is missing beside the ticks: a little at once, much by and by.

A tick that finds that some facts of its execution are missing on the streams publishes them itself. When Redis has lost
everything, these are all that an execution has ever had: then the tick would wait for its whole history, and so would
each after it. What is more than one call carries is therefore left to a few workers of this process.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from engine.concurrency import run_together
from engine.errors import EngineError
from engine.events.facts import PACK_FACTS_MAX
from engine.observability.log import get_logger
from engine.ports import Published

log = get_logger(__name__)

AT_ONCE_MAX: Final = PACK_FACTS_MAX
WORKERS: Final = 4
WAITING_MAX: Final = 10_000
"""Executions. Others are noticed by their next tick, or by the sweep."""

RETRY_SECONDS: Final = 1.0


class Publisher(Protocol):
    async def catch_up(self, execution: Published, published: int) -> None: ...


class CatchingUp:
    """In the place of the publisher, for ticks."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: OrderedDict[tuple[str, str], tuple[Published, int]] = OrderedDict()
        self._under_way: set[tuple[str, str]] = set()
        self._news = asyncio.Event()

    async def catch_up(self, execution: Published, published: int) -> None:
        """Everything after that sequence, now or soon. Raises UnavailableError."""
        if execution.last_sequence - published <= AT_ONCE_MAX:
            await self._publisher.catch_up(execution, published)
            return
        key = (execution.tenant, str(execution.execution_id))
        if key in self._under_way or key in self._waiting:
            return
        if len(self._waiting) >= WAITING_MAX:
            log.warning("publications.too_many_behind", waiting=len(self._waiting))
            return
        self._waiting[key] = (execution, published)
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        workers: list[Callable[[], Awaitable[None]]] = [self._work for _ in range(WORKERS)]
        await run_together(workers)

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            key, (execution, published) = self._waiting.popitem(last=False)
            self._under_way.add(key)
            try:
                await self._publisher.catch_up(execution, published)
            except EngineError as error:
                # Its next tick brings it back, or the sweep.
                log.warning("publications.interrupted", execution_id=key[1], error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                self._under_way.discard(key)
