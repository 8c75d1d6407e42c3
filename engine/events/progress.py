"""Progress of tasks: coalesced, so that it costs the database one statement now and then, not one a report."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from engine.errors import EngineError
from engine.events.feed import RedisFeed
from engine.events.wire import WireEvent
from engine.observability.log import get_logger
from engine.ports import MaintenanceStore

log = get_logger(__name__)

FLUSH_SECONDS: Final = 0.25
SHARE_MAX: Final = 0.1
"""Of the time that may go into writing: where that takes longer, it is done less often."""
NOTES_MAX: Final = 50_000
WRITE_MAX: Final = 5_000

ProgressNote = tuple[str, int, int, int, str, float]
"""(task, epoch, attempt, at_ms, agent, progress). In this order, of two notes of a task the larger is the newer."""


class ProgressBoard:
    """The newest progress of each running attempt. Losing some is allowed: progress is no fact."""

    def __init__(self, store: MaintenanceStore, feed: RedisFeed) -> None:
        self._store = store
        self._feed = feed
        self._notes: dict[tuple[str, str], dict[str, ProgressNote]] = {}
        self._count = 0

    def note(self, tenant: str, execution_id: str, event: WireEvent) -> None:
        if event.progress is not None:
            note = (event.task_id, event.epoch, event.attempt, event.at_ms, event.agent_id, event.progress)
            self.note_all(tenant, execution_id, [note])

    def note_all(self, tenant: str, execution_id: str, notes: Iterable[ProgressNote]) -> None:
        """Reports may come late or twice: the newest stands, whatever the order."""
        known = self._notes.get((tenant, execution_id))
        if known is None:
            known = self._notes[(tenant, execution_id)] = {}
        for note in notes:
            task_id = note[0]
            before = known.get(task_id)
            if before is None:
                if self._count < NOTES_MAX:
                    self._count += 1
                    known[task_id] = note
            elif note[1:4] >= before[1:4]:
                known[task_id] = note

    async def run(self) -> None:
        pause_seconds = FLUSH_SECONDS
        while True:
            await asyncio.sleep(pause_seconds)
            began = time.monotonic()
            await self.flush()
            pause_seconds = max(FLUSH_SECONDS, (time.monotonic() - began) / SHARE_MAX)

    async def flush(self) -> None:
        notes, self._notes, self._count = self._notes, {}, 0
        by_tenant: dict[str, list[tuple[UUID, str, int, float]]] = {}
        for (tenant, execution_id), tasks in notes.items():
            written, known_as = by_tenant.setdefault(tenant, []), UUID(execution_id)
            written.extend((known_as, note[0], note[2], note[5]) for note in tasks.values())
        for tenant, updates in by_tenant.items():
            for first in range(0, len(updates), WRITE_MAX):
                try:
                    await self._store.write_progress(tenant, updates[first : first + WRITE_MAX])
                except EngineError as error:
                    log.warning("progress.not_written", error=str(error))
        for (tenant, execution_id), tasks in notes.items():
            await self._feed.nudge_all(tenant, execution_id, [{"progress": _message(note)} for note in tasks.values()])


def _message(note: ProgressNote) -> dict[str, Any]:
    task_id, _, attempt, at_ms, agent_id, progress = note
    return {"task_id": task_id, "agent_id": agent_id, "attempt": attempt, "progress": progress, "at_ms": at_ms}
