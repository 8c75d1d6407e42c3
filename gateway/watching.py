"""What watchers of one execution share: one subscription and one reading of its log, however many they are.

A room holds the newest messages of one execution, each encoded once. Who is near the end takes them from there; who is
further behind reads the log, a page at a time, until it is near enough. What is sent is always the log, in order: the
feed only says when to look, so that a watcher that comes back with the last sequence it has misses nothing and gets
nothing twice.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

import structlog

from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.views import ExecutionEvent, ExecutionView
from engine.errors import EngineError
from engine.ports import ExecutionFeed, ExecutionStore
from gateway.messages import message_of, progress_message, snapshot_message
from gateway.operations.nudges import nudges_of

EVENTS_PAGE: Final = 500
TAIL_MESSAGES_MAX: Final = 2_000
TAIL_BYTES_MAX: Final = 8 * 1024 * 1024
POLL_SECONDS: Final = 1.0
STATUS_EVERY_SECONDS: Final = 10.0
SNAPSHOT_SECONDS: Final = 1.0
"""A snapshot serves everybody who comes within this."""

READERS_MAX: Final = 8
"""Watchers of this process that read the log by themselves at the same time: connections are few."""

SNAPSHOT: Final = "workflow.snapshot"

CLOSING_SECONDS: Final = 0.5
"""A room that saw its execution end stays so long, for what hooks still report of it."""


class Told(NamedTuple):
    """One message. Progress has no sequence: it is no fact."""

    kind: str
    sequence: int | None
    text: str


class Room:
    """The watchers of one execution in this process."""

    def __init__(self, executions: ExecutionStore, tenant: str, execution_id: UUID) -> None:
        self._executions = executions
        self._tenant = tenant
        self._execution_id = execution_id
        self.watchers = 0
        self.sequence = 0
        """Up to which the log has been read."""
        self.reaches_back_to = 0
        """The tail has every message behind this sequence."""
        self.count = 0
        """Messages that there have been in the tail."""
        self.tail: deque[Told] = deque()
        self._tail_bytes = 0
        self._closed = False
        self._ends_at: float | None = None
        self._news = asyncio.Event()
        self._looked_at = 0.0
        self.failure: Exception | None = None
        self._snapshot: tuple[float, Told] | None = None
        self._snapshot_lock = asyncio.Lock()

    @property
    def finished(self) -> bool:
        """Closed, and nothing more is to be expected."""
        return self._ends_at is not None and time.monotonic() >= self._ends_at

    async def open(self) -> None:
        """Begin at the end of the log. Raises EngineError."""
        sequence = await self._executions.last_sequence(self._tenant, self._execution_id)
        view = await self._executions.status(self._tenant, self._execution_id, include_tasks=False)
        if view.status.closed:
            # Once more: it may have ended between the two.
            sequence = await self._executions.last_sequence(self._tenant, self._execution_id)
            self._closed, self._ends_at = True, time.monotonic()
        self.sequence = self.reaches_back_to = sequence
        self._looked_at = time.monotonic()

    async def run(self, feed: ExecutionFeed) -> None:
        """Follow the log until it is finished, or cancelled."""
        try:
            async with nudges_of(feed, self._tenant, self._execution_id) as nudges:
                while not self.finished:
                    behind = await self._read()
                    self._add(
                        [Told("task.progress_update", None, progress_message(self._execution_id, item))
                         for item in nudges.take_progress()]
                    )  # fmt: skip
                    if not behind and not self.finished:
                        await nudges.wait(self._patience_seconds())
        except EngineError as error:
            self.failure = error
        self._tell()

    def fail(self, error: Exception) -> None:
        self.failure = error
        self._tell()

    async def wait(self, timeout_seconds: float) -> None:
        """Until there is news, or the time is over."""
        news = self._news
        try:
            async with asyncio.timeout(timeout_seconds):
                await news.wait()
        except TimeoutError:
            return

    async def snapshot(self) -> Told:
        """The status, with the sequence up to which it certainly holds everything."""
        async with self._snapshot_lock:
            now = time.monotonic()
            if self._snapshot is None or now - self._snapshot[0] > SNAPSHOT_SECONDS:
                sequence = await self._executions.last_sequence(self._tenant, self._execution_id)
                view: ExecutionView = await self._executions.status(self._tenant, self._execution_id)
                text = await asyncio.to_thread(snapshot_message, view, sequence)
                self._snapshot = (now, Told(SNAPSHOT, sequence, text))
            return self._snapshot[1]

    async def _read(self) -> bool:
        events, behind = await self._executions.events(
            self._tenant, self._execution_id, after_sequence=self.sequence, limit=EVENTS_PAGE
        )
        for event in events:
            if event.event_type == AuditEventType.STATUS_CHANGED and closes(event):
                self._closed, self._ends_at = True, time.monotonic() + CLOSING_SECONDS
        if events:
            self.sequence = events[-1].sequence
            self._add(told(self._execution_id, events))
        elif not self._closed:
            await self._look_at_status()
        return behind

    async def _look_at_status(self) -> None:
        """The log says it too; but not to a room that began behind it."""
        if time.monotonic() - self._looked_at < STATUS_EVERY_SECONDS:
            return
        self._looked_at = time.monotonic()
        view = await self._executions.status(self._tenant, self._execution_id, include_tasks=False)
        if view.status.closed:
            self._closed, self._ends_at = True, time.monotonic() + CLOSING_SECONDS

    def _patience_seconds(self) -> float:
        return POLL_SECONDS if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def _add(self, messages: Sequence[Told]) -> None:
        for message in messages:
            self.tail.append(message)
            self._tail_bytes += len(message.text)
            self.count += 1
            while len(self.tail) > TAIL_MESSAGES_MAX or (self._tail_bytes > TAIL_BYTES_MAX and len(self.tail) > 1):
                dropped = self.tail.popleft()
                self._tail_bytes -= len(dropped.text)
                if dropped.sequence is not None:
                    self.reaches_back_to = dropped.sequence
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Place:
    """Where one watcher stands."""

    def __init__(self, room: Room, rooms: "Rooms", after: int) -> None:
        self._room = room
        self._rooms = rooms
        self.sequence = after
        self._seen: int | None = None
        """How many messages of the room's tail there had been when it took some; None while it reads by itself."""

    @property
    def finished(self) -> bool:
        return self._room.finished and self.sequence >= self._room.sequence

    async def next(self, timeout_seconds: float) -> list[Told]:
        """The messages that come next; none when there are none in that time. Raises EngineError."""
        room = self._room
        if room.failure is not None:
            raise room.failure
        if self._seen is not None and room.count - self._seen > len(room.tail):
            self._seen = None  # so much has come that the tail has lost some of it
        if self._seen is None and self.sequence < room.reaches_back_to:
            return await self._rooms.read(room, self)
        if self._seen is None or self._seen < room.count:
            return self._take()
        if not self.finished:
            await room.wait(timeout_seconds)
        return []

    def _take(self) -> list[Told]:
        """From the tail: what it has not seen, or, when it has read by itself until now, what is behind its sequence.
        Progress of before it came is nothing to it."""
        room = self._room
        follows = self._seen is not None
        first = 0 if self._seen is None else len(room.tail) - (room.count - self._seen)
        taken = [m for m in islice(room.tail, first, None)
                 if (follows if m.sequence is None else m.sequence > self.sequence)]  # fmt: skip
        self._seen = room.count
        self.sequence = max(self.sequence, room.sequence)
        return taken


