"""Handing events to a tick that waits for them in this process.

After a tick's assignments are out, its activity waits a moment for their results. Fast tasks then cost Temporal
nothing: no signal, no further workflow task.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from engine.contracts.events import InboxBatch


class Seat:
    """One waiting tick."""

    def __init__(self) -> None:
        self._batches: list[InboxBatch] = []
        self._arrived = asyncio.Event()

    def put(self, batch: InboxBatch) -> None:
        self._batches.append(batch)
        self._arrived.set()

    async def collect(self, wait_seconds: float) -> list[InboxBatch]:
        """What has come, after waiting for the first at most that long; without waiting when it is 0."""
        if wait_seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._arrived.wait()
        taken, self._batches = self._batches, []
        return taken


class Lingering:
    """The waiting ticks of this process, by tenant and execution: no tenant's agents reach another's ticks."""

    def __init__(self) -> None:
        self._seats: dict[tuple[str, str], Seat] = {}

    @contextmanager
    def open(self, tenant: str, execution_id: str) -> Iterator[Seat]:
        """Take a seat before the assignments go out, so that no result can come too early."""
        seat = Seat()
        key = (tenant, execution_id)
        self._seats[key] = seat
        try:
            yield seat
        finally:
            if self._seats.get(key) is seat:
                del self._seats[key]

    def hand_over(self, tenant: str, execution_id: str, batch: InboxBatch) -> bool:
        """True when a tick took it. It counts as received, not as consumed."""
        seat = self._seats.get((tenant, execution_id))
        if seat is None:
            return False
        seat.put(batch)
        return True
