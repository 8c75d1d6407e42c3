"""What is missing on the streams: a little is published with the tick, much by workers, one execution once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from uuid import uuid4

import pytest

from engine.errors import UnavailableError
from engine.events import catching_up as module
from engine.events.catching_up import AT_ONCE_MAX, WORKERS, CatchingUp
from engine.ports import Published


class FakePublisher:
    def __init__(self) -> None:
        self.asked: list[tuple[Published, int]] = []
        self.gate = asyncio.Event()
        self.failures = 0

    async def catch_up(self, execution: Published, published: int) -> None:
        self.asked.append((execution, published))
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise UnavailableError("away")


def execution(last_sequence: int) -> Published:
    return Published(
        tenant="t", execution_id=uuid4(), workflow_id=uuid4(), trace_id=uuid4(), last_sequence=last_sequence
    )


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
async def catching_up(publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CatchingUp]:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    catching_up = CatchingUp(publisher)
    running = asyncio.create_task(catching_up.run())
    yield catching_up
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110 - whatever the workers do next, no event says
            await asyncio.sleep(0)


async def test_a_little_is_published_before_the_tick_goes_on(catching_up: CatchingUp, publisher: FakePublisher) -> None:
    publisher.gate.set()
    one = execution(AT_ONCE_MAX + 7)
    await catching_up.catch_up(one, 7)
    assert publisher.asked == [(one, 7)]
    publisher.failures = 1
    with pytest.raises(UnavailableError):
        await catching_up.catch_up(one, 7)


async def test_a_whole_history_keeps_no_tick_waiting_and_is_published_once(
    catching_up: CatchingUp, publisher: FakePublisher
) -> None:
    emptied = [execution(100_000) for _ in range(10)]
    for _ in range(3):
        for one in emptied:
            await asyncio.wait_for(catching_up.catch_up(one, 0), 1)
    await until(lambda: len(publisher.asked) == WORKERS)
    await catching_up.catch_up(emptied[0], 0)  # under way
    publisher.gate.set()
    await until(lambda: len(publisher.asked) == len(emptied))
    await asyncio.sleep(0)
    assert [one for one, _ in publisher.asked] == emptied
    # What falls behind once more is looked after once more.
    await until(lambda: not catching_up._under_way)
    await catching_up.catch_up(emptied[0], 0)
    await until(lambda: len(publisher.asked) == len(emptied) + 1)


async def test_an_outage_costs_one_try_and_not_the_worker(catching_up: CatchingUp, publisher: FakePublisher) -> None:
    publisher.failures = WORKERS + 1
    publisher.gate.set()
    for _ in range(WORKERS + 3):
        await catching_up.catch_up(execution(100_000), 0)
    await until(lambda: len(publisher.asked) == WORKERS + 3)


async def test_more_than_can_wait_is_left_to_the_sweep(
    publisher: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    idle = CatchingUp(publisher)
    for _ in range(5):
        await idle.catch_up(execution(100_000), 0)
    assert len(idle._waiting) == 2
