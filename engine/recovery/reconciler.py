"""Finishes what a crash left between PostgreSQL and Temporal.

- An acknowledged execution that Temporal never heard of is launched.
- An execution whose journal is ahead of Temporal's history and quiet gets a `catch_up` signal; so does every such one
  right after a start.
- An execution that Temporal says is over, without its own last tick (terminated by hand), is closed in PostgreSQL.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput
from engine.errors import EngineError, NotFoundError
from engine.observability.log import get_logger
from engine.ports import ExecutionStore, Launcher, MaintenanceStore, OpenExecution

log = get_logger(__name__)

PERIOD_SECONDS = 2.0
UNLAUNCHED_AFTER_SECONDS = 3.0
QUIET_SECONDS = 10.0
BATCH = 200
CLOSED_CHECK_EVERY = 5
"""Rounds between two comparisons of open executions with Temporal."""


class Reconciler:
    """One at work for the whole deployment: the holder of the leader lock."""

    def __init__(self, maintenance: MaintenanceStore, executions: ExecutionStore, launcher: Launcher) -> None:
        self._maintenance = maintenance
        self._executions = executions
        self._launcher = launcher
        self._checked_up_to: UUID | None = None

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
                await self.close_what_temporal_closed()
            rounds += 1
            await asyncio.sleep(PERIOD_SECONDS)

    async def finish_launches(self) -> None:
        for row in await self._maintenance.unlaunched(UNLAUNCHED_AFTER_SECONDS, BATCH):
            if row.launch is None:
                continue
            try:
                await self._launcher.launch(ExecutionInput.model_validate(row.launch))
                log.info("reconciler.launched", tenant=row.tenant, execution_id=str(row.execution_id))
            except EngineError as error:
                log.warning("reconciler.launch_failed", execution_id=str(row.execution_id), error=str(error))

    async def catch_up(self, quiet_seconds: float) -> None:
        for row in await self._maintenance.behind(quiet_seconds, BATCH):
            try:
                await self._launcher.signal(row.tenant, row.execution_id, "catch_up")
                log.info("reconciler.caught_up", execution_id=str(row.execution_id), tick=row.last_tick)
            except NotFoundError:
                await self._close(row)
            except EngineError as error:
                log.warning("reconciler.catch_up_failed", execution_id=str(row.execution_id), error=str(error))

    async def close_what_temporal_closed(self) -> None:
        """One batch a time, round and round through all open executions."""
        rows: Sequence[OpenExecution] = await self._maintenance.open_executions(self._checked_up_to, BATCH)
        self._checked_up_to = rows[-1].execution_id if len(rows) == BATCH else None
        for row in rows:
            if row.last_tick > 0:
                await self._close(row)

    async def _close(self, row: OpenExecution) -> None:
        try:
            status = await self._launcher.closed_status(row.tenant, row.execution_id)
        except NotFoundError:
            # Temporal lost it (a restored backup, its retention): the launch document starts it again, and the
            # journal brings it to where it was.
            await self._launch_again(row)
            return
        except EngineError as error:
            log.warning("reconciler.check_failed", execution_id=str(row.execution_id), error=str(error))
            return
        if status is None:
            return
        final = ExecutionStatus.FAILED if status is ExecutionStatus.COMPLETED else status
        done = await self._executions.close_from_outside(
            row.tenant, row.execution_id, final, "CLOSED_IN_TEMPORAL", f"Temporal closed the run as {status.value}"
        )
        if done:
            log.warning("reconciler.closed", execution_id=str(row.execution_id), status=final.value)

    async def _launch_again(self, row: OpenExecution) -> None:
        if row.launch is None:
            return
        try:
            await self._launcher.launch(ExecutionInput.model_validate(row.launch))
        except EngineError as error:
            log.warning("reconciler.launch_failed", execution_id=str(row.execution_id), error=str(error))
