"""Servers that hang, break off or stop, seen from the stores."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from engine.embedded.postgres import PostgresServer
from engine.errors import EngineError, UnavailableError
from engine.postgres.cluster import ClusterUrls, prepare_cluster
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.migrate import migrate
from engine.postgres.pool import Connection, Database
from engine.settings import Settings
from tests.integration.postgres.builders import Run, plan_execution

DEADLINE_SECONDS = 90


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> Run:
    return await plan_execution(definitions, executions, journal, tenant)


@pytest.fixture
async def own(urls: ClusterUrls) -> AsyncIterator[Database]:
    database = await Database.connect(Settings(database_url=urls.app, database_pool_max=2))
    yield database
    await database.close()


@pytest.fixture
async def superuser(postgres_server: PostgresServer) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(postgres_server.url)
    yield connection
    await connection.close()


async def test_broken_connections_are_replaced(
    own: Database, superuser: "asyncpg.Connection[asyncpg.Record]", run: Run
) -> None:
    async with own.connection() as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
    journal = PostgresJournal(own)
    await superuser.execute("SELECT pg_terminate_backend($1)", pid)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                committed = await journal.commit(run.proposal(1, consumed=("1-0",)))
            except UnavailableError:
                continue
            break
    assert [delta.tick for delta in committed.ticks] == [1]
    await own.ping()


async def test_a_connection_that_breaks_in_a_statement_is_told_as_unavailable(
    own: Database, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    pids: asyncio.Queue[int] = asyncio.Queue()

    async def sleeping() -> None:
        async with own.connection() as connection:
            await pids.put(await connection.fetchval("SELECT pg_backend_pid()"))
            await connection.execute("SELECT pg_sleep(60)")

    async def ending() -> None:
        await superuser.execute("SELECT pg_terminate_backend($1)", await pids.get())

    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(UnavailableError):
            await asyncio.gather(sleeping(), ending())


async def slowly(connection: Connection, setting: str, statement: str, *arguments: object) -> None:
    await connection.execute(f"SET LOCAL {setting} = 20")
    await connection.execute(statement, *arguments)


async def test_a_statement_that_takes_too_long_is_told_as_unavailable(own: Database) -> None:
    with pytest.raises(UnavailableError) as refused:
        async with own.connection() as connection, connection.transaction():
            await slowly(connection, "statement_timeout", "SELECT pg_sleep(60)")
    assert refused.value.transient
    assert refused.value.data == {"reason": "QueryCanceledError"}


async def test_a_lock_that_is_not_given_is_told_as_unavailable(own: Database, run: Run) -> None:
    lock = "SELECT 1 FROM workflow_executions WHERE execution_id = $1 FOR UPDATE"
    async with own.tenant_connection(run.tenant) as holder:
        await holder.execute(lock, run.execution_id)
        with pytest.raises(UnavailableError):
            async with own.tenant_connection(run.tenant) as waiter:
                await slowly(waiter, "lock_timeout", lock, run.execution_id)


async def test_other_refusals_are_the_engines_own_errors(own: Database) -> None:
    with pytest.raises(EngineError) as refused:
        async with own.connection() as connection:
            await connection.execute("SELECT 1/0; nonsense")
    assert not isinstance(refused.value, asyncpg.PostgresError)
    assert "nonsense" not in refused.value.message


async def test_after_a_restart_of_the_server_the_stores_go_on(server_directory: Path) -> None:
    server = PostgresServer(server_directory / "restarted", durable=False)
    await server.start()
    port = server.port
    urls = await prepare_cluster(server.url, owner_password="o", app_password="a")
    await migrate(urls.owner)
    database = await Database.connect(Settings(database_url=urls.app, database_pool_max=2))
    journal = PostgresJournal(database)
    run = await plan_execution(PostgresDefinitionStore(database), PostgresExecutionStore(database), journal, "t")
    assert (await run.commit(consumed=("1-0",))).own
    await server.stop()
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await run.commit(consumed=("2-0",))
    again = PostgresServer(server_directory / "restarted", port, durable=False)
    await again.start()
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    committed = await run.commit(consumed=("2-0",))
                except UnavailableError:
                    continue
                break
        assert [delta.tick for delta in committed.ticks] == [2]
        async with PostgresMaintenanceStore(database).leader("again") as leads:
            assert leads
    finally:
        await database.close()
        await again.stop()


async def test_a_closed_database_is_told_as_unavailable(urls: ClusterUrls) -> None:
    database = await Database.connect(Settings(database_url=urls.app, database_pool_max=2))
    await database.close()
    with pytest.raises(UnavailableError):
        await database.ping()


async def test_closing_waits_for_work_only_so_long(urls: ClusterUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.postgres.pool.CLOSE_TIMEOUT_SECONDS", 0.05)
    database = await Database.connect(Settings(database_url=urls.app, database_pool_max=2))

    async def working() -> None:
        async with database.connection() as connection:
            await asyncio.gather(connection.execute("SELECT pg_sleep(60)"), database.close())

    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(UnavailableError):
            await working()
