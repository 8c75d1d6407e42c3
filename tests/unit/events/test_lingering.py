"""Handing events to a tick that waits in this process, and to the one that follows it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch
from engine.events import lingering as lingering_module
from engine.events.lingering import Lingering


def batch(n: int, kind: AgentEventType = AgentEventType.TASK_COMPLETED) -> InboxBatch:
    event = AgentEvent(type=kind, at_ms=1, task_id=f"t{n}")
    return InboxBatch(entry_id=f"{n}-0", partition=0, fence=1, low="0-0", events=(event,))


def ids(batches: list[InboxBatch]) -> list[str]:
    return [item.entry_id for item in batches]


class Watched(Lingering):
    """Remembers what was abandoned."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str, list[str]]] = []
        self.event = asyncio.Event()
        self.abandoned = self.tell

    def tell(self, tenant: str, execution_id: str, entry_ids: list[str]) -> None:
        self.told.append((tenant, execution_id, entry_ids))
        self.event.set()

    def give_up_now(self) -> None:
        """As if `KEPT_SECONDS` were over."""
        for key, seat in list(self._seats.items()):
            assert seat.expiry is not None, "a seat that is in use is not given up"
            seat.expiry.cancel()
            self._give_up(key, seat)


@pytest.fixture
async def lingering() -> AsyncIterator[Watched]:
    watched = Watched()
    yield watched
    for seat in watched._seats.values():
        if seat.expiry is not None:
            seat.expiry.cancel()


async def test_nobody_waits_outside_the_seat(lingering: Watched) -> None:
    assert not lingering.hand_over("t", "x", batch(1))
    with lingering.open("t", "x"):
        assert not lingering.hand_over("t", "y", batch(1))
        assert not lingering.hand_over("u", "x", batch(1)), "another tenant's"
    assert not lingering.hand_over("t", "x", batch(1))


async def test_what_comes_ends_the_waiting_and_all_of_it_is_taken(lingering: Watched) -> None:
    with lingering.open("t", "x") as seat:
        waiting = asyncio.create_task(seat.collect(30.0))
        await asyncio.sleep(0)
        assert lingering.hand_over("t", "x", batch(1))
        assert lingering.hand_over("t", "x", batch(2))
        async with asyncio.timeout(2):
            assert ids(await waiting) == ["1-0", "2-0"]
        assert await seat.collect(0) == []


async def test_waiting_has_an_end(lingering: Watched) -> None:
    with lingering.open("t", "x") as seat:
        assert await seat.collect(0.01) == []


async def test_what_was_handed_over_before_is_taken_without_waiting(lingering: Watched) -> None:
    with lingering.open("t", "x") as seat:
        lingering.hand_over("t", "x", batch(1))
        assert len(await seat.collect(0)) == 1


async def test_a_start_alone_ends_no_waiting_but_is_taken_along(lingering: Watched) -> None:
    with lingering.open("t", "x") as seat:
        waiting = asyncio.create_task(seat.collect(30.0))
        lingering.hand_over("t", "x", batch(1, AgentEventType.TASK_STARTED))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        lingering.hand_over("t", "x", batch(2))
        async with asyncio.timeout(2):
            assert ids(await waiting) == ["1-0", "2-0"]


async def test_between_two_ticks_the_seat_takes_what_comes_for_the_second(lingering: Watched) -> None:
    with lingering.open("t", "x") as first:
        lingering.hand_over("t", "x", batch(1))
        await first.collect(0)
    assert lingering.hand_over("t", "x", batch(2)), "the tick that follows will take it"
    with lingering.open("t", "x") as second:
        second.covered(["1-0"])
        assert ids(await second.collect(0)) == ["2-0"]


async def test_a_seat_whose_results_are_covered_is_no_more(lingering: Watched) -> None:
    with lingering.open("t", "x") as first:
        lingering.hand_over("t", "x", batch(1))
        await first.collect(0)
    with lingering.open("t", "x") as second:
        second.covered(["1-0"])
    assert not lingering.hand_over("t", "x", batch(2))
    assert lingering.told == []


