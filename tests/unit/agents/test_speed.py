"""What durations say of hosts."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.agents import speed
from engine.agents.speed import SpeedBook, SpeedRecorder, speed_class
from tests.unit.agents.fakes import FakeHealth, FakeHosts, until


def note(book: SpeedBook, host_id: str, *durations_ms: float, execution: str = "x", role: str = "worker") -> None:
    for duration_ms in durations_ms:
        book.note("acme", execution, role, host_id, duration_ms)


def test_a_host_that_takes_four_times_as_long_as_the_others_has_a_quarter_of_their_speed() -> None:
    book = SpeedBook()
    note(book, "a", *[100.0] * 5)
    note(book, "b", *[100.0] * 6)
    note(book, "slow", *[400.0] * 5)
    taken = book.take()["acme"]
    assert {host_id: item.speed for host_id, item in taken.items()} == {"a": 1.0, "b": 1.0, "slow": 0.25}
    assert taken["b"].tasks == 6


def test_one_long_task_makes_nobody_slow() -> None:
    book = SpeedBook()
    note(book, "a", *[100.0] * 5)
    note(book, "b", 100.0, 100.0, 9_000.0, 100.0, 100.0)
    assert book.take()["acme"]["b"].speed == 1.0


def test_hosts_are_compared_within_one_role_of_one_execution_only() -> None:
    book = SpeedBook()
    note(book, "a", *[10.0] * 5, execution="x")
    note(book, "b", *[1000.0] * 5, execution="y")
    note(book, "b", *[1000.0] * 5, execution="x", role="other")
    assert book.take() == {}


def test_few_or_tiny_durations_say_nothing() -> None:
    book = SpeedBook()
    note(book, "a", *[100.0] * 4)
    note(book, "b", *[900.0] * 4)
    note(book, "a", *[0.0] * 5, execution="y")
    note(book, "b", *[3.0] * 5, execution="y")
    assert book.take() == {}


def test_where_most_are_slow_that_is_the_usual_speed() -> None:
    book = SpeedBook()
    note(book, "fast", *[10.0] * 5)
    for host_id in ("a", "b", "c"):
        note(book, host_id, *[100.0] * 5)
    assert {item.speed for item in book.take()["acme"].values()} == {1.0}


def test_only_hosts_with_news_are_told_of_and_the_newest_durations_count() -> None:
    book = SpeedBook()
    note(book, "a", *[100.0] * 50)
    note(book, "b", *[800.0] * 50)
    book.take()
    assert book.take() == {}
    note(book, "b", *[100.0] * 50)
    taken = book.take()["acme"]
    assert list(taken) == ["b"]
    assert taken["b"].speed == 1.0


def test_the_book_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "GROUPS_MAX", 3)
    book = SpeedBook()
    for n in range(10):
        note(book, "a", *[100.0] * 5, execution=str(n))
        note(book, "b", *[300.0] * 5, execution=str(n))
    assert len(book._roles) == 3


@given(st.floats(0.01, 1.0), st.sampled_from([1.0, 0.5, 0.25, 0.125]))
def test_classes_are_powers_of_two_and_do_not_waver(measured: float, present: float) -> None:
    chosen = speed_class(measured, present)
    assert chosen in (1.0, 0.5, 0.25, 0.125)
    assert speed_class(measured, chosen) == chosen
    assert present <= chosen or measured < present


async def test_the_recorder_writes_and_outages_do_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "WRITE_SECONDS", 0.01)
    hosts, book = FakeHosts(), SpeedBook()
    store = FakeHealth(hosts)
    running = asyncio.create_task(SpeedRecorder(book, store).run())
    try:
        hosts.down = True
        note(book, "a", *[100.0] * 5)
        note(book, "b", *[200.0] * 5)
        await until(lambda: not book._news)
        await asyncio.sleep(0)
        assert store.noted == []
        hosts.down = False
        note(book, "b", 200.0)
        await until(lambda: store.noted)
        tenant, measured = store.noted[0]
        assert (tenant, measured["b"].speed, measured["b"].tasks) == ("acme", 0.5, 1)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
