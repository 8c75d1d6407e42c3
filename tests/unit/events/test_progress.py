"""Progress is coalesced: the newest of each task, in portions, and losing it harms nobody."""

import asyncio
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from engine.concurrency import end_all
from engine.contracts.events import AgentEventType
from engine.errors import UnavailableError
from engine.events import progress
from engine.events.feed import RedisFeed
from engine.events.progress import ProgressBoard
from engine.events.wire import WireEvent
from engine.ports import MaintenanceStore
from tests.fakes.streams import FakeClosings, until

EXECUTION = str(uuid4())


class FakeFeed:
    def __init__(self) -> None:
        self.nudges: list[tuple[str, str, dict[str, Any]]] = []

    async def nudge(self, tenant: str, execution_id: str, message: dict[str, Any]) -> None:
        self.nudges.append((tenant, execution_id, message))

    async def nudge_all(self, tenant: str, execution_id: str, messages: list[dict[str, Any]]) -> None:
        self.nudges += [(tenant, execution_id, message) for message in messages]


def report(task_id: str, value: float | None, attempt: int = 1) -> WireEvent:
    return WireEvent(
        type=AgentEventType.TASK_PROGRESS, at_ms=5, task_id=task_id, agent_id="w-1", attempt=attempt, progress=value
    )


def board() -> tuple[ProgressBoard, FakeClosings, FakeFeed]:
    store, feed = FakeClosings(), FakeFeed()
    return ProgressBoard(cast(MaintenanceStore, store), cast(RedisFeed, feed)), store, feed


async def test_the_newest_progress_of_each_task_is_written_and_told() -> None:
    notes, store, feed = board()
    notes.note("t", EXECUTION, report("a", 0.1))
    notes.note("t", EXECUTION, report("a", 0.4))
    notes.note("t", EXECUTION, report("b", None))
    notes.note("u", EXECUTION, report("a", 1.0, attempt=2))
    await notes.flush()
    execution_id = UUID(EXECUTION)
    assert store.progress == [("t", execution_id, "a", 1, 0.4), ("u", execution_id, "a", 2, 1.0)]
    message = {"task_id": "a", "agent_id": "w-1", "attempt": 1, "progress": 0.4, "at_ms": 5}
    assert feed.nudges[0] == ("t", EXECUTION, {"progress": message})
    await notes.flush()
    assert len(store.progress) == 2


async def test_much_progress_is_written_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WRITE_MAX", 10)
    notes, store, _ = board()
    for n in range(25):
        notes.note("t", EXECUTION, report(str(n), 0.5))
    await notes.flush()
    assert store.writes == 3
    assert len(store.progress) == 25


async def test_notes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "NOTES_MAX", 2)
    notes, store, _ = board()
    for n in range(5):
        notes.note("t", EXECUTION, report(str(n), 0.5))
    await notes.flush()
    assert len(store.progress) == 2


async def test_what_cannot_be_written_is_dropped_and_watchers_are_told_all_the_same() -> None:
    notes, store, feed = board()
    store.failure = UnavailableError("PostgreSQL does not answer")
    notes.note("t", EXECUTION, report("a", 0.5))
    await notes.flush()
    assert len(feed.nudges) == 1
    store.failure = None
    await notes.flush()
    assert store.progress == []


async def test_it_flushes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FLUSH_SECONDS", 0.01)
    notes, store, _ = board()
    running = asyncio.create_task(notes.run())
    notes.note("t", EXECUTION, report("a", 0.5))
    await until(lambda: store.progress)
    await end_all([running])


async def test_a_late_report_does_not_take_progress_back() -> None:
    notes, store, _ = board()
    late = ("a", 1, 1, 4, "w-1", 0.1)
    notes.note_all("t", EXECUTION, [("a", 1, 1, 9, "w-1", 0.9), late, ("a", 1, 1, 9, "w-1", 0.9), late])
    notes.note_all("t", EXECUTION, [("b", 1, 2, 1, "w-1", 0.2), ("b", 1, 1, 9, "w-1", 0.9)])
    await notes.flush()
    assert [(task, attempt, value) for _, _, task, attempt, value in store.progress] == [("a", 1, 0.9), ("b", 2, 0.2)]
