"""Deletes what is old, a little at a time.

- The journal of a closed execution, once Temporal has closed it too: until then its workflow may ask for its ticks.
- A closed execution with everything of it, and the plans that nothing refers to any more.
- Its events, with the partition of the audit log that they are in. Partitions are made here, too, ahead of time.
- Hosts that are gone, results kept for reuse, idempotency keys, the log of operations, records of hooks.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from engine.errors import EngineError, NotFoundError
from engine.observability.log import get_logger
from engine.ports import Launcher, RetentionStore
from engine.settings import Settings

log = get_logger(__name__)

PERIOD_SECONDS: Final = 600.0
BATCH_EXECUTIONS: Final = 50
BATCH_ROWS: Final = 1_000
PAUSE_SECONDS: Final = 0.2
"""Between two batches: whoever works on executions goes first."""
UNUSED_PLAN_DAYS: Final = 1.0
PARTITION_DAYS: Final = 7
PARTITION_DAYS_SHORT: Final = 1
"""Where little is kept: a partition is dropped when the youngest event in it is old enough, so the others stay as much
longer as the partition is wide. Never wider than the retention, after which an execution's id may be used again."""
SHORT_RETENTION_DAYS: Final = 14
PARTITIONS_AHEAD: Final = 4
BATCHES_MAX: Final = 1_000
"""In one round, of each kind."""


class Retention:
    """One at work for the whole deployment: the holder of the leader lock."""

    def __init__(self, store: RetentionStore, launcher: Launcher, settings: Settings) -> None:
        self._store = store
        self._launcher = launcher
        self._executions_days = settings.retention_days
        self._journal_days = min(settings.journal_retention_days, settings.retention_days)
        self._gone_host_days = settings.gone_host_retention_days
        self._reuse_days = settings.reuse_days
        self._idempotency_days = settings.idempotency_days
        self._operation_log_days = settings.operation_log_days
        self._hook_execution_days = settings.hook_execution_days

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self._store.leader("retention") as leading:
                    if leading:
                        await self.sweep()
            except EngineError as error:
                log.warning("retention.interrupted", error=str(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def sweep(self) -> None:
        """Once through everything."""
        await self._prepare_partitions()
        await self._delete_journals()
        await self._delete_executions()
        await self._drop_partitions()
        await self._delete_rows("plans", self._store.delete_unused_plans, UNUSED_PLAN_DAYS)
        await self._delete_rows("hosts", self._store.delete_gone_hosts, self._gone_host_days)
        await self._delete_rows("host_history", self._store.delete_host_history, self._gone_host_days)
        await self._delete_rows("cached_results", self._store.delete_cached_results, self._reuse_days)
        await self._delete_rows("idempotency_keys", self._store.delete_idempotency_keys, self._idempotency_days)
        await self._delete_rows("operations", self._store.delete_operations, self._operation_log_days)
        await self._delete_rows("hook_executions", self._store.delete_hook_executions, self._hook_execution_days)
        await self._delete_rows("hook_deliveries", self._store.delete_hook_deliveries, self._hook_execution_days)

    async def _prepare_partitions(self) -> None:
        days = PARTITION_DAYS if self._executions_days >= SHORT_RETENTION_DAYS else PARTITION_DAYS_SHORT
        made = await self._store.prepare_event_partitions(days, PARTITIONS_AHEAD)
        if made:
            log.info("retention.partitions_made", count=made, days=days)

    async def _drop_partitions(self) -> None:
        dropped, kept = await self._store.drop_event_partitions(self._executions_days)
        if dropped:
            log.info("retention.deleted", what="event_partitions", count=dropped, kept=kept)
        await self._delete_rows("events", self._store.delete_events_without_partition, self._executions_days)

    async def _delete_journals(self) -> None:
        """Past those that Temporal still holds open, without looking at the same ones twice in a round."""
        closed_from: datetime | None = None
        deleted = 0
        for _ in range(BATCHES_MAX):
            rows = await self._store.journals(self._journal_days, BATCH_EXECUTIONS, closed_from)
            kept = 0
            for tenant, execution_id, _ in rows:
                try:
                    over = await self._launcher.closed_status(tenant, execution_id) is not None
                except NotFoundError:
                    over = True
                if over:
                    await self._store.delete_journal(tenant, execution_id)
                    deleted += 1
                else:
                    kept += 1
                    log.warning("retention.open_in_temporal", tenant=tenant, execution_id=str(execution_id))
            if len(rows) < BATCH_EXECUTIONS or (kept == len(rows) and rows[-1][2] == closed_from):
                break
            closed_from = rows[-1][2]
            await asyncio.sleep(PAUSE_SECONDS)
        if deleted:
            log.info("retention.deleted", what="journals", count=deleted)

    async def _delete_executions(self) -> None:
        deleted = 0
        for _ in range(BATCHES_MAX):
            rows = await self._store.expired(self._executions_days, BATCH_EXECUTIONS)
            for tenant, execution_id in rows:
                await self._store.delete_execution(tenant, execution_id)
            deleted += len(rows)
            if len(rows) < BATCH_EXECUTIONS:
                break
            log.info("retention.progress", what="executions", count=deleted)
            await asyncio.sleep(PAUSE_SECONDS)
        if deleted:
            log.info("retention.deleted", what="executions", count=deleted)

    async def _delete_rows(
        self, what: str, delete: Callable[[float, int], Awaitable[int]], older_than_days: float
    ) -> None:
        deleted = 0
        for _ in range(BATCHES_MAX):
            count = await delete(older_than_days, BATCH_ROWS)
            deleted += count
            if count < BATCH_ROWS:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        if deleted:
            log.info("retention.deleted", what=what, count=deleted)
