"""Large plans by reference: small payloads in Temporal, one plan in PostgreSQL, and every way back from there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowFailureError, WorkflowHistory
from temporalio.common import RawValue

from cli.replay import replay_runs
from engine.concurrency import end_all, run_together
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput
from engine.embedded.postgres import PostgresServer
from engine.plans import PLANS, PlanLoader
from engine.postgres.cluster import ClusterUrls
from engine.settings import Settings
from engine.temporal import codec
from engine.temporal.claims import PLAN_MARK, mark
from engine.temporal.connection import DATA_CONVERTER, connect
from engine.temporal.launcher import TemporalLauncher, temporal_id
from tests.integration.engine.bench import Bench, chain, definition
from worker import WORKFLOWS, build
from workflows.replay import replay_execution, replay_history

STORED_BYTES_MAX = 50 * 1024


def forget_plans() -> None:
    """As a process that has just started: nothing is cached. Runs keep what they hold."""
    with PLANS._lock:
        PLANS._alive.clear()
        PLANS._recent.clear()
        PLANS._known.clear()
        PLANS._tasks = 0


def wide(tasks: int, **fields: Any) -> list[dict[str, Any]]:
    """Ten rows, each task after one of the row before."""
    width = tasks // 10
    return [
        {"id": f"task-{n}", "depends_on": [f"task-{n - width}"] if n >= width else [], **fields} for n in range(tasks)
    ]


async def started_payloads(bench: Bench, execution_id: UUID) -> list[Payload]:
    """The stored argument of each run of it, first to last."""
    workflow_id = temporal_id(bench.tenant, execution_id)
    found: list[Payload] = []
    description = await bench.client.get_workflow_handle(workflow_id).describe()
    run_id: str | None = description.raw_description.workflow_execution_info.first_run_id
    while run_id:
        history = await bench.client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        found += history.events[0].workflow_execution_started_event_attributes.input.payloads
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found


@asynccontextmanager
async def own_worker(settings: Settings) -> AsyncIterator[None]:
    """A worker of the test's own, with nothing in its cache."""
    forget_plans()
    async with AsyncExitStack() as stack:
        jobs = await build(settings, frozenset({WORKFLOWS}), stack)
        running = asyncio.create_task(run_together(jobs))
        yield
        await end_all([running])


async def until_over(bench: Bench, execution_id: UUID) -> None:
    """Closed in Temporal too, which comes a moment after PostgreSQL."""
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED
    await bench.handle(execution_id).result()


def task_failures(history: WorkflowHistory) -> list[str]:
    """What workflow tasks failed with, causes included."""
    found = []
    for event in history.events:
        failure = event.workflow_task_failed_event_attributes.failure
        while failure.message:
            found.append(failure.message)
            failure = failure.cause
    return found


async def test_a_large_plan_is_stored_once_and_every_run_is_small(bench: Bench) -> None:
    document = definition(*wide(3_000, input={"duration_ms": 5}), agents=8)
    first = await bench.start(document, history_events_max=8)
    second = await bench.start(document)
    await until_over(bench, first)
    await until_over(bench, second)
    payloads = await started_payloads(bench, first)
    assert len(payloads) > 1
    assert max(len(payload.data) for payload in payloads) < STORED_BYTES_MAX
    async with bench.stores.database.tenant_connection(bench.tenant) as connection:
        assert await connection.fetchval("SELECT count(*) FROM kernel_plans") == 1
        assert await connection.fetchval("SELECT max(length(launch)) FROM workflow_executions") < 2_000
    forget_plans()
    client = await connect(bench.settings, PlanLoader(bench.stores.plans), bench.stores.dispatch)
    runs = await replay_execution(client, bench.tenant, str(first))
    assert len(runs) == len(payloads)
    assert [run.failure for run in runs] == [None] * len(runs)


async def test_a_small_plan_travels_whole(bench: Bench) -> None:
    execution_id = await bench.start(definition(*chain(3)))
    await until_over(bench, execution_id)
    [payload] = await started_payloads(bench, execution_id)
    assert b'"tasks":[' in payload.data
    assert PLAN_MARK not in payload.metadata


async def test_without_a_database_the_reference_is_said_to_need_one(bench: Bench) -> None:
    execution_id = await bench.start(definition(*wide(500)))
    await until_over(bench, execution_id)
    forget_plans()
    history = await bench.handle(execution_id).fetch_history()
    replayed = await replay_history(history, DATA_CONVERTER)
    assert "takes the engine's database" in str(replayed.failure)


async def test_an_execution_launched_by_the_reconciler_finds_its_plan(bench: Bench) -> None:
    launch = await bench.plan_row(definition(*wide(500)))
    forget_plans()
    view = await bench.until_closed(UUID(launch.execution_id))
    assert view.status is ExecutionStatus.COMPLETED
    [payload, *_] = await started_payloads(bench, UUID(launch.execution_id))
    assert PLAN_MARK in payload.metadata


