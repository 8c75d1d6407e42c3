"""Deleting what is old, against a real server: all of an execution, nothing of any other, and nothing too early."""

import asyncio
import hashlib
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Checkpoint, Control, ExecutionInput
from engine.contracts.views import OperationRecord
from engine.embedded.postgres import PostgresServer
from engine.errors import NotFoundError
from engine.plans import PLANS, plan_document
from engine.ports import HostRecord
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.dispatch import PostgresDispatchStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.hosts import PostgresHostStore
from engine.postgres.idempotency import PostgresIdempotencyKeys
from engine.postgres.journal import PostgresJournal
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.operations import PostgresOperationLog
from engine.postgres.plans import PostgresPlanStore
from engine.postgres.pool import Database
from engine.postgres.queries import load_queries
from engine.postgres.retention import PostgresRetentionStore
from tests.integration.postgres.builders import Run, attempt, create_workflow, done, event, launch_of, result
from tests.integration.postgres.conftest import DATABASE_NAME

Superuser = asyncpg.Connection
MANY = tuple(f"task-{n}" for n in range(500))
ALL = 10_000

OF_OPEN_EXECUTIONS = {"capacity_claims"}
"""Rows that go when the execution is closed."""


@pytest.fixture
def retention(database: Database) -> PostgresRetentionStore:
    return PostgresRetentionStore(database)


def superuser_url(server: PostgresServer) -> str:
    return server.url.rsplit("/", 1)[0] + f"/{DATABASE_NAME}"


@pytest.fixture
async def superuser(postgres_server: PostgresServer, database: Database) -> AsyncIterator[Superuser]:
    connection = await asyncpg.connect(superuser_url(postgres_server))
    yield connection
    await connection.close()


