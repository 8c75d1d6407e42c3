"""Finishes what a crash left between PostgreSQL and Temporal.

- An acknowledged execution that Temporal never heard of is launched.
- An execution whose journal is ahead of Temporal's history and quiet gets a `catch_up` signal; so does every such one
  right after a start.
- An execution that Temporal says is over, without its own last tick (terminated by hand), is closed in PostgreSQL;
  so is one that can never be launched.
- An execution that Temporal lost is launched again: the journal brings it to where it was.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput
from engine.errors import EngineError, NotFoundError
from engine.observability.log import get_logger
from engine.plans import referenced_plan
from engine.ports import ExecutionStore, Launcher, MaintenanceStore, OpenExecution

log = get_logger(__name__)

PERIOD_SECONDS = 2.0
UNLAUNCHED_AFTER_SECONDS = 3.0
QUIET_SECONDS = 10.0
BATCH = 200
CLOSED_CHECK_EVERY = 5
"""Rounds between two comparisons of open executions with Temporal."""

SIGNAL_AGAIN_SECONDS = 10.0
SIGNAL_AGAIN_MAX_SECONDS = 600.0
"""While no worker runs, signals only fill the history: each waits twice as long as the one before."""


class Reconciler:
    """One at work for the whole deployment: the holder of the leader lock."""

    def __init__(self, maintenance: MaintenanceStore, executions: ExecutionStore, launcher: Launcher) -> None:
        self._maintenance = maintenance
        self._executions = executions
        self._launcher = launcher
        self._checked_up_to: UUID | None = None
        self._signalled: dict[UUID, tuple[float, float]] = {}
        """Execution -> when it may be signalled again, and how long after that once more."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self._maintenance.leader("reconciler") as leading:
                    if leading:
                        await self._lead()
            except EngineError as error:
                log.warning("reconciler.interrupted", error=str(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def _lead(self) -> None:
        rounds = 0
        await self.catch_up(quiet_seconds=0.0)
        while True:
            await self.finish_launches()
            await self.catch_up(quiet_seconds=QUIET_SECONDS)
            if rounds % CLOSED_CHECK_EVERY == 0:
                await self.close_what_temporal_closed(QUIET_SECONDS)
            rounds += 1
            await asyncio.sleep(PERIOD_SECONDS)

    async def finish_launches(self) -> None:
        for row in await self._maintenance.unlaunched(UNLAUNCHED_AFTER_SECONDS, BATCH):
            await self._launch(row, row.launch)

    async def catch_up(self, quiet_seconds: float) -> None:
        rows = await self._maintenance.behind(quiet_seconds, BATCH)
        now = time.monotonic()
        before, self._signalled = self._signalled, {}
        for row in rows:
            due_at, delay_seconds = before.get(row.execution_id, (now, SIGNAL_AGAIN_SECONDS))
            if now < due_at:
                self._signalled[row.execution_id] = (due_at, delay_seconds)
                continue
            longer_seconds = min(2 * delay_seconds, SIGNAL_AGAIN_MAX_SECONDS)
            self._signalled[row.execution_id] = (now + delay_seconds, longer_seconds)
            try:
                await self._launcher.signal(row.tenant, row.execution_id, "catch_up")
                log.info("reconciler.caught_up", execution_id=str(row.execution_id), tick=row.last_tick)
            except NotFoundError:
                await self._close(row)
            except EngineError as error:
                log.warning("reconciler.catch_up_failed", execution_id=str(row.execution_id), error=str(error))

    async def close_what_temporal_closed(self, quiet_seconds: float = 0.0) -> None:
        """One batch a time, round and round through all open executions that have been quiet for so long."""
        rows: Sequence[OpenExecution] = await self._maintenance.open_executions(self._checked_up_to, BATCH)
        self._checked_up_to = rows[-1].execution_id if len(rows) == BATCH else None
        quiet_since = datetime.now(UTC) - timedelta(seconds=quiet_seconds)
        for row in rows:
            if row.updated_at <= quiet_since:
                await self._close(row)

    async def _close(self, row: OpenExecution) -> None:
        try:
            status = await self._launcher.closed_status(row.tenant, row.execution_id)
        except NotFoundError:
            if row.last_tick > 0:
                # A restored backup, or its retention. Without a tick it is a launch to be finished.
                document = await self._maintenance.launch_document(row.tenant, row.execution_id)
                await self._launch(row, document)
            return
        except EngineError as error:
            log.warning("reconciler.check_failed", execution_id=str(row.execution_id), error=str(error))
            return
        if status is None:
            return
        final = ExecutionStatus.FAILED if status is ExecutionStatus.COMPLETED else status
        await self._end(row, final, "CLOSED_IN_TEMPORAL", f"Temporal closed the run as {status.value}")

    async def _launch(self, row: OpenExecution, document: dict[str, Any] | None) -> None:
        if document is not None and referenced_plan(document) is not None:
            document = await self._maintenance.launch_document(row.tenant, row.execution_id)
        if document is None:
            return
        execution_id = str(row.execution_id)
        try:
            await self._launcher.launch(ExecutionInput.model_validate(document))
            log.info("reconciler.launched", tenant=row.tenant, execution_id=execution_id)
        except ValidationError:
            # One such row must not keep all others from being looked after.
            log.error("reconciler.launch_document_malformed", tenant=row.tenant, execution_id=execution_id)
            message = "the execution's launch document is of another version of the engine: execute it again"
            await self._end(row, ExecutionStatus.FAILED, "LAUNCH_IMPOSSIBLE", message)
        except EngineError as error:
            log.warning("reconciler.launch_failed", execution_id=execution_id, error=str(error))
            if not error.transient:
                await self._end(row, ExecutionStatus.FAILED, error.code, error.message)

    async def _end(self, row: OpenExecution, status: ExecutionStatus, code: str, message: str) -> None:
        if await self._executions.close_from_outside(row.tenant, row.execution_id, status, code, message):
            log.warning("reconciler.closed", execution_id=str(row.execution_id), status=status.value, code=code)
