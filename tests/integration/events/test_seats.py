"""The bridge and the seats of ticks: what is handed over reaches a tick or a signal, and only one of them."""

import pytest

from tests.fakes.streams import until
from tests.integration.events.crossing import Crossing, completed


@pytest.fixture(autouse=True)
def _nothing_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a seat gives up is sent by signal."""
    monkeypatch.setattr("engine.events.deliveries.REPEAT_AFTER_SECONDS", 600.0)


@pytest.mark.parametrize("collected", [True, False])
async def test_what_no_tick_came_for_is_signalled_soon(crossing: Crossing, collected: bool) -> None:
    bridge = crossing.start()
    execution_id = crossing.execution()
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        entry_id = await crossing.report(execution_id, completed())
        await until(lambda: seat.uncovered == [entry_id])
        if collected:
            assert len(await seat.collect(5.0)) == 1
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [entry_id])
    await crossing.consume(bridge, execution_id, entry_id)
    await until(lambda: not bridge._deliveries)


async def test_the_tick_that_follows_gets_what_came_between_and_no_signal_is_sent(crossing: Crossing) -> None:
    bridge = crossing.start()
    execution_id = crossing.execution()
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        first = await crossing.report(execution_id, completed("a"))
        await seat.collect(5.0)
    second = await crossing.report(execution_id, completed("b"))
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        seat.covered([first])
        await crossing.consume(bridge, execution_id, first)
        assert [batch.entry_id for batch in await seat.collect(5.0)] == [second]
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        seat.covered([second])
        await crossing.consume(bridge, execution_id, second)
    assert not bridge._deliveries
    assert crossing.launcher.signals == []


async def test_after_a_seat_was_given_up_what_comes_goes_by_signal_too_and_in_order(crossing: Crossing) -> None:
    crossing.start()
    execution_id = crossing.execution()
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        first = await crossing.report(execution_id, completed("a"))
        await seat.collect(5.0)
    await until(lambda: crossing.launcher.entry_ids(execution_id) == [first])
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        second = await crossing.report(execution_id, completed("b"))
        await until(lambda: crossing.launcher.entry_ids(execution_id) == [first, second])
        assert await seat.collect(0) == [], "it would overtake the signal"


async def test_what_was_consumed_before_its_seat_was_given_up_is_not_signalled(crossing: Crossing) -> None:
    bridge = crossing.start()
    execution_id = crossing.execution()
    with crossing.lingering.open(crossing.tenant, execution_id) as seat:
        entry_id = await crossing.report(execution_id, completed())
        await seat.collect(5.0)
    await crossing.consume(bridge, execution_id, entry_id)
    await until(lambda: not crossing.lingering._seats)
    assert crossing.launcher.signals == []
