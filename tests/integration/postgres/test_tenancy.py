"""Row-level security: proved on every table, against a real server."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from engine.errors import ConfigurationError, InvalidParametersError, NotFoundError
from engine.postgres.cluster import ClusterUrls
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.dispatch import PostgresDispatchStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.hosts import PostgresHostStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.operations import PostgresOperationLog
from engine.postgres.pool import Database
from engine.settings import Settings
from tests.integration.postgres.builders import Run, attempt, bound, done, plan_execution
from tests.integration.postgres.test_stores import host, operation

OUTSIDE_TENANTS = {"alembic_version"}
APPEND_ONLY = ("tick_journal", "execution_events", "workflow_checkpoints", "payloads", "operation_log")


@pytest.fixture
async def app(urls: ClusterUrls) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """As the application's role, with no tenant."""
    connection = await asyncpg.connect(urls.app)
    yield connection
    await connection.close()


@pytest.fixture
async def tables(app: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    rows = await app.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
        # Nobody may name those: test_event_partitions.py.
        "AND NOT relispartition"
    )
    return sorted(row["relname"] for row in rows if row["relname"] not in OUTSIDE_TENANTS)


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore,
    executions: PostgresExecutionStore,
    journal: PostgresJournal,
    dispatch: PostgresDispatchStore,
    hosts: PostgresHostStore,
    operations: PostgresOperationLog,
    tenant: str,
) -> Run:
    """One execution with rows in most tables."""
    run = await plan_execution(definitions, executions, journal, tenant)
    await run.start()
    await run.commit(assigned=(attempt("b"),), done=(done("a"),), bound=(bound("worker-9"),))
    await dispatch.put_payload(tenant, run.execution_id, b"{}")
    await hosts.upsert(tenant, [host("host-1")])
    await operations.record(tenant, operation())
    return run


async def test_every_table_has_forced_row_level_security_with_the_tenants_policy(
    app: "asyncpg.Connection[asyncpg.Record]", tables: list[str]
) -> None:
    assert len(tables) >= 13
    secured = await app.fetch("SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity")
    assert set(tables) <= {row["relname"] for row in secured}
    policies = await app.fetch("SELECT tablename, policyname, roles, cmd, qual, with_check FROM pg_policies")
    tenant_is = "(tenant = current_setting('app.tenant'::text, true))"
    by_table: dict[str, dict[str, asyncpg.Record]] = {}
    for policy in policies:
        by_table.setdefault(policy["tablename"], {})[policy["policyname"]] = policy
    for table in tables:
        assert set(by_table[table]) == {"tenant_isolation", "maintenance"}
        own = by_table[table]["tenant_isolation"]
        assert (own["roles"], own["cmd"]) == (["orchestrator_app"], "ALL")
        assert (own["qual"], own["with_check"]) == (tenant_is, tenant_is)
        assert by_table[table]["maintenance"]["roles"] == ["orchestrator_maintenance"]


async def test_every_key_begins_with_the_tenant(app: "asyncpg.Connection[asyncpg.Record]", tables: list[str]) -> None:
    rows = await app.fetch(
        "SELECT c.relname, i.indexrelid::regclass::text AS index, a.attname"
        "  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid"
        "  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]"
        " WHERE i.indisunique AND c.relname = ANY ($1::text[])",
        tables,
    )
    # The log's key cannot hold across its partitions, see decision 21; each of them has it.
    assert {row["relname"] for row in rows} == set(tables) - {"execution_events"}
    assert {row["attname"] for row in rows} == {"tenant"}


async def test_without_a_tenant_there_are_no_rows(
    run: Run, app: "asyncpg.Connection[asyncpg.Record]", tables: list[str]
) -> None:
    for tenant in (None, "", "another"):
        if tenant is not None:
            await app.execute("SELECT set_config('app.tenant', $1, false)", tenant)
        for table in (*tables, "execution_documents"):
            assert await app.fetchval(f'SELECT count(*) FROM "{table}"') == 0, table  # noqa: S608


async def test_a_tenant_cannot_write_anothers_rows(run: Run, app: "asyncpg.Connection[asyncpg.Record]") -> None:
    await app.execute("SELECT set_config('app.tenant', 'intruder', false)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await app.execute(
            "INSERT INTO execution_agents VALUES ($1, $2, 'a', 'r', NULL, 'assigned')", run.tenant, run.execution_id
        )
    changed = await app.execute(
        "UPDATE workflow_executions SET status = 'failed' WHERE execution_id = $1", run.execution_id
    )
    assert changed == "UPDATE 0"


