"""Counts executions ahead for lists, a tenant at a time, as seldom as it takes long."""

import asyncio
import time
from typing import Final

from engine.errors import EngineError
from engine.observability.log import get_logger
from engine.ports import StatisticsStore

log = get_logger(__name__)

PERIOD_SECONDS: Final = 30.0
SHARE_MAX: Final = 0.05
"""Of the time that may go into counting: a round that takes long is followed by a long pause."""
TENANTS_AT_ONCE: Final = 500
TENANTS_MAX: Final = 100_000


class StatisticsKeeper:
    """One at work for the whole deployment: the holder of the leader lock."""

    def __init__(self, store: StatisticsStore, period_seconds: float = PERIOD_SECONDS) -> None:
        self._store = store
        self._period_seconds = period_seconds

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = time.monotonic()
            try:
                async with self._store.leader("statistics") as leading:
                    if leading:
                        await self.refresh()
            except EngineError as error:
                log.warning("statistics.interrupted", error=str(error))
            spent = time.monotonic() - began
            await asyncio.sleep(max(self._period_seconds, spent / SHARE_MAX))

    async def refresh(self) -> int:
        """All tenants, once; one that fails (too much to count in a statement's time) leaves the others' alone."""
        after, refreshed = "", 0
        while refreshed < TENANTS_MAX:
            tenants = await self._store.tenants(after, TENANTS_AT_ONCE)
            for tenant in tenants:
                try:
                    await self._store.refresh(tenant)
                except EngineError as error:
                    log.warning("statistics.skipped", tenant=tenant, error=str(error))
            refreshed += len(tenants)
            if len(tenants) < TENANTS_AT_ONCE:
                break
            after = tenants[-1]
        return refreshed
