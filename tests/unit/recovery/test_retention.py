"""What is old is deleted in batches; what Temporal still holds open is left, and holds up nothing else."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from engine.concurrency import end_all
from engine.contracts.execution import ExecutionStatus
from engine.errors import UnavailableError
from engine.recovery import retention as retention_module
from engine.recovery.retention import Retention
from engine.settings import Settings
from tests.fakes.streams import FakeLauncher, until

NOW = datetime(2026, 1, 31, tzinfo=UTC)


class FakeStore:
    """Executions by when they were closed, in days before now; `rows` are other things by their kind."""

    def __init__(self) -> None:
        self.closed: dict[UUID, float] = {}
        self.journals_kept: set[UUID] = set()
        self.rows: dict[str, list[float]] = {}
        self.asked: list[tuple[str, float]] = []
        self.calls = 0
        self.leading = True
        self.failure: Exception | None = None

    def add(self, days: float) -> UUID:
        execution_id = uuid4()
        self.closed[execution_id] = days
        self.journals_kept.add(execution_id)
        return execution_id

    @asynccontextmanager
    async def leader(self, name: str) -> AsyncIterator[bool]:
        assert name == "retention"
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        yield self.leading

    async def journals(
        self, older_than_days: float, limit: int, closed_from: datetime | None = None
    ) -> Sequence[tuple[str, UUID, datetime]]:
        self.asked.append(("journals", older_than_days))
        found = [
            ("acme", execution_id, NOW - timedelta(days=days))
            for execution_id, days in sorted(self.closed.items(), key=lambda item: -item[1])
            if days > older_than_days and execution_id in self.journals_kept
        ]
        return [row for row in found if closed_from is None or row[2] >= closed_from][:limit]

    async def delete_journal(self, tenant: str, execution_id: UUID) -> None:
        self.journals_kept.remove(execution_id)

    async def expired(self, older_than_days: float, limit: int) -> Sequence[tuple[str, UUID]]:
        self.asked.append(("executions", older_than_days))
        found = [
            ("acme", execution_id)
            for execution_id, days in self.closed.items()
            if days > older_than_days and execution_id not in self.journals_kept
        ]
        return found[:limit]

    async def delete_execution(self, tenant: str, execution_id: UUID) -> None:
        del self.closed[execution_id]

    async def delete_host_history(self, older_than_days: float, limit: int) -> int:
        return self._delete("host_history", older_than_days, limit)

    async def delete_unused_plans(self, older_than_days: float, limit: int) -> int:
        return self._delete("plans", older_than_days, limit)

    async def delete_gone_hosts(self, older_than_days: float, limit: int) -> int:
        return self._delete("hosts", older_than_days, limit)

    async def delete_cached_results(self, older_than_days: float, limit: int) -> int:
        return self._delete("cached_results", older_than_days, limit)

    async def delete_idempotency_keys(self, older_than_days: float, limit: int) -> int:
        return self._delete("idempotency_keys", older_than_days, limit)

    async def delete_operations(self, older_than_days: float, limit: int) -> int:
        return self._delete("operations", older_than_days, limit)

    async def delete_hook_executions(self, older_than_days: float, limit: int) -> int:
        return self._delete("hook_executions", older_than_days, limit)

    async def delete_hook_deliveries(self, older_than_days: float, limit: int) -> int:
        return self._delete("hook_deliveries", older_than_days, limit)

    async def prepare_event_partitions(self, days: int, ahead: int) -> int:
        self.asked.append(("partitions ahead", days))
        return ahead

    async def drop_event_partitions(self, older_than_days: float) -> tuple[int, int]:
        self.asked.append(("partitions", older_than_days))
        return 1, 0

    async def delete_events_without_partition(self, older_than_days: float, limit: int) -> int:
        return self._delete("events", older_than_days, limit)

    def _delete(self, what: str, older_than_days: float, limit: int) -> int:
        self.asked.append((what, older_than_days))
        old = [days for days in self.rows.get(what, []) if days > older_than_days][:limit]
        for days in old:
            self.rows[what].remove(days)
        return len(old)


class Desk:
    def __init__(self, **settings: float) -> None:
        self.store, self.launcher = FakeStore(), FakeLauncher()
        self.retention = Retention(self.store, self.launcher, Settings.model_validate(settings))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(retention_module, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(retention_module, "BATCH_EXECUTIONS", 3)
    monkeypatch.setattr(retention_module, "BATCH_ROWS", 3)
    return Desk()


async def test_first_the_journal_goes_and_much_later_the_execution(desk: Desk) -> None:
    fresh, closed, old = desk.store.add(0.5), desk.store.add(2), desk.store.add(31)
    for execution_id in (fresh, closed, old):
        desk.launcher.closed[str(execution_id)] = ExecutionStatus.COMPLETED
    await desk.retention.sweep()
    assert desk.store.journals_kept == {fresh}
    assert set(desk.store.closed) == {fresh, closed}


async def test_what_temporal_holds_open_keeps_everything_and_holds_up_nobody(desk: Desk) -> None:
    """More of them than a batch has, and older than the rest."""
    still_open = [desk.store.add(100 + n) for n in range(7)]
    for execution_id in still_open:
        desk.launcher.closed[str(execution_id)] = None
    forgotten = [desk.store.add(40 + n) for n in range(5)]
    await desk.retention.sweep()
    assert set(desk.store.closed) == desk.store.journals_kept == set(still_open)
    assert not set(forgotten) & set(desk.store.closed)


async def test_many_that_were_closed_at_the_same_time_end_the_round(desk: Desk) -> None:
    for execution_id in [desk.store.add(100) for _ in range(7)]:
        desk.launcher.closed[str(execution_id)] = None
    await asyncio.wait_for(desk.retention.sweep(), timeout=5)
    assert len(desk.store.journals_kept) == 7


async def test_everything_else_goes_by_its_own_age_in_batches(desk: Desk) -> None:
    ages = {"hosts": 7, "cached_results": 7, "idempotency_keys": 7, "operations": 400, "plans": 1}
    ages |= {"hook_executions": 7, "hook_deliveries": 7}
    for what, limit in ages.items():
        desk.store.rows[what] = [limit + 1.0] * 7 + [limit - 0.5]
    await desk.retention.sweep()
    assert desk.store.rows == {what: [limit - 0.5] for what, limit in ages.items()}
    assert desk.store.asked.count(("hosts", 7)) == 3


async def test_settings_say_how_old() -> None:
    desk = Desk(retention_days=2, journal_retention_days=5, operation_log_days=3)
    await desk.retention.sweep()
    assert {("executions", 2), ("journals", 2), ("operations", 3)} <= set(desk.store.asked)


async def test_the_leader_sweeps_and_an_outage_is_sat_out(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    monkeypatch.setattr(retention_module, "PERIOD_SECONDS", 0)
    desk.store.failure = UnavailableError("away")
    running = asyncio.create_task(desk.retention.run())

    async def calls(more: int) -> None:
        goal = desk.store.calls + more
        await until(lambda: desk.store.calls >= goal)

    await calls(2)
    desk.store.failure, desk.store.leading = None, False
    await calls(2)
    assert not desk.store.asked
    desk.store.leading = True
    await calls(2)
    await end_all([running])
    assert desk.store.asked


async def test_temporal_being_away_interrupts_the_round_and_deletes_nothing(desk: Desk) -> None:
    execution_id = desk.store.add(100)
    desk.launcher.failure = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await desk.retention.sweep()
    assert desk.store.journals_kept == {execution_id}


async def test_partitions_are_made_before_anything_and_dropped_behind_the_executions(desk: Desk) -> None:
    await desk.retention.sweep()
    order = [what for what, _ in desk.store.asked]
    assert order[0] == "partitions ahead"
    assert order.index("executions") < order.index("partitions") < order.index("events")
    assert ("partitions", 30.0) in desk.store.asked


@pytest.mark.parametrize(("retention_days", "width"), [(1, 1), (13, 1), (14, 7), (400, 7)])
async def test_no_partition_is_wider_than_what_is_kept(retention_days: float, width: int) -> None:
    desk = Desk(retention_days=retention_days)
    await desk.retention.sweep()
    assert ("partitions ahead", width) in desk.store.asked
