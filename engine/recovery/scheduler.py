"""Starts executions that wait for capacity, each when its turn comes.

Marking one as started is a change of its row, and launching it comes after: what a crash leaves between the two is
launched by the reconciler. Marking happens under the lock that `plan_execution` takes too, so that two schedulers, or a
scheduler and a request, never start more than fits.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from engine.contracts.capacity import CapacityLimits, CapacityUse, QueueState, Turn, Waiting
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput
from engine.errors import EngineError
from engine.observability.log import get_logger
from engine.plans import referenced_plan
from engine.ports import CapacityStore, ExecutionStore, Launcher, MaintenanceStore, OpenExecution
from engine.recovery.turns import Line, choose, line_of

log = get_logger(__name__)

WAITING_POLL_SECONDS: Final = 0.05
IDLE_POLL_SECONDS: Final = 0.25
"""While nobody waits. Who begins to wait meanwhile does so because nothing is free."""

STANDSTILL_SECONDS: Final = 1.0
"""Who could not start, cannot until something changes; but time passes, and those who wait move up."""

RETRY_SECONDS: Final = 2.0
BATCH: Final = 50
LAUNCHES_AT_ONCE: Final = 16
LAUNCH_TIMEOUT_SECONDS: Final = 5.0
RECOUNT_EVERY_SECONDS: Final = 60.0


class CapacityScheduler:
    """One at work for the whole deployment: the holder of the leader lock."""

    def __init__(
        self,
        capacity: CapacityStore,
        maintenance: MaintenanceStore,
        executions: ExecutionStore,
        launcher: Launcher,
        limits: CapacityLimits,
    ) -> None:
        self._capacity = capacity
        self._maintenance = maintenance
        self._executions = executions
        self._launcher = launcher
        self._limits = limits
        self._launches = asyncio.Semaphore(LAUNCHES_AT_ONCE)
        self._served: dict[Line, datetime] = {}
        """Of this process only: after a change of leader each line may go ahead once."""
        self._stood_still: tuple[CapacityUse, float] | None = None
        """When nobody could start, what was taken then, and when that was."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self._maintenance.leader("scheduler") as leading:
                    if leading:
                        await self._lead()
            except EngineError as error:
                log.warning("scheduler.interrupted", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _lead(self) -> None:
        recount_at = 0.0
        while True:
            if time.monotonic() >= recount_at:
                recount_at = time.monotonic() + RECOUNT_EVERY_SECONDS
                if await self._capacity.recount():
                    log.warning("scheduler.recounted")
            await asyncio.sleep(await self.round())

    async def round(self) -> float:
        """Start whoever can start; answers how many seconds later to look again."""
        totals = await self._capacity.totals()
        if not any(totals.waiting.values()):
            return IDLE_POLL_SECONDS
        if self._still_stands(totals):
            return WAITING_POLL_SECONDS
        started, impossible = await self._capacity.start_waiting(self._choose, BATCH)
        await self._launch_all(started)
        for item in impossible:
            await self._refuse(item)
        if not started and not impossible:
            self._stood_still = (totals, time.monotonic())
            return WAITING_POLL_SECONDS
        self._stood_still = None
        return 0.0 if len(started) == BATCH else WAITING_POLL_SECONDS

    def _choose(self, state: QueueState, most: int) -> Turn:
        turn = choose(state, self._limits, most, self._served)
        lines = {line_of(item) for item in state.waiting}
        self._served = {line: at for line, at in self._served.items() if line in lines}
        self._served |= {line_of(item): state.now for item in turn.start}
        return turn

    def _still_stands(self, totals: CapacityUse) -> bool:
        if self._stood_still is None:
            return False
        then, at = self._stood_still
        return totals == then and time.monotonic() - at < STANDSTILL_SECONDS

    async def _launch_all(self, rows: Sequence[OpenExecution]) -> None:
        async with asyncio.TaskGroup() as group:
            for row in rows:
                group.create_task(self._launch(row))

    async def _launch(self, row: OpenExecution) -> None:
        fields = {"tenant": row.tenant, "execution_id": str(row.execution_id)}
        document = row.launch
        try:
            if document is not None and referenced_plan(document) is not None:
                document = await self._maintenance.launch_document(row.tenant, row.execution_id)
            launch = ExecutionInput.model_validate(document)
            async with self._launches, asyncio.timeout(LAUNCH_TIMEOUT_SECONDS):
                await self._launcher.launch(launch)
            log.info("scheduler.started", **fields)
        except (EngineError, TimeoutError, ValueError) as error:
            # A document that does not parse is a ValueError: the reconciler ends the execution.
            log.warning("scheduler.launch_left_to_reconciler", error=repr(error), **fields)

    async def _refuse(self, item: Waiting) -> None:
        """The limits were lowered below what it takes since it was taken: it would wait for ever."""
        exceeded = "; ".join(item.demand.exceeding(self._limits.ceiling))
        message = f"the engine's capacity is below what its agents take: {exceeded}"
        closed = await self._executions.close_from_outside(
            item.tenant, item.execution_id, ExecutionStatus.FAILED, "RESOURCES_UNSATISFIABLE", message
        )
        if closed:
            log.warning("scheduler.refused", tenant=item.tenant, execution_id=str(item.execution_id), why=exceeded)
