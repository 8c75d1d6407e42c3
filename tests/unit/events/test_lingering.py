"""Handing events to a tick that waits in this process."""

import asyncio

from engine.contracts.events import InboxBatch
from engine.events.lingering import Lingering


def batch(n: int) -> InboxBatch:
    return InboxBatch(entry_id=f"{n}-0", partition=0, fence=1, low="0-0", events=())


async def test_nobody_waits_outside_the_seat() -> None:
    lingering = Lingering()
    assert not lingering.hand_over("t", "x", batch(1))
    with lingering.open("t", "x"):
        assert not lingering.hand_over("t", "y", batch(1))
        assert not lingering.hand_over("u", "x", batch(1)), "another tenant's"
    assert not lingering.hand_over("t", "x", batch(1))


async def test_what_comes_ends_the_waiting_and_all_of_it_is_taken() -> None:
    lingering = Lingering()
    with lingering.open("t", "x") as seat:
        waiting = asyncio.create_task(seat.collect(30.0))
        await asyncio.sleep(0)
        assert lingering.hand_over("t", "x", batch(1))
        assert lingering.hand_over("t", "x", batch(2))
        async with asyncio.timeout(2):
            assert [b.entry_id for b in await waiting] == ["1-0", "2-0"]
        assert await seat.collect(0) == []


async def test_waiting_has_an_end() -> None:
    with Lingering().open("t", "x") as seat:
        assert await seat.collect(0.01) == []


async def test_what_was_handed_over_before_is_taken_without_waiting() -> None:
    lingering = Lingering()
    with lingering.open("t", "x") as seat:
        lingering.hand_over("t", "x", batch(1))
        assert len(await seat.collect(0)) == 1


async def test_a_second_seat_takes_the_place_and_the_first_does_not_take_it_away() -> None:
    lingering = Lingering()
    with lingering.open("t", "x"):
        outer = lingering.open("t", "x")
        second = outer.__enter__()
    assert lingering.hand_over("t", "x", batch(1))
    assert len(await second.collect(0)) == 1
    outer.__exit__(None, None, None)
    assert not lingering.hand_over("t", "x", batch(1))