class Rooms:
    """All rooms of this process."""

    def __init__(self, executions: ExecutionStore, feed: ExecutionFeed) -> None:
        self._executions = executions
        self._feed = feed
        self._rooms: dict[tuple[str, UUID], tuple[Room, asyncio.Task[None]]] = {}
        self._opening: dict[tuple[str, UUID], asyncio.Lock] = {}
        self._readers = asyncio.Semaphore(READERS_MAX)
        self._logger = structlog.get_logger("gateway.watching")

    @asynccontextmanager
    async def enter(self, tenant: str, execution_id: UUID) -> AsyncIterator[Room]:
        """The execution's room; the last who leaves closes it. Raises EngineError."""
        key = (tenant, execution_id)
        lock = self._opening.setdefault(key, asyncio.Lock())
        async with lock:
            entry = self._rooms.get(key)
            if entry is None or entry[1].done():
                room = Room(self._executions, tenant, execution_id)
                try:
                    await room.open()
                except BaseException:
                    if entry is None:
                        self._opening.pop(key, None)
                    raise
                entry = self._rooms[key] = (room, asyncio.create_task(self._run(room), name="watching-room"))
            room, running = entry
            room.watchers += 1
        try:
            yield room
        finally:
            room.watchers -= 1
            if room.watchers == 0:
                if self._rooms.get(key) == (room, running):
                    del self._rooms[key]
                    self._opening.pop(key, None)
                running.cancel()
                await asyncio.wait({running})

    def place(self, room: Room, after: int) -> Place:
        return Place(room, self, after)

    async def read(self, room: Room, place: Place) -> list[Told]:
        """A page of the log for one who is behind the room's tail."""
        async with self._readers:
            events, _ = await self._executions.events(
                room._tenant, room._execution_id, after_sequence=place.sequence, limit=EVENTS_PAGE
            )
        if not events:
            place.sequence = room.reaches_back_to
            return []
        place.sequence = events[-1].sequence
        return told(room._execution_id, events)

    async def _run(self, room: Room) -> None:
        try:
            await room.run(self._feed)
        except Exception as error:
            # The end of this room: its watchers are told, and whoever comes next opens another.
            self._logger.exception("room_failed")
            room.fail(error)


def closes(event: ExecutionEvent) -> bool:
    return ExecutionStatus(event.payload["new_status"]).closed


def told(execution_id: UUID, events: Sequence[ExecutionEvent]) -> list[Told]:
    """The facts that have a message."""
    messages = []
    for event in events:
        message = message_of(execution_id, event)
        if message is not None:
            kind, text = message
            messages.append(Told(kind, event.sequence, text))
    return messages