async def test_what_is_anothers_answers_as_what_is_not_there(
    run: Run,
    definitions: PostgresDefinitionStore,
    executions: PostgresExecutionStore,
    journal: PostgresJournal,
    dispatch: PostgresDispatchStore,
    hosts: PostgresHostStore,
    operations: PostgresOperationLog,
) -> None:
    other, execution_id = f"{run.tenant}-b", run.execution_id
    foreign = run.proposal(3).model_copy(update={"tenant": other})
    for call in (
        definitions.get(other, run.workflow_id),
        definitions.get_plan(other, run.workflow_id),
        definitions.delete(other, run.workflow_id),
        executions.status(other, execution_id),
        executions.tasks(other, execution_id, limit=1, page_token=None),
        executions.events(other, execution_id, after_sequence=0, limit=1),
        executions.checkpoints(other, execution_id, limit=1, page_token=None),
        journal.commit(foreign),
        dispatch.body(other, execution_id),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert await journal.load_stream_writes(other, execution_id, [1]) == []
    assert await dispatch.results(other, execution_id, ["a"]) == {}
    assert (await definitions.list(other, limit=10, page_token=None)).items == ()
    assert (await executions.list(other, limit=10, page_token=None)).items == ()
    assert (await hosts.page(other, limit=10, page_token=None)).items == ()
    assert (await operations.list(other, limit=10, page_token=None)).items == ()
    assert await hosts.mark_gone(other, ["host-1"]) == []


async def test_the_application_cannot_take_row_level_security_off(
    run: Run, app: "asyncpg.Connection[asyncpg.Record]", tables: list[str]
) -> None:
    for table in tables:
        for statement in (
            f'ALTER TABLE "{table}" DISABLE ROW LEVEL SECURITY',
            f'ALTER TABLE "{table}" NO FORCE ROW LEVEL SECURITY',
            f'DROP POLICY tenant_isolation ON "{table}"',
            f'DROP TABLE "{table}"',
            f'TRUNCATE "{table}"',
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(statement)
    for statement in (
        "CREATE TABLE public.own (n integer)",
        "ALTER ROLE orchestrator_app BYPASSRLS",
        "SET ROLE orchestrator_owner",
        "CREATE ROLE another",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)
    await app.execute("SET row_security = off")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch("SELECT * FROM workflow_executions")


async def test_what_is_written_once_cannot_be_changed(app: "asyncpg.Connection[asyncpg.Record]") -> None:
    await app.execute("SELECT set_config('app.tenant', 'some', false)")
    for table in APPEND_ONLY:
        for statement in (f"UPDATE {table} SET tenant = 'x'", f"DELETE FROM {table}"):  # noqa: S608
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(statement)
    for statement in (
        "DELETE FROM workflow_executions",
        "UPDATE workflow_executions SET launch = ''",
        "UPDATE workflow_definitions SET definition = '{}'",
        "DELETE FROM workflow_definitions",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)


async def test_the_owner_is_bound_too_and_maintenance_may_only_what_it_needs(
    run: Run, urls: ClusterUrls, database: Database
) -> None:
    owner = await asyncpg.connect(urls.owner)
    await owner.execute("SELECT set_config('app.tenant', $1, false)", run.tenant)
    assert await owner.fetchval("SELECT count(*) FROM workflow_executions") == 0
    await owner.close()
    async with database.maintenance_connection() as connection:
        assert await connection.fetchval("SELECT current_user") == "orchestrator_maintenance"
        found = await connection.fetchval("SELECT count(*) FROM workflow_executions WHERE tenant = $1", run.tenant)
        assert found == 1
    for statement in ("UPDATE execution_events SET payload = '{}'", "SELECT definition FROM workflow_definitions"):
        with pytest.raises(ConfigurationError):
            async with database.maintenance_connection() as connection:
                await connection.execute(statement)


async def test_inheriting_nothing_the_application_sees_no_more_than_its_tenant(
    run: Run, app: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """It may become the maintenance role, and does not act as it unasked."""
    await app.execute("SET ROLE orchestrator_maintenance")
    assert await app.fetchval("SELECT count(*) FROM workflow_executions WHERE tenant = $1", run.tenant) == 1
    await app.execute("RESET ROLE")
    assert await app.fetchval("SELECT count(*) FROM workflow_executions WHERE tenant = $1", run.tenant) == 0


async def test_the_tenant_ends_with_the_transaction(run: Run, urls: ClusterUrls) -> None:
    database = await Database.connect(Settings(database_url=urls.app, database_pool_max=2))
    try:
        store = PostgresExecutionStore(database)
        await store.status(run.tenant, run.execution_id)
        await store.list(run.tenant, limit=1, page_token=None)
        for _ in range(4):
            async with database.connection() as connection:
                assert await connection.fetchval("SELECT current_setting('app.tenant', true)") in (None, "")
                assert await connection.fetchval("SELECT count(*) FROM workflow_executions") == 0
    finally:
        await database.close()


async def test_a_strange_tenant_is_refused_before_the_server_hears_of_it(database: Database) -> None:
    for tenant in ("", "A", "-a", "a" * 64, "a'b", "a\n", "a\x00"):
        with pytest.raises(InvalidParametersError):
            async with database.tenant_connection(tenant):
                pass


async def test_a_maintenance_login_of_its_own_is_used(urls: ClusterUrls, run: Run, app: object) -> None:
    """Here the login is the application's, which then is not made to change its role."""
    database = await Database.connect(Settings(database_url=urls.app, database_maintenance_url=urls.app))
    try:
        async with database.maintenance_connection() as connection:
            assert await connection.fetchval("SELECT current_user") == "orchestrator_app"
        async with database.session() as session:
            assert await session.fetchval("SELECT current_user") == "orchestrator_app"
    finally:
        await database.close()


async def test_the_document_view_shows_the_tenants_executions(run: Run, database: Database) -> None:
    async with database.tenant_connection(run.tenant) as connection:
        row = await connection.fetchrow("SELECT * FROM execution_documents")
    assert row is not None
    assert row["execution_id"] == run.execution_id
    assert row["task_states"] == {"a": "completed", "b": "running"}
    assert [agent["agent_id"] for agent in row["allocated_agents"]] == ["worker-1", "worker-2", "worker-9"]


async def test_ids_are_the_standard_librarys(run: Run, executions: PostgresExecutionStore) -> None:
    """The driver's own class is refused by JSON encoders."""
    view = await executions.status(run.tenant, run.execution_id)
    assert type(view.workflow_id) is uuid.UUID
