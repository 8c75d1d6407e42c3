"""When executions are counted, and that no tenant's trouble is another's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from uuid import UUID

import pytest

from engine.contracts.statistics import RunStatistics, Statistics
from engine.errors import UnavailableError
from engine.recovery import statistics as module
from engine.recovery.statistics import StatisticsKeeper


class FakeStore:
    def __init__(self, *tenants: str) -> None:
        self.all = sorted(tenants)
        self.refreshed: list[str] = []
        self.broken: set[str] = set()
        self.leading = True
        self.away = False
        self.rounds = 0
        self.enough = asyncio.Event()

    @asynccontextmanager
    async def leader(self, name: str) -> AsyncIterator[bool]:
        assert name == "statistics"
        self.rounds += 1
        if self.rounds >= 3:
            self.enough.set()
        if self.away:
            raise UnavailableError("away")
        yield self.leading

    async def tenants(self, after: str, limit: int) -> Sequence[str]:
        return [tenant for tenant in self.all if tenant > after][:limit]

    async def refresh(self, tenant: str) -> None:
        if tenant in self.broken:
            raise UnavailableError("too much")
        self.refreshed.append(tenant)

    async def report(
        self, tenant: str, *, limit: int, page_token: str | None = None, workflow_id: UUID | None = None
    ) -> Statistics:
        return Statistics(items=(), total=RunStatistics(executions={}), patterns={})


async def _three_rounds(store: FakeStore) -> None:
    task = asyncio.create_task(StatisticsKeeper(store, period_seconds=0.0).run())
    try:
        await asyncio.wait_for(store.enough.wait(), 5)
    finally:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_all_tenants_in_pages_and_one_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TENANTS_AT_ONCE", 2)
    store = FakeStore("a", "b", "c", "d", "e")
    store.broken.add("b")
    assert await StatisticsKeeper(store).refresh() == 5
    assert store.refreshed == ["a", "c", "d", "e"]


async def test_a_last_page_that_is_full_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TENANTS_AT_ONCE", 2)
    assert await StatisticsKeeper(FakeStore("a", "b")).refresh() == 2


async def test_it_goes_on_after_an_outage_and_leaves_it_to_the_leader() -> None:
    store = FakeStore("a")
    store.away = True
    await _three_rounds(store)
    assert store.refreshed == []
    other = FakeStore("a")
    other.leading = False
    await _three_rounds(other)
    assert other.refreshed == []
    leading = FakeStore("a")
    await _three_rounds(leading)
    assert leading.refreshed


async def test_a_round_that_takes_long_is_followed_by_a_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    clock = iter(range(0, 1000, 4))

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with pytest.raises(asyncio.CancelledError):
        await StatisticsKeeper(FakeStore("a"), period_seconds=30).run()
    assert pauses == [80.0, 80.0]