async def test_what_the_next_tick_does_not_cover_comes_again_once_and_before_what_is_new(lingering: Watched) -> None:
    with lingering.open("t", "x") as first:
        lingering.hand_over("t", "x", batch(1))
        lingering.hand_over("t", "x", batch(2))
        await first.collect(0)
    lingering.hand_over("t", "x", batch(3))
    with lingering.open("t", "x") as second:
        second.covered(["1-0"])
        async with asyncio.timeout(2):
            assert ids(await second.collect(30.0)) == ["2-0", "3-0"], "without waiting"
    with lingering.open("t", "x") as third:
        third.covered(["3-0"])
        assert await third.collect(0) == [], "now it goes by signal, when the bridge finds it overdue"
    assert not lingering.hand_over("t", "x", batch(4))


async def test_what_another_tick_consumed_meanwhile_is_not_returned(lingering: Watched) -> None:
    with lingering.open("t", "x") as seat:
        lingering.hand_over("t", "x", batch(1))
        seat.covered(["1-0"])
        assert await seat.collect(0) == []


async def test_a_failed_attempt_leaves_what_it_did_not_collect_to_the_next(lingering: Watched) -> None:
    attempt = lingering.open("t", "x")
    attempt.__enter__()
    lingering.hand_over("t", "x", batch(1))
    assert not attempt.__exit__(OSError, OSError("gone"), None)
    with lingering.open("t", "x") as seat:
        seat.covered([])
        assert ids(await seat.collect(0)) == ["1-0"]


async def test_what_no_tick_comes_for_is_given_up_and_told(lingering: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering_module, "KEPT_SECONDS", 0.01)
    with lingering.open("t", "x") as seat:
        lingering.hand_over("t", "x", batch(1))
        await seat.collect(0)
    lingering.hand_over("t", "x", batch(2))
    async with asyncio.timeout(5):
        await lingering.event.wait()
    assert lingering.told == [("t", "x", ["1-0", "2-0"])]
    assert not lingering.hand_over("t", "x", batch(3))


async def test_a_tick_in_time_keeps_the_seat(lingering: Watched) -> None:
    with lingering.open("t", "x") as first:
        lingering.hand_over("t", "x", batch(1))
        await first.collect(0)
    [seat] = lingering._seats.values()
    kept = seat.expiry
    assert kept is not None
    with lingering.open("t", "x") as second:
        assert kept.cancelled()
        assert second is first
        second.covered(["1-0"])
    lingering.give_up_now()
    assert lingering.told == []


async def test_what_was_told_is_not_returned_by_a_late_tick(lingering: Watched) -> None:
    """It is on its way by signal."""
    with lingering.open("t", "x") as first:
        lingering.hand_over("t", "x", batch(1))
        await first.collect(0)
    lingering.give_up_now()
    with lingering.open("t", "x") as late:
        late.covered([])
        assert await late.collect(0) == []
    assert lingering.told == [("t", "x", ["1-0"])]


async def test_two_attempts_share_the_seat_and_the_last_to_leave_closes_it(lingering: Watched) -> None:
    with lingering.open("t", "x") as first:
        outer = lingering.open("t", "x")
        second = outer.__enter__()
        assert second is first
    assert lingering.hand_over("t", "x", batch(1))
    assert ids(await second.collect(0)) == ["1-0"]
    second.covered(["1-0"])
    outer.__exit__(None, None, None)
    assert not lingering.hand_over("t", "x", batch(1))


async def test_executions_and_tenants_have_seats_of_their_own(lingering: Watched) -> None:
    with lingering.open("t", "x") as mine, lingering.open("u", "x") as other, lingering.open("t", "y") as third:
        lingering.hand_over("u", "x", batch(1))
        assert (await mine.collect(0), await third.collect(0)) == ([], [])
        other.covered([])
    lingering.give_up_now()
    assert lingering.told == [("u", "x", ["1-0"])]


async def test_without_a_bridge_nobody_need_be_told() -> None:
    quiet = Lingering()
    with quiet.open("t", "x"):
        quiet.hand_over("t", "x", batch(1))
    [(key, seat)] = quiet._seats.items()
    assert seat.expiry is not None
    seat.expiry.cancel()
    quiet._give_up(key, seat)
    assert quiet._seats == {}
