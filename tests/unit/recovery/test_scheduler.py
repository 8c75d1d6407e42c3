"""The scheduler launches whose turn it is, once, and leaves what fails to the reconciler."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from engine.concurrency import end_all
from engine.contracts.capacity import (
    CapacityLimits,
    CapacityReport,
    CapacityUse,
    Demand,
    QueueState,
    Turn,
    Usage,
    Waiting,
)
from engine.contracts.execution import ExecutionStatus, Priority
from engine.contracts.kernel import ExecutionInput
from engine.errors import UnavailableError
from engine.ports import ExecutionStore, MaintenanceStore, OpenExecution
from engine.recovery import scheduler
from engine.recovery.scheduler import IDLE_POLL_SECONDS, WAITING_POLL_SECONDS, CapacityScheduler
from tests.fakes.streams import FakeLauncher, until
from tests.unit.recovery.test_reconciler import FakeExecutions, FakeMaintenance, document

START = datetime(2026, 1, 2, tzinfo=UTC)


class FakeCapacity:
    """Rows in memory, under a lock that nobody else wants."""

    def __init__(self) -> None:
        self.used = Usage()
        self.running: dict[str, int] = {}
        self.documents: dict[UUID, dict[str, Any]] = {}
        """Launch documents that are not the usual one."""
        self.waiting: list[Waiting] = []
        self.looks = 0
        self.recounts = 0
        self.wrong = False
        self.now = START

    def add(self, tenant: str = "t", priority: Priority = "normal", **demand: int) -> UUID:
        self.now += timedelta(seconds=1)
        item = Waiting(
            tenant=tenant, execution_id=uuid4(), priority=priority, queued_at=self.now, demand=Demand(**demand)
        )
        self.waiting.append(item)
        return item.execution_id

    async def report(self, tenant: str) -> CapacityReport:
        raise NotImplementedError

    async def totals(self) -> CapacityUse:
        return CapacityUse(used=self.used, waiting={"high": 0, "normal": len(self.waiting), "low": 0})

    async def start_waiting(
        self, choose: Callable[[QueueState, int], Turn], limit: int
    ) -> tuple[Sequence[OpenExecution], Sequence[Waiting]]:
        self.looks += 1
        turn = choose(
            QueueState(used=self.used, running=self.running, waiting=tuple(self.waiting), now=self.now), limit
        )
        rows = []
        for item in turn.start:
            self.waiting.remove(item)
            self.used = self.used.plus(item.demand)
            rows.append(
                OpenExecution(
                    tenant=item.tenant,
                    execution_id=item.execution_id,
                    status=ExecutionStatus.PLANNING,
                    last_tick=0,
                    base_tick=0,
                    updated_at=self.now,
                    launch=self.documents.get(item.execution_id, document(str(item.execution_id))),
                )
            )
        return rows, turn.impossible

    async def recount(self) -> bool:
        self.recounts += 1
        return self.wrong


class Desk:
    def __init__(self, **limits: int) -> None:
        self.capacity = FakeCapacity()
        self.maintenance = FakeMaintenance()
        self.executions = FakeExecutions()
        self.launcher = FakeLauncher()
        self.scheduler = CapacityScheduler(
            self.capacity,
            cast(MaintenanceStore, self.maintenance),
            cast(ExecutionStore, self.executions),
            self.launcher,
            CapacityLimits(**limits),
        )

    def launched(self) -> list[str]:
        return [launch.execution_id for launch in self.launcher.launched]


async def test_with_nobody_waiting_it_only_looks_at_the_sums() -> None:
    desk = Desk()
    assert await desk.scheduler.round() == IDLE_POLL_SECONDS
    assert desk.capacity.looks == 0


async def test_as_many_as_fit_are_launched_in_order() -> None:
    desk = Desk(executions=2)
    low, high, normal = (desk.capacity.add(priority=priority) for priority in ("low", "high", "normal"))
    assert await desk.scheduler.round() == WAITING_POLL_SECONDS
    assert desk.launched() == [str(high), str(normal)]
    assert [item.execution_id for item in desk.capacity.waiting] == [low]


async def test_while_nothing_changes_those_who_could_not_start_are_not_read_again() -> None:
    desk = Desk(executions=1)
    desk.capacity.used = Usage(executions=1)
    desk.capacity.add()
    for _ in range(3):
        assert await desk.scheduler.round() == WAITING_POLL_SECONDS
    assert desk.capacity.looks == 1
    desk.capacity.used = Usage()
    await desk.scheduler.round()
    assert len(desk.launched()) == 1


async def test_after_a_while_it_looks_again_since_lines_move_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "STANDSTILL_SECONDS", 0.0)
    desk = Desk(executions=1)
    desk.capacity.used = Usage(executions=1)
    desk.capacity.add()
    await desk.scheduler.round()
    await desk.scheduler.round()
    assert desk.capacity.looks == 2


async def test_a_full_batch_is_followed_by_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "BATCH", 2)
    desk = Desk()
    for _ in range(3):
        desk.capacity.add()
    assert await desk.scheduler.round() == 0.0
    assert await desk.scheduler.round() == WAITING_POLL_SECONDS
    assert len(desk.launched()) == 3


async def test_a_flood_that_is_served_does_not_move_up_by_waiting() -> None:
    desk = Desk(executions=1)
    for _ in range(5):
        desk.capacity.add("flood")
    await desk.scheduler.round()
    desk.capacity.used = Usage()
    desk.capacity.now += timedelta(seconds=200)
    desk.capacity.running = {"flood": 1}
    single = desk.capacity.add("single")
    desk.capacity.now += timedelta(seconds=90)
    await desk.scheduler.round()
    assert desk.launched()[-1] == str(single)


async def test_what_can_never_fit_any_more_is_ended_with_the_numbers() -> None:
    desk = Desk(agents=2)
    giant = desk.capacity.add(agents=3)
    await desk.scheduler.round()
    assert desk.executions.closed == [(giant, ExecutionStatus.FAILED, "RESOURCES_UNSATISFIABLE")]
    assert desk.launched() == []


async def test_a_launch_that_fails_is_left_to_the_reconciler_and_stops_no_other() -> None:
    desk = Desk()
    launch = desk.launcher.launch
    first, second = desk.capacity.add(), desk.capacity.add()

    async def failing(asked: ExecutionInput) -> None:
        if asked.execution_id == str(first):
            raise UnavailableError("Temporal does not answer")
        await launch(asked)

    desk.launcher.launch = failing  # type: ignore[method-assign,assignment]  # for one execution only
    await desk.scheduler.round()
    assert desk.launched() == [str(second)]
    assert desk.executions.closed == []


async def test_a_launch_document_that_cannot_be_read_stops_no_other() -> None:
    desk = Desk()
    desk.capacity.documents[desk.capacity.add()] = {"of": "another version"}
    second = desk.capacity.add()
    await desk.scheduler.round()
    assert desk.launched() == [str(second)]


async def test_a_large_plan_is_read_where_it_lies() -> None:
    desk = Desk()
    waiting = desk.capacity.add()
    whole = document(str(waiting))
    desk.maintenance.documents[waiting] = whole
    desk.capacity.documents[waiting] = whole | {"plan": {"reference": "a" * 64}}
    await desk.scheduler.round()
    assert desk.launched() == [str(waiting)]


async def test_it_counts_again_when_it_begins_to_lead_and_starts_who_waits() -> None:
    desk = Desk()
    desk.capacity.wrong = True
    waiting = desk.capacity.add()
    running = asyncio.create_task(desk.scheduler.run())
    try:
        await until(lambda: desk.launched() == [str(waiting)])
        assert desk.capacity.recounts == 1
    finally:
        await end_all([running])


async def test_who_does_not_lead_starts_nothing_and_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.01)
    desk = Desk()
    desk.capacity.add()
    desk.maintenance.leading = False
    running = asyncio.create_task(desk.scheduler.run())
    try:
        await until(lambda: desk.maintenance.led >= 2)
        assert desk.launched() == []
        desk.maintenance.leading = True
        await until(lambda: len(desk.launched()) == 1)
    finally:
        await end_all([running])


async def test_an_outage_of_the_database_is_sat_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.01)
    desk = Desk()
    outages = 2

    @asynccontextmanager
    async def leader(name: str) -> AsyncIterator[bool]:
        nonlocal outages
        if outages:
            outages -= 1
            raise UnavailableError("PostgreSQL does not answer")
        yield True

    desk.maintenance.leader = leader  # type: ignore[method-assign]  # as it is while the server is away
    desk.capacity.add()
    running = asyncio.create_task(desk.scheduler.run())
    try:
        await until(lambda: len(desk.launched()) == 1)
    finally:
        await end_all([running])
