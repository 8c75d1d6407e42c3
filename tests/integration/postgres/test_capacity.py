"""Claims on the engine's capacity: never more than the limits, free again with every kind of close, and in order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from engine.contracts.capacity import CapacityLimits, CapacityUse, Demand, QueueState, Turn, Usage
from engine.contracts.execution import ExecutionStatus, Priority
from engine.contracts.kernel import Control, KernelRole
from engine.embedded.postgres import PostgresServer
from engine.errors import InvalidParametersError, InvalidTransitionError, TooManyRequestsError
from engine.ports import PlannedExecution
from engine.postgres.capacity import PostgresCapacityStore
from engine.postgres.cluster import ClusterUrls, prepare_cluster
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.migrate import migrate
from engine.postgres.pool import Database
from engine.recovery.turns import choose
from engine.settings import Settings
from tests.integration.postgres.builders import BASE_MS, Run, create_workflow, launch_of
from tests.passwords import APP_PASSWORD, OWNER_PASSWORD

NOTHING = CapacityUse(used=Usage(), waiting={"high": 0, "normal": 0, "low": 0})


@pytest.fixture(scope="session")
async def own_urls(postgres_server: PostgresServer) -> ClusterUrls:
    """A database of its own: what runs is counted over all tenants."""
    urls = await prepare_cluster(
        postgres_server.url, owner_password=OWNER_PASSWORD, app_password=APP_PASSWORD, database="capacity_tests"
    )
    await migrate(urls.owner)
    return urls


@pytest.fixture(scope="session")
async def own_database(own_urls: ClusterUrls) -> AsyncIterator[Database]:
    database = await Database.connect(Settings(database_url=own_urls.app, database_pool_max=12))
    yield database
    await database.close()


class Engine:
    """The stores, with limits."""

    def __init__(self, database: Database, tenant: str) -> None:
        self.database = database
        self.tenant = tenant
        self.definitions = PostgresDefinitionStore(database)
        self.capacity = PostgresCapacityStore(database)
        self.maintenance = PostgresMaintenanceStore(database)
        self.journal = PostgresJournal(database)
        self.limit()

    def limit(self, **limits: int) -> None:
        self.limits = CapacityLimits(**limits)
        self.executions = PostgresExecutionStore(self.database, self.limits)

    async def plan(self, priority: Priority = "normal", tenant: str | None = None, **demand: int) -> PlannedExecution:
        tenant = tenant or self.tenant
        workflow_id = await create_workflow(self.definitions, tenant, name=f"w-{uuid4()}")
        launch = launch_of(tenant, workflow_id)
        return await self.executions.insert_planning(
            tenant, launch, {}, {}, "me", allow_concurrent=True, request_hash=None, priority=priority,
            demand=Demand(**demand) if demand else None,
        )  # fmt: skip

    async def start_waiting(self, most: int = 50) -> list[UUID]:
        def chosen(state: QueueState, limit: int) -> Turn:
            return choose(state, self.limits, limit, {})

        rows, _ = await self.capacity.start_waiting(chosen, most)
        return [row.execution_id for row in rows]

    async def close(self, execution_id: UUID, status: ExecutionStatus = ExecutionStatus.FAILED) -> None:
        assert await self.executions.close_from_outside(self.tenant, execution_id, status, "X", "x")

    async def used(self) -> Usage:
        return (await self.capacity.totals()).used

    async def waiting(self) -> dict[Priority, int]:
        return (await self.capacity.totals()).waiting


@pytest.fixture
async def engine(own_urls: ClusterUrls, own_database: Database, tenant: str) -> Engine:
    owner = await asyncpg.connect(own_urls.owner)
    await owner.execute("TRUNCATE capacity_claims, capacity_usage, workflow_executions CASCADE")
    await owner.close()
    return Engine(own_database, tenant)


async def test_a_start_holds_what_its_agents_take_until_it_closes(engine: Engine) -> None:
    planned = await engine.plan(agents=3, cpu_micros=1_500_000, memory_bytes=2**40)
    assert not planned.waiting
    assert await engine.used() == Usage(executions=1, agents=3, cpu_micros=1_500_000, memory_bytes=2**40)
    await engine.close(planned.execution_id)
    assert await engine.capacity.totals() == NOTHING


async def test_without_a_stated_demand_the_roles_agents_count(engine: Engine) -> None:
    await engine.plan()
    assert (await engine.used()).agents == 2


@pytest.mark.parametrize(
    ("limits", "each"),
    [
        ({"executions": 2}, {"agents": 1}),
        ({"agents": 5}, {"agents": 2}),
        ({"cpu_micros": 2_500_000}, {"agents": 1, "cpu_micros": 1_000_000}),
        ({"memory_bytes": 2**41 + 1}, {"agents": 1, "memory_bytes": 2**40}),
        ({"tenant_executions": 2}, {"agents": 1}),
    ],
)
async def test_what_does_not_fit_waits_whatever_is_short(
    engine: Engine, limits: dict[str, int], each: dict[str, Any]
) -> None:
    engine.limit(**limits)
    assert [(await engine.plan(**each)).waiting for _ in range(3)] == [False, False, True]
    assert (await engine.used()).executions == 2
    assert await engine.waiting() == {"high": 0, "normal": 1, "low": 0}
    assert await engine.start_waiting() == []


async def test_a_tenants_own_limit_keeps_only_that_tenant_waiting(engine: Engine) -> None:
    engine.limit(tenant_executions=1)
    await engine.plan()
    waits = await engine.plan()
    other = await engine.plan(tenant=f"{engine.tenant}-o")
    # A newcomer does not decide whether it may overtake: the scheduler does, a moment later.
    assert other.waiting
    assert await engine.start_waiting() == [other.execution_id]
    assert waits.waiting


async def test_side_by_side_no_more_start_than_fit(engine: Engine) -> None:
    engine.limit(executions=7)
    planned = await asyncio.gather(*(engine.plan() for _ in range(40)))
    assert sum(not item.waiting for item in planned) == 7
    assert (await engine.used()).executions == 7
    assert sum((await engine.waiting()).values()) == 33


async def test_far_from_the_limits_all_start_side_by_side_and_near_them_still_no_more_than_fit(engine: Engine) -> None:
    """The limit lies where starts change from going side by side to going one after the other."""
    async with engine.database.connection() as connection:
        connections = int(await connection.fetchval("SHOW max_connections"))
    engine.limit(agents=connections * 10 + 60)
    planned = await asyncio.gather(*(engine.plan(agents=10) for _ in range(connections + 20)))
    started = sum(not item.waiting for item in planned)
    while await engine.start_waiting():
        pass
    assert (await engine.used()).agents == (connections + 6) * 10
    assert started <= connections + 6


async def test_starts_and_closes_side_by_side_leave_the_sums_right(engine: Engine) -> None:
    engine.limit(executions=5)

    async def one(number: int) -> None:
        planned = await engine.plan(agents=number % 3 + 1)
        if not planned.waiting:
            await engine.close(planned.execution_id)

    await asyncio.gather(*(one(number) for number in range(40)))
    for _ in range(40):
        for execution_id in await engine.start_waiting(3):
            await engine.close(execution_id)
        assert (await engine.used()).executions <= 5
    assert await engine.capacity.totals() == NOTHING
    assert not await engine.capacity.recount()


async def test_those_who_wait_are_started_high_first_and_keep_their_place(engine: Engine) -> None:
    engine.limit(executions=1)
    running = await engine.plan()
    low, normal, high = [(await engine.plan(priority)).execution_id for priority in ("low", "normal", "high")]
    order = []
    held = running.execution_id
    for _ in range(3):
        await engine.close(held)
        (held,) = await engine.start_waiting()
        order.append(held)
    assert order == [high, normal, low]


async def test_a_flood_of_one_tenant_does_not_hold_up_anothers_single_execution(engine: Engine) -> None:
    engine.limit(executions=2)
    flood = [await engine.plan() for _ in range(200)]
    other = f"{engine.tenant}-o"
    single = await engine.plan(tenant=other)
    assert single.waiting
    await engine.close(flood[0].execution_id)
    assert await engine.start_waiting() == [single.execution_id]
    status = await engine.executions.status(other, single.execution_id)
    assert status.queue is None


async def test_two_schedulers_never_start_the_same_and_never_too_many(engine: Engine) -> None:
    engine.limit(executions=1)
    first = await engine.plan()
    for _ in range(60):
        await engine.plan()
    await engine.close(first.execution_id)
    engine.limit(executions=30)
    started = await asyncio.gather(*(engine.start_waiting(10) for _ in range(4)))
    ids = [execution_id for batch in started for execution_id in batch]
    assert len(ids) == len(set(ids)) == 30
    assert (await engine.used()).executions == 30


async def test_above_the_limit_low_priority_is_refused_and_says_when_to_come_back(engine: Engine) -> None:
    engine.limit(executions=1, waiting=3)
    await engine.plan()
    for _ in range(3):
        await engine.plan("low")
    with pytest.raises(TooManyRequestsError, match="3 executions wait") as caught:
        await engine.plan("low")
    assert caught.value.data["retry_after_seconds"] > 0
    assert (await engine.plan("normal")).waiting
    assert (await engine.plan("high")).waiting
    assert (await engine.executions.list(engine.tenant, limit=10, page_token=None)).next_page_token is None


async def by_its_last_tick(engine: Engine, execution_id: UUID, status: ExecutionStatus) -> None:
    row = await engine.maintenance.launch_document(engine.tenant, execution_id)
    assert row is not None
    launch = launch_of(engine.tenant, UUID(row["workflow_id"]), execution_id=execution_id)
    run = Run(engine.journal, launch)
    await run.commit(status=ExecutionStatus.EXECUTING)
    await run.commit(status=status)


async def from_outside(engine: Engine, execution_id: UUID, status: ExecutionStatus) -> None:
    await engine.close(execution_id, status)


@pytest.mark.parametrize("how", [by_its_last_tick, from_outside])
@pytest.mark.parametrize("status", [status for status in ExecutionStatus if status.closed])
async def test_every_kind_of_close_frees_the_share_for_the_next(
    engine: Engine, how: Callable[..., Awaitable[None]], status: ExecutionStatus
) -> None:
    engine.limit(executions=1)
    running, waiting = await engine.plan(), await engine.plan()
    await how(engine, running.execution_id, status)
    assert await engine.used() == Usage()
    assert await engine.start_waiting() == [waiting.execution_id]


async def test_a_paused_execution_keeps_its_share(engine: Engine) -> None:
    engine.limit(executions=1)
    planned = await engine.plan()
    document = await engine.maintenance.launch_document(engine.tenant, planned.execution_id)
    assert document is not None
    launch = launch_of(engine.tenant, UUID(document["workflow_id"]), execution_id=planned.execution_id)
    run = Run(engine.journal, launch)
    await run.commit(status=ExecutionStatus.EXECUTING)
    await run.commit(status=ExecutionStatus.PAUSED)
    assert (await engine.plan()).waiting


async def test_what_waits_is_cancelled_at_once_and_nothing_else_may_be_asked_of_it(engine: Engine) -> None:
    engine.limit(executions=1)
    await engine.plan()
    waiting = (await engine.plan("low")).execution_id
    for action in ("pause", "resume", "checkpoint"):
        control = Control.model_validate({"request_id": str(uuid4()), "action": action})
        with pytest.raises(InvalidTransitionError):
            await engine.executions.request_control(engine.tenant, waiting, control)
    cancel = Control(request_id="c", action="cancel", reason="no longer wanted")
    status, _ = await engine.executions.request_control(engine.tenant, waiting, cancel)
    assert status is ExecutionStatus.CANCELLED
    assert (await engine.executions.request_control(engine.tenant, waiting, cancel))[0] is ExecutionStatus.CANCELLED
    view = await engine.executions.status(engine.tenant, waiting)
    assert set(view.task_states.values()) == {"cancelled"}
    events, _ = await engine.executions.events(engine.tenant, waiting, after_sequence=0, limit=10)
    assert [event.payload["new_status"] for event in events] == ["planning", "cancelled"]
    assert (events[0].payload["queued"], events[0].payload["priority"]) == (True, "low")
    assert sum((await engine.waiting()).values()) == 0


async def test_an_execution_that_is_being_cancelled_is_not_started(engine: Engine) -> None:
    engine.limit(executions=1)
    running = await engine.plan()
    waiting = (await engine.plan()).execution_id
    await engine.close(running.execution_id)
    async with engine.database.tenant_connection(engine.tenant) as connection:
        await connection.execute("SELECT FROM workflow_executions WHERE execution_id = $1 FOR UPDATE", waiting)
        assert await engine.start_waiting() == []
    assert await engine.start_waiting() == [waiting]


async def test_status_shows_the_place_in_the_tenants_own_queue_and_the_allotment(engine: Engine) -> None:
    engine.limit(executions=1)
    workflow_id = await create_workflow(engine.definitions, engine.tenant)
    launch = launch_of(engine.tenant, workflow_id)
    roles = {"worker": KernelRole(type="synthetic", count=1, wanted=2)}
    launch = launch.model_copy(update={"plan": launch.plan.model_copy(update={"roles": roles})})
    running = await engine.executions.insert_planning(
        engine.tenant, launch, {}, {}, "me", allow_concurrent=True, request_hash=None
    )
    view = await engine.executions.status(engine.tenant, running.execution_id)
    assert {name: (a.wanted, a.allotted) for name, a in view.allotment.items()} == {"worker": (2, 1)}
    assert (view.queue, view.current_phase) == (None, None)
    await engine.plan("high", tenant=f"{engine.tenant}-o")
    queued = [await engine.plan(priority) for priority in ("low", "normal", "high", "normal")]
    places = []
    for item in queued:
        view = await engine.executions.status(engine.tenant, item.execution_id, include_tasks=False)
        assert view.queue is not None
        assert (view.current_phase, view.allotment) == ("queued", {})
        places.append((view.queue.priority, view.queue.ahead))
    assert places == [("low", 3), ("normal", 1), ("high", 0), ("normal", 2)]


async def test_the_reconciler_does_not_see_what_waits_and_finishes_what_was_marked_and_not_launched(
    engine: Engine,
) -> None:
    engine.limit(executions=1)
    running = await engine.plan()
    waiting = (await engine.plan()).execution_id
    seen = {row.execution_id for row in await engine.maintenance.unlaunched(-1.0, 100)}
    assert seen == {running.execution_id}
    assert {row.execution_id for row in await engine.maintenance.open_executions(None, 100)} == seen
    assert await engine.maintenance.executions_missing_hosts(engine.tenant, "synthetic") == [running.execution_id]
    await engine.close(running.execution_id)
    before = datetime.now(UTC)
    assert await engine.start_waiting() == [waiting]  # and then the scheduler is killed
    (left,) = await engine.maintenance.unlaunched(-1.0, 100)
    assert left.execution_id == waiting
    assert left.launch is not None
    assert left.launch["started_at_ms"] >= int(before.timestamp() * 1000) > BASE_MS
    relaunched = await engine.maintenance.launch_document(engine.tenant, waiting)
    assert relaunched is not None
    assert relaunched["started_at_ms"] == left.launch["started_at_ms"]
    view = await engine.executions.status(engine.tenant, waiting)
    assert round(view.started_at.timestamp() * 1000) == left.launch["started_at_ms"]


async def test_a_repetition_says_whether_it_still_waits(engine: Engine) -> None:
    engine.limit(executions=1)
    running = await engine.plan()
    workflow_id = await create_workflow(engine.definitions, engine.tenant)
    plan = partial(
        engine.executions.insert_planning, engine.tenant, launch_of(engine.tenant, workflow_id), {}, {}, "me",
        allow_concurrent=False, request_hash="h",
    )  # fmt: skip
    assert (await plan()).waiting
    assert ((again := await plan()).waiting, again.created) == (True, False)
    await engine.close(running.execution_id)
    await engine.start_waiting()
    assert not (await plan()).waiting


async def test_counting_again_repairs_what_does_not_agree(engine: Engine, own_urls: ClusterUrls) -> None:
    await engine.plan(agents=2)
    lost = await engine.plan(agents=5)
    closed = await engine.plan(agents=1)
    async with engine.database.maintenance_connection() as connection:
        await connection.execute("UPDATE capacity_usage SET executions = executions + 9, waiting_low = 4")
        await connection.execute("DELETE FROM capacity_claims WHERE execution_id = $1", lost.execution_id)
        await engine.close(closed.execution_id)
        await connection.execute(
            "INSERT INTO capacity_claims VALUES ($1, $2, false, 1, now(), 7, 0, 0)", engine.tenant, closed.execution_id
        )
    assert await engine.capacity.recount()
    # What a lost claim's agents took is not known; that they are two, its roles say.
    assert (await engine.capacity.totals()) == NOTHING.model_copy(update={"used": Usage(executions=2, agents=4)})
    assert not await engine.capacity.recount()


async def test_the_report_has_the_engines_totals_and_the_tenants_own(engine: Engine) -> None:
    engine.limit(executions=2)
    other = f"{engine.tenant}-o"
    await engine.plan(agents=2)
    await engine.plan(tenant=other, agents=3)
    await engine.plan("low", tenant=other)
    report = await engine.capacity.report(engine.tenant)
    assert report.engine.used == Usage(executions=2, agents=5)
    assert report.engine.waiting == {"high": 0, "normal": 0, "low": 1}
    assert report.tenant.used == Usage(executions=1, agents=2)
    assert report.tenant.waiting == {"high": 0, "normal": 0, "low": 0}
    assert report.open_executions == {"planning": 1}
    nobody = await engine.capacity.report(f"{engine.tenant}-n")
    assert (nobody.tenant, nobody.open_executions) == (NOTHING, {})


async def test_a_round_has_a_limit(engine: Engine) -> None:
    def nobody(state: QueueState, limit: int) -> Turn:
        raise AssertionError

    for limit in (0, 1_001):
        with pytest.raises(InvalidParametersError):
            await engine.capacity.start_waiting(nobody, limit)


async def test_the_application_cannot_see_what_others_hold(engine: Engine, own_urls: ClusterUrls) -> None:
    await engine.plan()
    app: Any = await asyncpg.connect(own_urls.app)
    await app.execute("SELECT set_config('app.tenant', 'stranger', false)")
    assert await app.fetchval("SELECT count(*) FROM capacity_claims") == 0
    assert (await app.fetchrow("SELECT * FROM capacity_totals()"))["executions"] == 1
    assert await app.fetchval("SELECT count(*) FROM capacity_usage") == 0
    await app.close()
