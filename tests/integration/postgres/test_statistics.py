"""Statistics of executions against a real server: what is counted, for whom, and while others write."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import TerminalError
from engine.embedded.postgres import PostgresServer
from engine.errors import InvalidParametersError
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.pool import Database
from engine.postgres.retention import PostgresRetentionStore
from engine.postgres.statistics import PostgresStatisticsStore
from tests.integration.postgres.builders import Run, plan_execution
from tests.integration.postgres.conftest import DATABASE_NAME


class Desk:
    def __init__(self, database: Database, superuser: "asyncpg.Connection[asyncpg.Record]", tenant: str) -> None:
        self.database, self.superuser, self.tenant = database, superuser, tenant
        self.store = PostgresStatisticsStore(database)

    async def run(self, status: ExecutionStatus | None, seconds: float = 1.0, error: str | None = None) -> Run:
        """Closed like that after so long; open without a status."""
        definitions, executions = PostgresDefinitionStore(self.database), PostgresExecutionStore(self.database)
        run = await plan_execution(definitions, executions, PostgresJournal(self.database), self.tenant)
        await run.start()
        if status is not None:
            failure = TerminalError(error_code=error, error_message="m") if error else None
            await run.commit(status=status, error=failure)
            await self.superuser.execute(
                "UPDATE workflow_executions SET completed_at = started_at + $2 * interval '1 second' "
                "WHERE execution_id = $1",
                run.execution_id, seconds,
            )  # fmt: skip
        return run


@pytest.fixture
async def desk(database: Database, postgres_server: PostgresServer, tenant: str) -> AsyncIterator[Desk]:
    superuser = await asyncpg.connect(postgres_server.url.rsplit("/", 1)[0] + f"/{DATABASE_NAME}")
    yield Desk(database, superuser, tenant)
    await superuser.close()


async def test_executions_are_counted_in_all_by_pattern_and_by_workflow(desk: Desk) -> None:
    nothing = await desk.store.report(desk.tenant, limit=10)
    assert nothing.as_of is None
    assert nothing.total.executions == dict.fromkeys((status.value for status in ExecutionStatus), 0)
    done = [await desk.run(ExecutionStatus.COMPLETED, seconds) for seconds in range(1, 21)]
    await desk.run(ExecutionStatus.FAILED, error="TASK_FAILED")
    await desk.run(ExecutionStatus.FAILED, error="STALLED")
    failed = await desk.run(ExecutionStatus.FAILED, error="TASK_FAILED")
    await desk.run(ExecutionStatus.CANCELLED)
    await desk.run(None)
    await desk.store.refresh(desk.tenant)
    report = await desk.store.report(desk.tenant, limit=100)
    assert report.as_of is not None
    assert report.total.executions == {
        "planning": 0, "executing": 1, "paused": 0, "completed": 20, "failed": 3, "cancelled": 1,
    }  # fmt: skip
    assert (report.total.duration_p50_seconds, report.total.duration_p95_seconds) == (10, 19)
    assert report.total.failures == {"TASK_FAILED": 2, "STALLED": 1}
    assert report.patterns == {"supervisor": report.total}
    assert len(report.items) == 25
    assert report.next_page_token is None
    (one,) = (await desk.store.report(desk.tenant, limit=10, workflow_id=failed.workflow_id)).items
    assert (one.workflow_id, one.version, one.orchestration_pattern) == (failed.workflow_id, "1.0.0", "supervisor")
    assert one.failures == {"TASK_FAILED": 1}
    assert one.duration_p50_seconds is None
    (other,) = (await desk.store.report(desk.tenant, limit=10, workflow_id=done[6].workflow_id)).items
    assert other.duration_p95_seconds == 7


async def test_workflows_come_in_pages(desk: Desk) -> None:
    runs = [await desk.run(None) for _ in range(5)]
    await desk.store.refresh(desk.tenant)
    token, seen = None, []
    for size in (2, 2, 1):
        page = await desk.store.report(desk.tenant, limit=2, page_token=token)
        assert len(page.items) == size
        seen += [item.workflow_id for item in page.items]
        token = page.next_page_token
    assert token is None
    assert sorted(seen) == sorted(run.workflow_id for run in runs)
    for limit, bad in ((0, None), (10, "x")):
        with pytest.raises(InvalidParametersError):
            await desk.store.report(desk.tenant, limit=limit, page_token=bad)


async def test_what_has_gone_is_counted_no_more(desk: Desk) -> None:
    keep, gone = await desk.run(ExecutionStatus.COMPLETED), await desk.run(ExecutionStatus.COMPLETED)
    await desk.store.refresh(desk.tenant)
    retention = PostgresRetentionStore(desk.database)
    await retention.delete_execution(desk.tenant, gone.execution_id)
    await desk.store.refresh(desk.tenant)
    report = await desk.store.report(desk.tenant, limit=10)
    assert [item.workflow_id for item in report.items] == [keep.workflow_id]
    await retention.delete_execution(desk.tenant, keep.execution_id)
    # Without any execution the tenant is found by what was counted.
    assert desk.tenant in await _all_tenants(desk.store)
    await desk.store.refresh(desk.tenant)
    assert (await desk.store.report(desk.tenant, limit=10)).as_of is None
    assert desk.tenant not in await _all_tenants(desk.store)


async def _all_tenants(store: PostgresStatisticsStore) -> list[str]:
    """In pages of three, to meet the end of one."""
    found: list[str] = []
    while page := await store.tenants(found[-1] if found else "", 3):
        found += page
    return found


async def test_tenants_are_found_once_and_in_order(desk: Desk, database: Database) -> None:
    other = Desk(database, desk.superuser, f"t-{uuid.uuid4().hex[:16]}")
    for one in (desk, other):
        await one.run(None)
        await one.run(None)
    await desk.store.refresh(desk.tenant)
    tenants = await _all_tenants(desk.store)
    assert tenants == sorted(set(tenants))
    assert {desk.tenant, other.tenant} <= set(tenants)


async def test_a_tenant_sees_its_own_only(desk: Desk, database: Database) -> None:
    run = await desk.run(ExecutionStatus.FAILED, error="SECRET")
    await desk.store.refresh(desk.tenant)
    stranger = await desk.store.report("stranger", limit=10, workflow_id=run.workflow_id)
    assert (stranger.items, stranger.patterns, stranger.as_of) == ((), {}, None)
    async with database.tenant_connection("stranger") as connection:
        assert await connection.fetchval("SELECT count(*) FROM execution_statistics") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM execution_statistics")


async def test_readers_wait_for_no_refresh_and_see_it_whole(desk: Desk) -> None:
    await desk.run(ExecutionStatus.COMPLETED)
    await desk.store.refresh(desk.tenant)
    before = await desk.store.report(desk.tenant, limit=10)
    await desk.run(None)
    # A refresh that is not committed: another connection holds its rows.
    refreshing = desk.superuser.transaction()
    await refreshing.start()
    await desk.superuser.execute(desk.database.queries["statistics.refresh"], desk.tenant)
    assert await asyncio.wait_for(desk.store.report(desk.tenant, limit=10), 2) == before
    await desk.run(ExecutionStatus.COMPLETED)
    await refreshing.commit()
    after = await desk.store.report(desk.tenant, limit=10)
    assert after.total.executions["executing"] == 1
    assert isinstance(after.items[0].workflow_id, UUID)


async def test_one_process_leads(desk: Desk) -> None:
    async with desk.store.leader("s-test") as first, desk.store.leader("s-test") as second:
        assert (first, second) == (True, False)
