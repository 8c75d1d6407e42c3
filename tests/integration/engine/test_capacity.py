"""Constraints and the queue with everything real: gateway's operations, scheduler, Temporal, hosts."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest

from engine.concurrency import end_all, run_together
from engine.contracts.definition import WorkflowDefinition
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Control
from engine.contracts.views import ExecutionEvent, ExecutionStarted
from engine.embedded.postgres import PostgresServer
from engine.errors import UnavailableError
from engine.postgres.cluster import ClusterUrls, prepare_cluster
from engine.postgres.migrate import migrate
from engine.postgres.stores import Stores
from engine.recovery.scheduler import CapacityScheduler
from engine.security.principal import Principal
from engine.settings import Settings
from gateway.operations.executions import ExecuteWorkflow, ExecutionOperations
from gateway.operations.operation import Caller
from gateway.operations.planning import PlanningDesk
from gateway.planning import GraphPlanning
from planner.planner import Planner
from tests.integration.engine.bench import Bench, definition, open_bench, types
from tests.passwords import APP_PASSWORD, OWNER_PASSWORD
from worker import ROLES, build

SLOW = {"id": "a", "input": {"duration_ms": 60_000}}


@pytest.fixture(scope="module")
async def own_urls(postgres_server: PostgresServer) -> ClusterUrls:
    """A database of its own: what runs is counted over all tenants."""
    urls = await prepare_cluster(
        postgres_server.url, owner_password=OWNER_PASSWORD, app_password=APP_PASSWORD, database="queueing_tests"
    )
    await migrate(urls.owner)
    return urls


@pytest.fixture(scope="module")
def small_settings(engine_settings: Settings, own_urls: ClusterUrls) -> Settings:
    """An engine that runs two executions at once, with servers in common and nothing else."""
    redis_url = engine_settings.redis_url.get_secret_value().rsplit("/", 1)[0] + "/1"
    return Settings.model_validate(
        engine_settings.model_dump()
        | {
            "database_url": own_urls.app, "redis_url": redis_url, "task_queue": "queueing",
            "capacity_executions_max": 2, "queue_waiting_max": 300,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
async def small_stores(small_settings: Settings) -> AsyncIterator[Stores]:
    async with Stores.open(small_settings) as stores:
        yield stores


@pytest.fixture(scope="module")
async def small_worker(small_settings: Settings) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        running = asyncio.create_task(run_together(await build(small_settings, ROLES, stack)))
        yield
        await end_all([running])


class Queueing:
    """Requests of tenants to an engine with little capacity."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        stores, settings = bench.stores, bench.settings
        self.desk = PlanningDesk(GraphPlanning(Planner()), stores.definitions)
        self.operations = ExecutionOperations(
            self.desk, stores.executions, stores.dispatch, bench.launcher, settings.event_partitions, settings.capacity
        )
        self.opened: list[tuple[str, UUID]] = []

    async def execute(self, document: dict[str, Any], tenant: str | None = None, **options: Any) -> ExecutionStarted:
        tenant = tenant or self.bench.tenant
        parsed: WorkflowDefinition = await self.desk.parse(document)
        plan = await self.desk.plan(parsed)
        workflow_id, _ = await self.bench.stores.definitions.create(
            tenant, parsed.model_dump(mode="json"), plan.plan_hash, plan, "tester"
        )
        request = ExecuteWorkflow.model_validate(
            {"workflow_id": workflow_id, "input_data": {}, "execution_options": {"allow_concurrent": True, **options}}
        )
        principal = Principal("tester", tenant, ("admin",), frozenset(), 0.0)
        started = await self.operations.execute(
            Caller(principal, "127.0.0.1", "r", "http://engine.test", uuid.uuid4()), request
        )
        self.opened.append((tenant, started.execution_id))
        return started

    async def slow(self, tenant: str | None = None, **options: Any) -> ExecutionStarted:
        return await self.execute(definition(SLOW, agents=1), tenant, **options)

    async def cancel(self, execution_id: UUID) -> None:
        await self.bench.ask(execution_id, "cancel")

    async def executing(self, started: ExecutionStarted) -> None:
        await self.bench.until_status(started.execution_id, ExecutionStatus.EXECUTING)

    async def close_all(self) -> None:
        for tenant, execution_id in reversed(self.opened):
            await self.bench.stores.executions.close_from_outside(
                tenant, execution_id, ExecutionStatus.CANCELLED, "TEST_OVER", "the test is over"
            )


