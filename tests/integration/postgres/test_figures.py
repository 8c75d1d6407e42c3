"""Figures of all tenants against a real server, as the engine's own role."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from engine.contracts.execution import ExecutionStatus
from engine.embedded.postgres import PostgresServer
from engine.postgres import figures as module
from engine.postgres.cluster import ClusterUrls, prepare_cluster
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.figures import PostgresFigures
from engine.postgres.journal import PostgresJournal
from engine.postgres.migrate import migrate
from engine.postgres.pool import Database
from engine.settings import Settings
from tests.integration.postgres.builders import Run, plan_execution
from tests.passwords import APP_PASSWORD, OWNER_PASSWORD

NAME = "figures_tests"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
async def own_urls(postgres_server: PostgresServer) -> ClusterUrls:
    """A database of its own: what runs is counted over all tenants."""
    urls = await prepare_cluster(
        postgres_server.url, owner_password=OWNER_PASSWORD, app_password=APP_PASSWORD, database=NAME
    )
    await migrate(urls.owner)
    return urls


@pytest.fixture
async def database(own_urls: ClusterUrls) -> AsyncIterator[Database]:
    database = await Database.connect(Settings(database_url=own_urls.app, database_pool_max=4))
    yield database
    await database.close()


async def run_of(database: Database, tenant: str, status: ExecutionStatus | None) -> Run:
    definitions, executions = PostgresDefinitionStore(database), PostgresExecutionStore(database)
    run = await plan_execution(definitions, executions, PostgresJournal(database), tenant)
    await run.start()
    if status is not None:
        await run.commit(status=status)
    return run


async def test_open_ended_and_waiting_executions_of_all_tenants_are_counted(database: Database, tenant: str) -> None:
    figures = PostgresFigures(database)
    before = await figures.open_by_pattern()
    start = datetime.now(UTC) - timedelta(minutes=1)
    for number, status in enumerate((None, None, ExecutionStatus.COMPLETED, ExecutionStatus.CANCELLED)):
        await run_of(database, f"{tenant}{number}", status)
    assert (await figures.open_by_pattern())["supervisor"] - before.get("supervisor", 0) == 2
    ended = await figures.ended(start, datetime.now(UTC) + timedelta(minutes=1))
    assert sorted((item.pattern, item.status) for item in ended) == [
        ("supervisor", "cancelled"),
        ("supervisor", "completed"),
    ]
    # Started long ago in the builder's time, or just now: never an interval that is no number.
    assert all(isinstance(item.seconds, float) for item in ended)
    assert await figures.ended(LONG_AGO, start) == []
    assert await figures.waiting() == 0


async def test_ends_are_counted_whether_or_not_their_journal_is_kept(
    database: Database, postgres_server: PostgresServer, tenant: str
) -> None:
    figures = PostgresFigures(database)
    runs = [await run_of(database, tenant, ExecutionStatus.COMPLETED) for _ in range(2)]
    superuser = await asyncpg.connect(postgres_server.url.rsplit("/", 1)[0] + f"/{NAME}")
    try:
        await superuser.execute(
            "UPDATE workflow_executions SET completed_at = '2021-01-01Z' WHERE execution_id = ANY ($1)",
            [run.execution_id for run in runs],
        )
        await superuser.execute(
            "UPDATE workflow_executions SET journal_deleted_at = now() WHERE execution_id = $1", runs[0].execution_id
        )
    finally:
        await superuser.close()
    assert len(await figures.ended(LONG_AGO, datetime(2021, 6, 1, tzinfo=UTC))) == 2


async def test_runs_of_hooks_are_counted_by_status(
    database: Database, postgres_server: PostgresServer, tenant: str
) -> None:
    superuser = await asyncpg.connect(postgres_server.url.rsplit("/", 1)[0] + f"/{NAME}")
    try:
        for status in ("completed", "timeout", "timeout"):
            await superuser.execute(
                "INSERT INTO hook_executions (tenant, hook_id, status, executed_at) VALUES ($1, $2, $3, '2022-01-01Z')",
                tenant, uuid.uuid4(), status,
            )  # fmt: skip
    finally:
        await superuser.close()
    counted = await PostgresFigures(database).hook_runs(LONG_AGO, datetime(2022, 6, 1, tzinfo=UTC))
    assert counted == {"completed": 1, "timeout": 2}


async def test_connections_are_counted_against_what_the_server_takes(database: Database) -> None:
    figures = PostgresFigures(database)
    found = await figures.connections()
    assert 1 <= found.active <= found.most
    # Connections under way at once are connections: the server's own count is a moment behind.
    async with database.connection(), database.connection(), database.connection():
        for _ in range(100):
            if (await figures.connections()).active >= 4:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("no more connections were seen")


async def test_what_is_counted_has_settled(database: Database) -> None:
    until = await PostgresFigures(database).settled_until()
    age = (datetime.now(UTC) - until).total_seconds()
    assert abs(age - module.SETTLES_SECONDS) < 5
