"""Rooms: many watchers of one execution cost one reading of its log, and each gets every message once, in order."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.contracts.execution import ExecutionStatus
from engine.errors import NotFoundError, UnavailableError
from gateway import watching
from gateway.messages import SNAPSHOT_TASKS_MAX, snapshot_message
from gateway.watching import Place, Room, Rooms
from tests.fakes.stores import FakeExecution, FakeExecutionStore, FakeFeed
from tests.fakes.streams import until
from tests.unit.gateway.conftest import Client, Gateway, settings_of


class CountingStore:
    """An ExecutionStore that counts how often the log is read."""

    def __init__(self, store: FakeExecutionStore) -> None:
        self.store = store
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def events(self, *arguments: Any, **named: Any) -> Any:
        self.reads += 1
        return await self.store.events(*arguments, **named)


@pytest.fixture
async def row(client: Client, gateway: Gateway) -> FakeExecution:
    return gateway.executions.row("default", UUID(await client.execution()))


@pytest.fixture
def store(gateway: Gateway) -> CountingStore:
    return CountingStore(gateway.executions)


@pytest.fixture
def rooms(store: CountingStore, gateway: Gateway) -> Rooms:
    return Rooms(store, gateway.feed)


async def sequences(place: Place, count: int) -> list[int]:
    """Until so many facts have come."""
    found: list[int] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += [m.sequence for m in await place.next(1.0) if m.sequence is not None]
    return found


async def test_a_thousand_watchers_read_the_log_as_often_as_one(
    rooms: Rooms, store: CountingStore, gateway: Gateway, row: FakeExecution
) -> None:
    async with AsyncExitStack() as stack:
        places = []
        for _ in range(1_000):
            room = await stack.enter_async_context(rooms.enter("default", row.execution_id))
            places.append(rooms.place(room, 2))
        await asyncio.sleep(0)
        before = store.reads
        for number in range(20):
            row.add_event("task.completed", {"task_id": f"t{number}"})
            gateway.feed.nudge("default", row.execution_id, {"sequence": number})
        found = await asyncio.gather(*(sequences(place, 20) for place in places))
        assert found == [list(range(3, 23))] * 1_000
        assert store.reads - before <= 22
        assert len(gateway.feed.watchers["default", row.execution_id]) == 1
    assert gateway.feed.watchers["default", row.execution_id] == []


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whoever_comes_and_stays_away_gets_each_message_once_in_order(data: st.DataObject) -> None:
    """However small the tail and the pages are, and however far behind somebody is."""

    async def run() -> None:
        gateway_store, feed, row = await _stage()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watching, "TAIL_MESSAGES_MAX", data.draw(st.integers(1, 6), "tail"))
            patch.setattr(watching, "EVENTS_PAGE", data.draw(st.integers(1, 6), "page"))
            rooms = Rooms(gateway_store, feed)
            async with rooms.enter("default", row.execution_id) as room:
                places = {start: rooms.place(room, start) for start in (0, 1, 5)}
                got: dict[int, list[int]] = {start: [] for start in places}
                steps: st.SearchStrategy[str | int] = st.sampled_from(["fact", "silent", "progress", *places])
                for step in data.draw(st.lists(steps, max_size=40), "steps"):
                    if isinstance(step, int):
                        got[step] += await _taken(places[step])
                        continue
                    if step == "fact":
                        row.add_event("task.completed", {"task_id": "t"})
                    elif step == "silent":
                        row.add_event("agent.task_started", {"task_id": "t"})
                    else:
                        feed.nudge("default", row.execution_id, {"progress": {"task_id": "t", "progress": 0.5}})
                    feed.nudge("default", row.execution_id, {"sequence": 1})
                    await _settled(room, row)
                row.change(ExecutionStatus.COMPLETED)
                feed.nudge("default", row.execution_id, {"sequence": 1})
                await _settled(room, row)
                for start, place in places.items():
                    while more := await _taken(place):
                        got[start] += more
        shown = [e.sequence for e in row.events if e.event_type != "agent.task_started"]
        assert got == {start: [n for n in shown if n > start] for start in places}

    asyncio.run(run())


async def _taken(place: Place) -> list[int]:
    """What there is now, after pages that hold nothing to show."""
    for _ in range(60):
        messages = await place.next(0)
        facts = [m.sequence for m in messages if m.sequence is not None]
        if facts:
            return facts
    return []


async def _settled(room: Room, row: FakeExecution) -> None:
    while room.sequence < len(row.events):  # noqa: ASYNC110 - a room tells its watchers only
        await asyncio.sleep(0)


async def _stage() -> tuple[FakeExecutionStore, FakeFeed, FakeExecution]:
    gateway = Gateway(settings_of())
    async with gateway.client() as http:
        execution_id = UUID(await Client(http).execution())
    return gateway.executions, gateway.feed, gateway.executions.row("default", execution_id)


async def test_progress_reaches_those_who_are_there(rooms: Rooms, gateway: Gateway, row: FakeExecution) -> None:
    async with rooms.enter("default", row.execution_id) as room:
        place = rooms.place(room, 2)
        assert await place.next(0) == []
        await until(lambda: gateway.feed.watchers.get(("default", row.execution_id)))
        gateway.feed.nudge("default", row.execution_id, {"progress": {"task_id": "a", "progress": 0.5}})
        [message] = await place.next(5) or await place.next(5)
        assert (message.kind, message.sequence) == ("task.progress_update", None)


async def test_a_snapshot_serves_all_who_come_at_once_and_says_up_to_where_it_goes(
    rooms: Rooms, gateway: Gateway, row: FakeExecution
) -> None:
    async with rooms.enter("default", row.execution_id) as room:
        first, second = await asyncio.gather(room.snapshot(), room.snapshot())
        assert first is second
        assert first.sequence == 2


async def test_a_snapshot_of_very_many_tasks_counts_them_only(gateway: Gateway, row: FakeExecution) -> None:
    view = await gateway.executions.status("default", row.execution_id)
    states = {f"t{n}": view.task_states["a"] for n in range(SNAPSHOT_TASKS_MAX + 1)}
    assert "task_states" not in snapshot_message(view.model_copy(update={"task_states": states}), 1)


async def test_a_store_that_is_away_is_told_to_all_and_the_next_room_is_a_new_one(
    rooms: Rooms, store: CountingStore, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("PostgreSQL does not answer")

    sound = gateway.executions.events
    monkeypatch.setattr(gateway.executions, "events", away)
    async with rooms.enter("default", row.execution_id) as room:
        place = rooms.place(room, 2)
        await until(lambda: room.failure)
        with pytest.raises(UnavailableError):
            await place.next(1)
        monkeypatch.setattr(gateway.executions, "events", sound)
        async with rooms.enter("default", row.execution_id) as another:
            assert another is not room
            assert await sequences(rooms.place(another, 0), 2) == [1, 2]


async def test_what_is_not_there_leaves_no_room(rooms: Rooms) -> None:
    with pytest.raises(NotFoundError):
        async with rooms.enter("default", uuid4()):
            pass
    assert (rooms._rooms, rooms._opening) == ({}, {})