@pytest.fixture
async def queueing(
    small_settings: Settings, small_stores: Stores, small_worker: None, tenant: str
) -> AsyncIterator[Queueing]:
    async with open_bench(small_settings, small_stores, tenant) as bench:
        await bench.start_host()
        queueing = Queueing(bench)
        yield queueing
        await queueing.close_all()


def bound_agents(events: list[ExecutionEvent]) -> list[set[str]]:
    """Which agents were bound after each event of the audit log."""
    now: set[str] = set()
    history = []
    for event in events:
        if event.event_type == "agent.bound":
            now = now | {event.payload["agent_id"]}
        elif event.event_type == "agent.disconnected":
            now = now - {event.payload["agent_id"]}
        history.append(now)
    return history


async def test_the_agents_bound_never_exceed_the_constraints_also_when_hosts_are_lost(queueing: Queueing) -> None:
    bench = queueing.bench
    tasks = [{"id": f"t{n}", "input": {"duration_ms": 300}} for n in range(100)]
    tasks += [{"id": f"u{n}", "agent": "helper", "input": {"duration_ms": 400}} for n in range(4)]
    document = definition(*tasks, agents=6)
    document["agents"]["worker"]["resources"] = {"cpu": "1"}
    document["agents"]["helper"] = {"type": "synthetic", "count": 4, "resources": {"cpu": "500m"}}
    started = await queueing.execute(document, resource_constraints={"max_agents": 5, "max_cpu": "3"})
    await bench.until_event(started.execution_id, "task.completed")
    (host,) = bench.hosts
    spare = await bench.start_host()
    host.stop()
    view = await bench.until_closed(started.execution_id)
    assert view.status is ExecutionStatus.COMPLETED
    assert bench.hosts.pop(host) is not None
    assert spare in bench.hosts
    events = await bench.events(started.execution_id)
    assert "agent.disconnected" in types(events)
    history = bound_agents(events)
    assert max(len(agents) for agents in history) == 4
    for agents in history:
        assert sum(1.0 if agent.startswith("worker") else 0.5 for agent in agents) <= 3.0
    assert {role: (a.wanted, a.allotted) for role, a in view.allotment.items()} == {"helper": (4, 2), "worker": (6, 2)}
    (begun,) = [event.payload for event in events if event.event_type == "workflow.execution_started"]
    assert (begun["agents_total"], begun["agents_wanted"]) == (4, 10)


async def test_the_next_starts_soon_after_a_close_and_its_time_runs_from_there(queueing: Queueing) -> None:
    bench = queueing.bench
    first, second = await queueing.slow(), await queueing.slow()
    await queueing.executing(first)
    await queueing.executing(second)
    third = await queueing.execute(definition({"id": "a", "input": {"duration_ms": 300}}, agents=1), timeout=4)
    assert (third.queued, (await bench.status(third.execution_id)).current_phase) == (True, "queued")
    planned_at = (await bench.events(third.execution_id))[0].recorded_at
    # Longer than its timeout: waiting does not count.
    await bench.until(lambda: _seconds_since(bench, planned_at, 4.2), "the third has waited")
    assert (await bench.status(third.execution_id)).status is ExecutionStatus.PLANNING
    await queueing.cancel(first.execution_id)
    view = await bench.until_closed(third.execution_id)
    assert view.status is ExecutionStatus.COMPLETED
    closed = await bench.until_closed(first.execution_id)
    assert closed.completed_at is not None
    assert (view.started_at - closed.completed_at).total_seconds() < 0.5


