"""What a crash left between PostgreSQL and Temporal is finished, whatever else is wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from engine.concurrency import end_all
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput, KernelPlan
from engine.errors import LaunchRefusedError, NotFoundError, UnavailableError, UnsupportedPatternError
from engine.ports import ExecutionStore, MaintenanceStore, OpenExecution
from engine.recovery import reconciler
from engine.recovery.reconciler import Reconciler
from tests.fakes.streams import FakeLauncher, until


class FakeMaintenance:
    def __init__(self) -> None:
        self.rows: dict[str, list[OpenExecution]] = {"unlaunched": [], "behind": [], "open": []}
        self.documents: dict[UUID, dict[str, Any]] = {}
        self.asked_after: list[UUID | None] = []
        self.quiet: list[float] = []
        self.leading = True
        self.led = 0
        self.failure: Exception | None = None

    async def unlaunched(self, older_than_seconds: float, limit: int) -> Sequence[OpenExecution]:
        if self.failure is not None:
            raise self.failure
        return self.rows["unlaunched"]

    async def behind(self, quiet_seconds: float, limit: int) -> Sequence[OpenExecution]:
        self.quiet.append(quiet_seconds)
        return self.rows["behind"]

    async def open_executions(self, after: UUID | None, limit: int) -> Sequence[OpenExecution]:
        self.asked_after.append(after)
        rows = sorted(self.rows["open"], key=lambda row: row.execution_id)
        return [row for row in rows if after is None or row.execution_id > after][:limit]

    async def launch_document(self, tenant: str, execution_id: UUID) -> dict[str, Any] | None:
        return self.documents.get(execution_id)

    @asynccontextmanager
    async def leader(self, name: str) -> AsyncIterator[bool]:
        self.led += 1
        yield self.leading


class FakeExecutions:
    def __init__(self) -> None:
        self.closed: list[tuple[UUID, ExecutionStatus, str]] = []

    async def close_from_outside(
        self, tenant: str, execution_id: UUID, status: ExecutionStatus, code: str, message: str
    ) -> bool:
        self.closed.append((execution_id, status, code))
        return message != ""


class Desk:
    def __init__(self) -> None:
        self.maintenance = FakeMaintenance()
        self.executions = FakeExecutions()
        self.launcher = FakeLauncher()
        self.reconciler = Reconciler(
            cast(MaintenanceStore, self.maintenance), cast(ExecutionStore, self.executions), self.launcher
        )

    def row(self, listing: str, *, tick: int = 3, launch: Any = None) -> UUID:
        execution_id = uuid4()
        row = OpenExecution(
            tenant="t", execution_id=execution_id, status=ExecutionStatus.EXECUTING, last_tick=tick, base_tick=1,
            updated_at=datetime.now(UTC), launch=launch,
        )  # fmt: skip
        self.maintenance.rows[listing].append(row)
        return execution_id

    def signalled(self) -> list[str]:
        return [execution_id for _, execution_id, name, _ in self.launcher.signals if name == "catch_up"]


def document(execution_id: str = "x") -> dict[str, Any]:
    launch = ExecutionInput(
        tenant="t", execution_id=execution_id, workflow_id="w", workflow_name="n", pattern="supervisor",
        plan=KernelPlan(tasks=(), roles={}), partition=0, trace_id="tr", timeout_ms=1, checkpoint_interval_ms=1,
        pause_grace_ms=1, started_at_ms=1,
    )  # fmt: skip
    return launch.model_dump(mode="json")


async def test_an_execution_that_temporal_never_heard_of_is_launched() -> None:
    desk = Desk()
    desk.row("unlaunched", tick=0, launch=document("mine"))
    desk.row("unlaunched", tick=0)
    await desk.reconciler.finish_launches()
    assert [launch.execution_id for launch in desk.launcher.launched] == ["mine"]
    assert desk.executions.closed == []


async def test_a_launch_that_can_never_be_ends_its_execution_and_stops_no_other() -> None:
    desk = Desk()
    malformed = desk.row("unlaunched", tick=0, launch={"of": "another version"})
    desk.row("unlaunched", tick=0, launch=document("sound"))
    await desk.reconciler.finish_launches()
    assert [launch.execution_id for launch in desk.launcher.launched] == ["sound"]
    assert desk.executions.closed == [(malformed, ExecutionStatus.FAILED, "LAUNCH_IMPOSSIBLE")]
    desk = Desk()
    desk.launcher.failure = UnsupportedPatternError("no workflow")
    unsupported = desk.row("unlaunched", tick=0, launch=document())
    await desk.reconciler.finish_launches()
    assert desk.executions.closed == [(unsupported, ExecutionStatus.FAILED, "UNSUPPORTED_PATTERN")]


async def test_a_launch_that_temporal_refuses_for_good_ends_its_execution_with_the_reason() -> None:
    desk = Desk()
    desk.launcher.failure = LaunchRefusedError("Temporal does not take this execution: too large")
    refused = desk.row("unlaunched", tick=0, launch=document())
    await desk.reconciler.finish_launches()
    assert desk.executions.closed == [(refused, ExecutionStatus.FAILED, "LAUNCH_REFUSED")]


async def test_a_plan_that_stands_elsewhere_is_fetched_for_the_launch() -> None:
    desk = Desk()
    listed = {**document("mine"), "plan": {"reference": "abc"}}
    execution_id = desk.row("unlaunched", tick=0, launch=listed)
    desk.maintenance.documents[execution_id] = document("mine")
    gone = desk.row("unlaunched", tick=0, launch=listed)
    desk.maintenance.documents[gone] = listed
    await desk.reconciler.finish_launches()
    assert [launch.execution_id for launch in desk.launcher.launched] == ["mine"]
    assert desk.executions.closed == [(gone, ExecutionStatus.FAILED, "LAUNCH_IMPOSSIBLE")]


async def test_a_launch_that_may_succeed_later_is_tried_again() -> None:
    desk = Desk()
    desk.row("unlaunched", tick=0, launch=document())
    desk.launcher.failure = UnavailableError("away")
    await desk.reconciler.finish_launches()
    assert desk.executions.closed == []
    desk.launcher.failure = None
    await desk.reconciler.finish_launches()
    assert len(desk.launcher.launched) == 1


async def test_executions_that_are_behind_are_told_and_again_only_after_ever_longer_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, now = Desk(), [1000.0]
    monkeypatch.setattr("engine.recovery.reconciler.time.monotonic", lambda: now[0])
    execution_id = str(desk.row("behind"))
    told_at = []
    for second in range(0, 100, 2):
        now[0] = 1000.0 + second
        before = len(desk.signalled())
        await desk.reconciler.catch_up(0.0)
        if len(desk.signalled()) > before:
            told_at.append(second)
    assert told_at == [0, 10, 30, 70]
    assert set(desk.signalled()) == {execution_id}
    desk.maintenance.rows["behind"].clear()
    await desk.reconciler.catch_up(0.0)
    assert desk.reconciler._signalled == {}


async def test_temporal_being_away_stops_no_round() -> None:
    desk = Desk()
    desk.row("behind")
    desk.row("open")
    desk.launcher.failure = UnavailableError("away")
    await desk.reconciler.catch_up(0.0)
    await desk.reconciler.close_what_temporal_closed()
    assert desk.executions.closed == []
    assert desk.launcher.tried == 2


@pytest.mark.parametrize(
    ("in_temporal", "final"),
    [
        (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED),
        (ExecutionStatus.FAILED, ExecutionStatus.FAILED),
        (ExecutionStatus.CANCELLED, ExecutionStatus.CANCELLED),
    ],
)
@pytest.mark.parametrize("tick", [0, 3])
async def test_what_temporal_closed_without_its_last_tick_is_closed(
    in_temporal: ExecutionStatus, final: ExecutionStatus, tick: int
) -> None:
    desk = Desk()
    execution_id = desk.row("open", tick=tick)
    desk.launcher.closed[str(execution_id)] = in_temporal
    await desk.reconciler.close_what_temporal_closed()
    assert desk.executions.closed == [(execution_id, final, "CLOSED_IN_TEMPORAL")]


async def test_what_runs_in_temporal_is_left_alone() -> None:
    desk = Desk()
    desk.launcher.closed[str(desk.row("open"))] = None
    await desk.reconciler.close_what_temporal_closed()
    assert desk.executions.closed == []
    assert desk.launcher.launched == []


async def test_what_temporal_lost_is_launched_again_but_not_before_its_first_tick() -> None:
    desk = Desk()
    lost, young = desk.row("open"), desk.row("open", tick=0)
    desk.maintenance.documents = {lost: document("lost"), young: document("young")}
    await desk.reconciler.close_what_temporal_closed()
    assert [launch.execution_id for launch in desk.launcher.launched] == ["lost"]


async def test_a_signal_that_finds_no_run_makes_it_look_why(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    execution_id = desk.row("behind")
    desk.launcher.closed[str(execution_id)] = ExecutionStatus.CANCELLED

    async def nowhere(*args: Any) -> None:
        raise NotFoundError("no open run")

    monkeypatch.setattr(desk.launcher, "signal", nowhere)
    await desk.reconciler.catch_up(0.0)
    assert desk.executions.closed == [(execution_id, ExecutionStatus.CANCELLED, "CLOSED_IN_TEMPORAL")]


async def test_all_open_executions_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "BATCH", 2)
    desk = Desk()
    for _ in range(3):
        desk.launcher.closed[str(desk.row("open"))] = ExecutionStatus.CANCELLED
    for _ in range(3):
        await desk.reconciler.close_what_temporal_closed()
    assert desk.maintenance.asked_after[0] is None
    assert desk.maintenance.asked_after[1] is not None
    assert desk.maintenance.asked_after[2] is None
    assert len({execution_id for execution_id, _, _ in desk.executions.closed}) == 3


async def test_the_leader_works_in_rounds_and_begins_with_all_that_are_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "PERIOD_SECONDS", 0.005)
    desk = Desk()
    running = asyncio.create_task(desk.reconciler.run())
    await until(lambda: len(desk.maintenance.asked_after) >= 2)
    await end_all([running])
    assert desk.maintenance.quiet[:2] == [0.0, reconciler.QUIET_SECONDS]
    assert len(desk.maintenance.quiet) >= reconciler.CLOSED_CHECK_EVERY


async def test_who_does_not_lead_asks_again_and_an_outage_is_sat_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "PERIOD_SECONDS", 0.005)
    desk = Desk()
    desk.maintenance.leading = False
    running = asyncio.create_task(desk.reconciler.run())
    await until(lambda: desk.maintenance.led >= 3)
    assert desk.maintenance.quiet == []
    desk.maintenance.failure, desk.maintenance.leading = UnavailableError("away"), True
    led = desk.maintenance.led
    await until(lambda: desk.maintenance.led >= led + 3)
    desk.maintenance.failure = None
    await until(lambda: desk.maintenance.asked_after)
    await end_all([running])
