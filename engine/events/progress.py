"""Progress of tasks: coalesced, so that it costs the database one statement a quarter of a second, not one a report."""

import asyncio
from uuid import UUID

from engine.errors import EngineError
from engine.events.feed import RedisFeed
from engine.events.wire import WireEvent
from engine.observability.log import get_logger
from engine.ports import MaintenanceStore

log = get_logger(__name__)

FLUSH_SECONDS = 0.25
NOTES_MAX = 50_000
WRITE_MAX = 5_000


class ProgressBoard:
    """The newest progress of each running attempt. Losing some is allowed: progress is no fact."""

    def __init__(self, store: MaintenanceStore, feed: RedisFeed) -> None:
        self._store = store
        self._feed = feed
        self._notes: dict[tuple[str, str, str], WireEvent] = {}

    def note(self, tenant: str, execution_id: str, event: WireEvent) -> None:
        if event.progress is not None and len(self._notes) < NOTES_MAX:
            self._notes[(tenant, execution_id, event.task_id)] = event

    async def run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        notes, self._notes = self._notes, {}
        by_tenant: dict[str, list[tuple[UUID, str, int, float]]] = {}
        for (tenant, execution_id, task_id), event in notes.items():
            update = (UUID(execution_id), task_id, event.attempt, event.progress or 0.0)
            by_tenant.setdefault(tenant, []).append(update)
        for tenant, updates in by_tenant.items():
            for first in range(0, len(updates), WRITE_MAX):
                try:
                    await self._store.write_progress(tenant, updates[first : first + WRITE_MAX])
                except EngineError as error:
                    log.warning("progress.not_written", error=str(error))
        for (tenant, execution_id, task_id), event in notes.items():
            message = {
                "task_id": task_id,
                "agent_id": event.agent_id,
                "attempt": event.attempt,
                "progress": event.progress,
                "at_ms": event.at_ms,
            }
            await self._feed.nudge(tenant, execution_id, {"progress": message})