@pytest.fixture
def plan_large(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> "LargePlanner":
    return LargePlanner(definitions, executions, journal, tenant)


class LargePlanner:
    """Plans executions of one workflow whose plan is stored by itself."""

    def __init__(
        self,
        definitions: PostgresDefinitionStore,
        executions: PostgresExecutionStore,
        journal: PostgresJournal,
        tenant: str,
    ) -> None:
        self.definitions, self.executions, self.journal, self.tenant = definitions, executions, journal, tenant
        self.workflow_id: UUID | None = None

    async def __call__(self) -> Run:
        launch = await self.launch()
        await self.insert(launch)
        return Run(self.journal, launch)

    async def launch(self) -> ExecutionInput:
        if self.workflow_id is None:
            self.workflow_id = await create_workflow(self.definitions, self.tenant, MANY)
        return launch_of(self.tenant, self.workflow_id, MANY)

    async def insert(self, launch: ExecutionInput) -> None:
        await self.executions.insert_planning(
            self.tenant, launch, {}, {}, "someone", allow_concurrent=True, request_hash=None
        )


async def fill(run: Run, executions: PostgresExecutionStore, dispatch: PostgresDispatchStore) -> None:
    """Something in every table that an ordinary execution writes; closed at the end."""
    await run.start()
    reference = await dispatch.put_payload(run.tenant, run.execution_id, b'"large"')
    await run.commit(assigned=(attempt("task-0"),), audit=(event(AuditEventType.TASK_ASSIGNED, task_id="task-0"),))
    point = Checkpoint(checkpoint_id=str(uuid.uuid4()), reason="requested", completed=())
    await run.commit(done=(done("task-0"),), results=(result("task-0", reference),), checkpoint=point)
    control = Control(request_id=str(uuid.uuid4()), action="checkpoint")
    await executions.request_control(run.tenant, run.execution_id, control)
    await run.commit(status=ExecutionStatus.COMPLETED)


async def age(superuser: Superuser, run: Run, days: float) -> None:
    await superuser.execute(
        "UPDATE workflow_executions SET completed_at = completed_at - $3 * interval '1 day' "
        "WHERE tenant = $1 AND execution_id = $2",
        run.tenant, run.execution_id, days,
    )  # fmt: skip


async def tables_with_executions(superuser: Superuser) -> dict[str, str]:
    """Table -> its column with an execution's id. Not the log of events, which goes by partitions."""
    rows = await superuser.fetch(
        "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables "
        "USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE' "
        "AND column_name IN ('execution_id', 'workflow_execution_id') AND table_name NOT LIKE 'execution\\_events%' "
        # A host that serves one execution names it, and goes by its own retention.
        "AND table_name <> 'agent_hosts' ORDER BY column_name"
    )
    return {row["table_name"]: row["column_name"] for row in rows}


async def counts(superuser: Superuser, run: Run) -> dict[str, int]:
    return {
        table: await superuser.fetchval(f"SELECT count(*) FROM {table} WHERE {column} = $1", run.execution_id)  # noqa: S608
        for table, column in (await tables_with_executions(superuser)).items()
    }


async def plans_of(superuser: Superuser, tenant: str) -> int:
    count: int = await superuser.fetchval("SELECT count(*) FROM kernel_plans WHERE tenant = $1", tenant)
    return count


async def test_every_table_with_rows_of_executions_is_thought_of(superuser: Superuser) -> None:
    statement = load_queries()["retention.delete_execution"]
    deleted = set(re.findall(r"DELETE FROM (\w+)", statement))
    assert set(await tables_with_executions(superuser)) - OF_OPEN_EXECUTIONS == deleted


async def test_an_old_execution_goes_with_everything_of_it_and_no_other_does(
    plan_large: LargePlanner, executions: PostgresExecutionStore, dispatch: PostgresDispatchStore,
    retention: PostgresRetentionStore, superuser: Superuser,
) -> None:  # fmt: skip
    old, young = await plan_large(), await plan_large()
    for run in (old, young):
        await fill(run, executions, dispatch)
        await age(superuser, run, days=10)
    await age(superuser, old, days=21)
    before = await counts(superuser, young)
    assert {table for table, count in before.items() if count == 0} <= OF_OPEN_EXECUTIONS | {
        "hook_executions", "hook_deliveries", "execution_growth", "execution_groups", "execution_waits",
        "external_events", "reuse_keys", "execution_compensations",
    }  # fmt: skip

    assert (old.tenant, old.execution_id) not in await retention.expired(30, ALL)
    for run in (old, young):
        await retention.delete_journal(run.tenant, run.execution_id)
    expired = await retention.expired(30, ALL)
    assert (old.tenant, old.execution_id) in expired
    assert (young.tenant, young.execution_id) not in expired
    await retention.delete_execution(old.tenant, old.execution_id)
    assert set((await counts(superuser, old)).values()) == {0}
    assert await counts(superuser, young) == {**before, "tick_journal": 0}
    with pytest.raises(NotFoundError):
        await executions.status(old.tenant, old.execution_id)
    assert await plans_of(superuser, old.tenant) == 1

    await retention.delete_execution(young.tenant, young.execution_id)
    assert await plans_of(superuser, old.tenant) == 0
    await retention.delete_execution(young.tenant, young.execution_id)


async def test_journals_of_what_is_open_or_was_closed_just_now_are_kept(
    plan_large: LargePlanner, retention: PostgresRetentionStore, superuser: Superuser
) -> None:
    still_open, fresh, old, older = [await plan_large() for _ in range(4)]
    for run in (still_open, fresh, old, older):
        await run.start()
    for run in (fresh, old, older):
        await run.commit(status=ExecutionStatus.CANCELLED)
    await age(superuser, old, days=2)
    await age(superuser, older, days=3)
    mine = [row for row in await retention.journals(1, ALL) if row[0] == old.tenant]
    assert [row[1] for row in mine] == [older.execution_id, old.execution_id]
    from_old_on = await retention.journals(1, ALL, mine[1][2])
    assert [row[1] for row in from_old_on if row[0] == old.tenant] == [old.execution_id]
    await retention.delete_journal(old.tenant, old.execution_id)
    assert (await counts(superuser, old))["tick_journal"] == 0
    assert (await counts(superuser, older))["tick_journal"] == 2
    assert [row[1] for row in await retention.journals(1, ALL) if row[0] == old.tenant] == [older.execution_id]


async def test_a_plan_that_is_being_used_again_is_kept(
    plan_large: LargePlanner,
    retention: PostgresRetentionStore,
    superuser: Superuser,
    postgres_server: PostgresServer,
) -> None:
    """Whoever inserts an execution holds its plan, before that execution can be seen."""
    old, launch = await plan_large(), await plan_large.launch()
    await old.start()
    await old.commit(status=ExecutionStatus.COMPLETED)
    inserting = await asyncpg.connect(superuser_url(postgres_server))
    transaction = inserting.transaction()
    await transaction.start()
    # Takes the lock that the foreign key takes.
    await inserting.execute("SELECT 1 FROM kernel_plans WHERE tenant = $1 FOR KEY SHARE", old.tenant)
    await retention.delete_execution(old.tenant, old.execution_id)
    await transaction.rollback()
    await inserting.close()
    assert await plans_of(superuser, old.tenant) == 1
    await plan_large.insert(launch)
    assert await plans_of(superuser, old.tenant) == 1


async def test_executions_and_deletions_of_one_plan_at_the_same_time_lose_nothing(
    plan_large: LargePlanner, retention: PostgresRetentionStore, superuser: Superuser
) -> None:
    runs = [await plan_large() for _ in range(10)]
    for run in runs:
        await run.start()
        await run.commit(status=ExecutionStatus.COMPLETED)
    launches = [await plan_large.launch() for _ in range(10)]
    deletions = (retention.delete_execution(run.tenant, run.execution_id) for run in runs)
    insertions = (plan_large.insert(launch) for launch in launches)
    outcomes = await asyncio.gather(*(job for pair in zip(deletions, insertions, strict=True) for job in pair),
                                    return_exceptions=True)  # fmt: skip
    assert [outcome for outcome in outcomes if isinstance(outcome, BaseException)] == []
    assert await plans_of(superuser, runs[0].tenant) == 1


async def test_a_plan_is_stored_once_and_the_launch_refers_to_it(
    plan_large: LargePlanner, maintenance: PostgresMaintenanceStore, superuser: Superuser, database: Database
) -> None:
    first, second = await plan_large(), await plan_large()
    plan_hash = PLANS.identity(first.launch.plan).plan_hash
    assert hashlib.sha256(plan_document(first.launch.plan).encode()).hexdigest() == plan_hash
    assert await plans_of(superuser, first.tenant) == 1
    listed = {row.execution_id: row.launch for row in await maintenance.unlaunched(0, 1_000)}
    launch = listed[second.execution_id]
    assert launch is not None
    assert launch["plan"] == {"reference": plan_hash}
    document = await maintenance.launch_document(second.tenant, second.execution_id)
    assert document is not None
    assert ExecutionInput.model_validate(document) == second.launch
    store = PostgresPlanStore(database)
    assert await store.plan(first.tenant, plan_hash) == plan_document(first.launch.plan)
    with pytest.raises(NotFoundError):
        await store.plan(f"{first.tenant}-x", plan_hash)


async def test_a_plan_whose_execution_never_came_to_be_is_deleted(
    plan_large: LargePlanner, retention: PostgresRetentionStore, superuser: Superuser
) -> None:
    used = await plan_large()
    await superuser.execute(
        "INSERT INTO kernel_plans (tenant, plan_hash, plan) VALUES ($1, 'new', ''), ($1, 'old', '')", used.tenant
    )
    await superuser.execute(
        "UPDATE kernel_plans SET created_at = now() - interval '2 days' WHERE tenant = $1 AND plan_hash <> 'new'",
        used.tenant,
    )
    assert await retention.delete_unused_plans(1, ALL) == 1
    left = await superuser.fetch("SELECT plan_hash FROM kernel_plans WHERE tenant = $1", used.tenant)
    assert {row[0] for row in left} == {"new", PLANS.identity(used.launch.plan).plan_hash}


async def test_only_hosts_gone_for_long_are_deleted(
    hosts: PostgresHostStore, retention: PostgresRetentionStore, tenant: str
) -> None:
    now = datetime.now(UTC)

    def host(host_id: str, days: float) -> HostRecord:
        seen = now - timedelta(days=days)
        return HostRecord(host_id=host_id, types=("synthetic",), slots=1, registered_at=seen, last_seen=seen)

    await hosts.upsert(tenant, [host("long-gone", 8), host("gone", 6), host("silent", 8)])
    await hosts.mark_gone(tenant, ["long-gone", "gone"])
    assert await retention.delete_gone_hosts(7, ALL) >= 1
    page = await hosts.page(tenant, limit=10, page_token=None)
    assert [item.host_id for item in page.items] == ["gone", "silent"]


async def test_old_keys_and_operations_are_deleted_in_batches_the_oldest_first(
    operations: PostgresOperationLog, retention: PostgresRetentionStore, superuser: Superuser, database: Database,
    tenant: str,
) -> None:  # fmt: skip
    keys = PostgresIdempotencyKeys(database)
    for name in ("a", "b", "c", "d"):
        await keys.claim(tenant, "workflow.create", name, "hash")
        await operations.record(
            tenant,
            OperationRecord(actor=name, roles=("admin",), address="-", operation="o", subject_type="s", subject_id=None,
                            outcome="ok", request_id="r"),
        )  # fmt: skip
    # Older than anything that other tests leave.
    for name, days in (("a", 9_003), ("b", 9_002), ("c", 9_001)):
        past = datetime.now(UTC) - timedelta(days=days)
        await superuser.execute("UPDATE idempotency_keys SET created_at = $3 WHERE tenant = $1 AND key = $2",
                                tenant, name, past)  # fmt: skip
        await superuser.execute("UPDATE operation_log SET recorded_at = $3 WHERE tenant = $1 AND actor = $2",
                                tenant, name, past)  # fmt: skip
        await superuser.execute("INSERT INTO result_cache (tenant, key, created_at) VALUES ($1, $2, $3)",
                                tenant, name, past)  # fmt: skip

    async def left(statement: str) -> list[str]:
        return sorted(row[0] for row in await superuser.fetch(statement, tenant))

    for delete, statement, spared in (
        (retention.delete_idempotency_keys, "SELECT key FROM idempotency_keys WHERE tenant = $1", ["d"]),
        (retention.delete_operations, "SELECT actor FROM operation_log WHERE tenant = $1", ["d"]),
        (retention.delete_cached_results, "SELECT key FROM result_cache WHERE tenant = $1", []),
    ):
        assert await delete(9_000, 2) == 2
        assert await left(statement) == ["c", *spared]
        assert await delete(9_000, 2) == 1
        assert await left(statement) == spared
        assert await delete(9_000, 2) == 0


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("journals", (1.0, 50, None)),
        ("expired", (30.0, 50)),
        ("delete_gone_hosts", (7.0, 50)),
        ("delete_host_history", (7.0, 50)),
        ("delete_idempotency_keys", (7.0, 50)),
        ("delete_operations", (400.0, 50)),
        ("delete_cached_results", (30.0, 50)),
        ("delete_hook_executions", (7.0, 50)),
    ],
)
async def test_what_is_old_is_found_by_an_index(database: Database, query: str, arguments: tuple[object, ...]) -> None:
    async with database.maintenance_connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        rows = await connection.fetch("EXPLAIN " + database.queries[f"retention.{query}"], *arguments)
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan
    assert re.search(r"Index (Only )?Scan (using|on) idx_\w+", plan)


async def test_only_one_process_leads(retention: PostgresRetentionStore) -> None:
    async with retention.leader("test") as first, retention.leader("test") as second:
        assert (first, second) == (True, False)
