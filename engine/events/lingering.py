"""Handing events to a tick that waits for them in this process.

After a tick's assignments are out, its activity waits a moment for their results. Fast tasks then cost Temporal
nothing: no signal, no further workflow task. A tick that returns results is followed by another one at once, so its
seat stays open in between: what arrives meanwhile waits there for the next tick.

What a seat has returned counts as received, not as consumed. When the next tick's commit does not cover it, the
workflow never saw it (its workflow task failed), and the seat returns it once more. When no further tick comes, the
bridge is told and sends signals.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from engine.contracts.events import AgentEventType, InboxBatch

KEPT_SECONDS = 0.5
"""How long a seat waits for the tick that follows its results."""

Abandoned = Callable[[str, str, list[str]], None]
"""Told (tenant, execution, entries) of what no tick came for."""


class Seat:
    """One execution's place: what has come for its next tick, and what its last one took along."""

    def __init__(self) -> None:
        self.ticks = 0
        """Activities that have it open; two when one was given up and tried again."""
        self.expiry: asyncio.TimerHandle | None = None
        self._waiting: dict[str, InboxBatch] = {}
        self._returned: dict[str, InboxBatch] = {}
        self._again: set[str] = set()
        self._arrived = asyncio.Event()

    def put(self, batch: InboxBatch) -> None:
        self._waiting[batch.entry_id] = batch
        if any(event.type is not AgentEventType.TASK_STARTED for event in batch.events):
            self._arrived.set()

    def covered(self, entry_ids: Iterable[str]) -> None:
        """A tick was committed that consumed these. What was returned before and is not among them got lost."""
        for entry_id in entry_ids:
            self._returned.pop(entry_id, None)
            self._waiting.pop(entry_id, None)
            self._again.discard(entry_id)
        lost = {entry_id: batch for entry_id, batch in self._returned.items() if entry_id not in self._again}
        self._returned = {}
        if lost:
            self._again.update(lost)
            self._waiting = {**lost, **self._waiting}
            self._arrived.set()

    async def collect(self, wait_seconds: float) -> list[InboxBatch]:
        """What has come, after waiting for the first at most that long; without waiting when it is 0."""
        if wait_seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._arrived.wait()
        self._arrived.clear()
        taken, self._waiting = self._waiting, {}
        self._returned.update(taken)
        return list(taken.values())

    @property
    def uncovered(self) -> list[str]:
        return [*self._returned, *self._waiting]


class Lingering:
    """The seats of this process, by tenant and execution: no tenant's agents reach another's ticks."""

    def __init__(self) -> None:
        self._seats: dict[tuple[str, str], Seat] = {}
        self.abandoned: Abandoned = _nobody_listens

    @contextmanager
    def open(self, tenant: str, execution_id: str) -> Iterator[Seat]:
        """Take the seat before the assignments go out, so that no result can come too early."""
        key = (tenant, execution_id)
        seat = self._seats.get(key)
        if seat is None:
            seat = self._seats[key] = Seat()
        if seat.expiry is not None:
            seat.expiry.cancel()
            seat.expiry = None
        seat.ticks += 1
        try:
            yield seat
        finally:
            seat.ticks -= 1
            if seat.ticks == 0:
                self._leave(key, seat)

    def hand_over(self, tenant: str, execution_id: str, batch: InboxBatch) -> bool:
        """True when a tick took it, or will. It counts as received, not as consumed."""
        seat = self._seats.get((tenant, execution_id))
        if seat is None:
            return False
        seat.put(batch)
        return True

    def _leave(self, key: tuple[str, str], seat: Seat) -> None:
        if not seat.uncovered:
            del self._seats[key]
            return
        seat.expiry = asyncio.get_running_loop().call_later(KEPT_SECONDS, self._give_up, key, seat)

    def _give_up(self, key: tuple[str, str], seat: Seat) -> None:
        del self._seats[key]
        self.abandoned(*key, seat.uncovered)


def _nobody_listens(tenant: str, execution_id: str, entry_ids: list[str]) -> None:
    """Without a bridge in this process nothing is ever handed over."""