async def _seconds_since(bench: Bench, when: Any, seconds: float) -> bool:
    async with bench.stores.database.connection() as connection:
        now = await connection.fetchval("SELECT clock_timestamp()")
    return bool((now - when).total_seconds() >= seconds)


async def test_one_tenants_flood_of_200_does_not_keep_anothers_single_execution_waiting(queueing: Queueing) -> None:
    bench = queueing.bench
    running = [await queueing.slow(), await queueing.slow()]
    for started in running:
        await queueing.executing(started)
    flood = [await queueing.slow() for _ in range(200)]
    other = f"{bench.tenant}-o"
    single = await queueing.slow(other)
    high = await queueing.slow(priority="high")
    assert all(item.queued for item in (*flood, single, high))
    await queueing.cancel(running[0].execution_id)
    await queueing.executing(high)
    await queueing.cancel(running[1].execution_id)

    async def single_started() -> bool:
        return (await bench.stores.executions.status(other, single.execution_id)).queue is None

    await bench.until(single_started, "the other tenant's turn")
    for item in flood[:3]:
        assert (await bench.status(item.execution_id)).queue is not None
    assert (await bench.stores.capacity.totals()).used.executions == 2


async def test_a_waiting_execution_is_cancelled_at_once_and_never_reaches_temporal(queueing: Queueing) -> None:
    bench = queueing.bench
    await queueing.slow()
    await queueing.slow()
    waiting = await queueing.slow()
    cancel = Control(request_id=str(uuid.uuid4()), action="cancel")
    status, _ = await bench.stores.executions.request_control(bench.tenant, waiting.execution_id, cancel)
    assert status is ExecutionStatus.CANCELLED
    assert [event.event_type for event in await bench.events(waiting.execution_id)] == ["workflow.status_changed"] * 2


async def test_what_a_killed_scheduler_marked_and_did_not_launch_is_launched_by_the_reconciler(
    queueing: Queueing, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = queueing.bench
    killed: list[str] = []

    async def killed_before_launching(self: CapacityScheduler, rows: Any) -> None:
        if rows:
            killed.extend(str(row.execution_id) for row in rows)
            raise UnavailableError("the scheduler ends here")

    monkeypatch.setattr(CapacityScheduler, "_launch_all", killed_before_launching)
    first = await queueing.slow()
    await queueing.slow()
    waiting = await queueing.execute(definition({"id": "a"}, agents=1))
    assert waiting.queued
    await queueing.cancel(first.execution_id)
    await bench.until(lambda: _marked(killed, waiting), "it is marked as started")
    assert (await bench.until_closed(waiting.execution_id)).status is ExecutionStatus.COMPLETED
    assert killed == [str(waiting.execution_id)]


async def _marked(killed: list[str], started: ExecutionStarted) -> bool:
    return str(started.execution_id) in killed


async def test_a_run_that_is_terminated_in_temporal_frees_its_share(queueing: Queueing) -> None:
    bench = queueing.bench
    first = await queueing.slow()
    await queueing.slow()
    await queueing.executing(first)
    waiting = await queueing.slow()
    await bench.handle(first.execution_id).terminate()
    await queueing.executing(waiting)


async def test_50_executions_go_through_two_places_and_the_sums_end_at_nothing(queueing: Queueing) -> None:
    bench = queueing.bench
    document = definition({"id": "a", "input": {"duration_ms": 5}}, agents=1)
    started = await asyncio.gather(*(queueing.execute(document) for _ in range(50)))
    most = 0

    async def all_closed() -> bool:
        nonlocal most
        totals = await bench.stores.capacity.totals()
        most = max(most, totals.used.executions)
        return totals.used.executions == 0 and not any(totals.waiting.values())

    await bench.until(all_closed, "all are done", 60.0)
    for item in started:
        assert (await bench.status(item.execution_id)).status is ExecutionStatus.COMPLETED
    assert 1 <= most <= 2
    assert not await bench.stores.capacity.recount()
