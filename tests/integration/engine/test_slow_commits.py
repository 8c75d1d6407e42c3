"""A database that takes a second for each commit, and agents that do not wait for it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause

from engine.concurrency import end_all, run_together
from engine.contracts.execution import ExecutionStatus
from engine.embedded.valkey import ValkeyServer
from engine.events.bridge import Bridge
from engine.postgres.cluster import ClusterUrls
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.stores import Stores
from engine.settings import Settings
from tests.integration.engine.bench import Bench, definition, open_bench
from worker import ROLES, build

COMMIT_SECONDS: Final = 1.0
RESULTS_PER_SECOND: Final = 150
SECONDS: Final = 20
TASKS: Final = RESULTS_PER_SECOND * SECONDS
AGENTS: Final = 80
SLOTS: Final = 8
"""More at once than are done while a commit lasts, so that results come in all the time."""
HELD_BYTES_BOUND: Final = 4 * 1024 * 1024
"""All reports of the run, held at once, would be nearly twice that."""
DEADLINE_SECONDS: Final = 80.0
LOOK_SECONDS: Final = 0.05
CLOSED: Final = frozenset({ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED})

SLOW_COMMITS = """
CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep({seconds});
    RETURN NEW;
END $$;
CREATE TRIGGER slow_commit BEFORE INSERT ON tick_journal
    FOR EACH ROW WHEN (NEW.tenant = '{tenant}') EXECUTE FUNCTION slow_commit();
"""
NO_SLOW_COMMITS = "DROP TRIGGER slow_commit ON tick_journal; DROP FUNCTION slow_commit();"


@pytest.fixture
async def slow_commits(migrated_database: ClusterUrls, tenant: str) -> AsyncIterator[None]:
    """Each tick of this tenant stays in its transaction for a second."""
    connection = await asyncpg.connect(migrated_database.owner)
    await connection.execute(SLOW_COMMITS.format(seconds=COMMIT_SECONDS, tenant=tenant))
    yield
    await connection.execute(NO_SLOW_COMMITS)
    await connection.close()


class Watched:
    """An engine whose bridge can be looked at, with streams of its own: no other test's bridge reads them."""

    def __init__(self, bench: Bench, bridge: Bridge) -> None:
        self.bench = bench
        self.bridge = bridge
        self.held_bytes_max = 0

    async def watch(self) -> None:
        while True:
            self.held_bytes_max = max(self.held_bytes_max, self.bridge._held_bytes)
            await asyncio.sleep(LOOK_SECONDS)


@pytest.fixture
async def watched(
    engine_settings: Settings,
    valkey_server: ValkeyServer,
    stores: Stores,
    tenant: str,
    slow_commits: None,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Watched]:
    url = valkey_server.url.removesuffix("/0") + "/9"
    settings = engine_settings.model_copy(update={"redis_url": SecretStr(url), "task_queue": "slow-commits"})
    async with AsyncExitStack() as stack:
        made: list[Bridge] = []

        def make(*arguments: Any, **options: Any) -> Bridge:
            made.append(Bridge(*arguments, **options))
            return made[-1]

        monkeypatch.setattr("worker.Bridge", make)
        # Another engine of this process may lead in the same database, and reads other streams.
        lead = PostgresMaintenanceStore.leader
        monkeypatch.setattr(PostgresMaintenanceStore, "leader", lambda self, name: lead(self, f"slow {name}"))
        jobs = await build(settings, ROLES, stack)
        [bridge] = made
        running = asyncio.create_task(run_together(jobs))
        bench = await stack.enter_async_context(open_bench(settings, stores, tenant, slots=SLOTS))
        await bench.start_host()
        watched = Watched(bench, bridge)
        watcher = asyncio.create_task(watched.watch())
        yield watched
        await bench.stop()
        await end_all([watcher, running])
        await bench.redis.flushdb()


async def test_results_that_come_faster_than_commits_neither_fail_workflow_tasks_nor_pile_up_nor_get_lost(
    watched: Watched,
) -> None:
    bench, source = watched.bench, random.Random(1)
    tasks: list[dict[str, Any]] = [
        {"id": f"t{number}", "input": {"duration_ms": source.randint(200, 2_800)}, "timeout_seconds": 60}
        for number in range(TASKS)
    ]
    execution_id = await bench.start(definition(*tasks, agents=AGENTS))
    view = await bench.until(lambda: _closed(bench, execution_id), "it ends", DEADLINE_SECONDS)
    assert view is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    done = [event for event in events if event.event_type == "task.completed"]
    assert sorted(event.payload["task_id"] for event in done) == sorted(task["id"] for task in tasks)
    assert {event.payload["status"] for event in done} == {"success"}
    assert {event.payload["attempt"] for event in done} == {1}
    seconds = (done[-1].timestamp - done[0].timestamp).total_seconds()
    assert TASKS / seconds >= RESULTS_PER_SECOND / 2, f"{TASKS / seconds:.0f} results/s are no load"
    assert await _workflow_task_failures(bench, execution_id) == []
    assert 0 < watched.held_bytes_max < HELD_BYTES_BOUND
    await bench.until(lambda: _nothing_held(watched.bridge), "the bridge holds nothing any more")


async def _closed(bench: Bench, execution_id: UUID) -> ExecutionStatus | None:
    status = (await bench.stores.executions.status(bench.tenant, execution_id, include_tasks=False)).status
    return status if status in CLOSED else None


async def _nothing_held(bridge: Bridge) -> bool:
    return bridge._held_bytes == 0


async def _workflow_task_failures(bench: Bench, execution_id: UUID) -> list[str]:
    """Of all runs. One that fails because a signal arrived as it ended is none: it is merely done again."""
    found = []
    workflow_id = f"{bench.tenant}/{execution_id}"
    description = await bench.handle(execution_id).describe()
    run_id = description.raw_description.workflow_execution_info.first_run_id
    while run_id:
        history = await bench.client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        for event in history.events:
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT:
                found.append("timed out")
            elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                cause = event.workflow_task_failed_event_attributes.cause
                if cause != WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND:
                    found.append(WorkflowTaskFailedCause.Name(cause))
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found