async def test_a_worker_that_has_just_started_goes_on_with_a_run_of_another(bench: Bench) -> None:
    settings = bench.settings.model_copy(update={"task_queue": f"of-{bench.tenant}"})
    launch = await bench.plan_row(definition(*wide(500), *chain(3, input={"duration_ms": 300})))
    execution_id = UUID(launch.execution_id)
    await TemporalLauncher(bench.client, settings).launch(launch)
    async with own_worker(settings):
        await bench.until_event(execution_id, "task.completed", task_id="t0")
    async with own_worker(settings):
        await until_over(bench, execution_id)
    forget_plans()
    await bench.assert_replays(execution_id)


async def test_a_plan_that_is_missing_is_said_and_the_execution_goes_on_once_it_is_back(
    bench: Bench, postgres_server: PostgresServer, migrated_database: ClusterUrls
) -> None:
    launch = await bench.plan_row(definition(*wide(500)))
    execution_id = UUID(launch.execution_id)
    plan_hash = PLANS.identity(launch.plan).plan_hash
    database = migrated_database.owner.rsplit("/", 1)[1]
    superuser = await asyncpg.connect(postgres_server.url.rsplit("/", 1)[0] + "/" + database)
    # Not possible otherwise: the execution's foreign key keeps its plan.
    await superuser.execute("SET session_replication_role = replica")
    taken = await superuser.fetchrow("DELETE FROM kernel_plans WHERE tenant = $1 RETURNING *", bench.tenant)
    assert taken is not None
    await bench.launcher.launch(launch)
    del launch
    forget_plans()

    async def said() -> bool:
        history = await bench.handle(execution_id).fetch_history()
        return any(f"plan {plan_hash} of tenant {bench.tenant}" in text for text in task_failures(history))

    await bench.until(said, "the missing plan is named")
    await superuser.execute("INSERT INTO kernel_plans VALUES ($1, $2, $3, $4)", *taken.values())
    await superuser.close()
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED


async def test_another_tenants_plan_is_not_resolved(bench: Bench) -> None:
    theirs = await bench.plan_row(definition(*wide(500)))
    [payload] = bench.client.data_converter.payload_converter.to_payloads([theirs])
    assert payload.metadata[PLAN_MARK] == mark(bench.tenant, PLANS.identity(theirs.plan).plan_hash)
    forged = Payload(metadata=payload.metadata, data=payload.data.replace(f'"{bench.tenant}"'.encode(), b'"intruder"'))
    refused = await _start(bench, "intruder", forged)

    async def said() -> bool:
        return any("names another tenant" in text for text in task_failures(await refused.fetch_history()))

    await bench.until(said, "the mark is refused")
    await refused.terminate()
    # Consistent in itself, but under an id of another tenant.
    failed = await _start(bench, "intruder", payload)
    with pytest.raises(WorkflowFailureError) as caught:
        await failed.result()
    assert "another execution" in str(caught.value.cause)


async def _start(bench: Bench, tenant: str, payload: Payload) -> Any:
    return await bench.client.start_workflow(
        "SupervisorWorkflow", RawValue(payload), id=temporal_id(tenant, uuid4()), task_queue=bench.settings.task_queue
    )


async def test_what_a_run_hands_on_goes_by_reference_when_it_is_large(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "THRESHOLD_BYTES", 500)
    monkeypatch.setattr(codec, "CARRY_INLINE_BYTES_MAX", 200)
    rows = [[{"id": f"{side}{n}", "depends_on": [f"a{n - 1}", f"b{n - 1}"] if n else []} for side in "ab"]
            for n in range(6)]  # fmt: skip
    tasks = [{**task, "input": {"duration_ms": 100}} for row in rows for task in row]
    execution_id = await bench.start(definition(*tasks), history_events_max=8)
    await until_over(bench, execution_id)
    first, *later = await started_payloads(bench, execution_id)
    assert later
    assert first.metadata["encoding"] == codec.ENCODING
    assert {payload.metadata["encoding"] for payload in later} == {codec.REFERENCE_ENCODING}
    assert await bench.assert_replays(execution_id) == 1 + len(later)
    [carried] = await bench.client.data_converter.decode(later[:1], [ExecutionInput])
    assert carried.execution_id == str(execution_id)
    assert carried.carry is not None


async def test_the_replay_command_reads_plans_from_the_database_that_settings_name(bench: Bench) -> None:
    execution_id = await bench.start(definition(*wide(500)))
    await until_over(bench, execution_id)
    forget_plans()
    [run] = await replay_runs(bench.settings, bench.tenant, str(execution_id))
    assert run.ok
