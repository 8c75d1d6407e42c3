"""Preparing a cluster and migrating, also by several processes at once."""

import asyncio
import subprocess
import sys
import uuid
from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from engine.embedded.postgres import PostgresServer
from engine.errors import ConfigurationError, UnavailableError
from engine.postgres.cluster import ClusterUrls, prepare_cluster
from engine.postgres.migrate import LOCK_KEY, MIGRATIONS, migrate, newest_revision, stored_revision
from engine.postgres.pool import Database
from engine.settings import Settings
from tests.passwords import APP_PASSWORD, OWNER_PASSWORD

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def empty(postgres_server: PostgresServer) -> ClusterUrls:
    return await prepare_cluster(
        postgres_server.url,
        owner_password=OWNER_PASSWORD,
        app_password=APP_PASSWORD,
        database=f'odd "{uuid.uuid4().hex[:8]}"',
    )


async def test_a_second_migration_finds_nothing_to_do(empty: ClusterUrls) -> None:
    assert await stored_revision(empty.owner) is None
    assert await migrate(empty.owner) is True
    assert await migrate(empty.owner) is False
    assert await stored_revision(empty.owner) == newest_revision()


async def test_processes_that_start_together_migrate_once(empty: ClusterUrls) -> None:
    program = (
        "import asyncio, sys\nfrom engine.postgres.migrate import migrate\nprint(asyncio.run(migrate(sys.argv[1])))\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, empty.owner, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        for _ in range(3)
    ]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sorted(output.decode().strip() for output, _ in outputs) == ["False", "False", "True"]


async def test_alembic_is_not_imported_when_there_is_nothing_to_do(empty: ClusterUrls) -> None:
    await migrate(empty.owner)
    program = (
        "import asyncio, sys\n"
        "from engine.postgres.migrate import migrate\n"
        "assert asyncio.run(migrate(sys.argv[1])) is False\n"
        "assert 'alembic' not in sys.modules and 'sqlalchemy' not in sys.modules\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, empty.owner, cwd=ROOT)
    assert await process.wait() == 0


def test_the_newest_revision_is_the_head_that_alembic_sees() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [newest_revision()]


async def test_a_failed_migration_leaves_nothing_and_can_be_repeated(
    empty: ClusterUrls, postgres_server: PostgresServer
) -> None:
    """A table in the way stands for any failure in the middle."""
    owner = await asyncpg.connect(empty.owner)
    await owner.execute("CREATE TABLE operation_log (n integer)")
    with pytest.raises(ConfigurationError, match=r"rolled back.*operation_log"):
        await migrate(empty.owner)
    tables = await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert [row["tablename"] for row in tables] == ["operation_log"]
    await owner.execute("DROP TABLE operation_log")
    await owner.close()
    assert await migrate(empty.owner) is True


async def test_preparing_again_changes_only_the_passwords(empty: ClusterUrls, postgres_server: PostgresServer) -> None:
    again = await prepare_cluster(
        postgres_server.url,
        owner_password=OWNER_PASSWORD,
        app_password=APP_PASSWORD,
        database=f"again_{uuid.uuid4().hex[:8]}",
    )
    assert again.owner != empty.owner
    assert await migrate(again.owner) is True


async def test_before_the_migration_the_error_names_the_remedy(empty: ClusterUrls) -> None:
    database = await Database.connect(Settings(database_url=empty.app))
    try:
        with pytest.raises(ConfigurationError, match="orchestrator migrate"):
            async with database.tenant_connection("t") as connection:
                await connection.fetch("SELECT * FROM workflow_executions")
    finally:
        await database.close()


async def test_unreachable_servers_and_wrong_logins_are_told_apart(empty: ClusterUrls) -> None:
    nowhere = "postgresql://nobody:x@127.0.0.1:1/none"
    for call in (migrate(nowhere), Database.connect(Settings(database_url=nowhere))):
        with pytest.raises(UnavailableError):
            await call
    stranger = empty.app.replace("orchestrator_app:", "stranger:")
    for call in (migrate(stranger), Database.connect(Settings(database_url=stranger))):
        with pytest.raises(ConfigurationError):
            await call
    with pytest.raises(ConfigurationError):
        await Database.connect(Settings(database_url=empty.app, database_maintenance_url=stranger))


async def test_migrations_in_one_process_wait_for_each_other(empty: ClusterUrls) -> None:
    assert sorted(await asyncio.gather(*(migrate(empty.owner) for _ in range(3)))) == [False, False, True]


async def test_what_the_server_lacks_is_named(empty: ClusterUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.postgres.migrate.ROLES", ("orchestrator_app", "role_of_nobody"))
    with pytest.raises(ConfigurationError, match="role_of_nobody"):
        await migrate(empty.owner)
    monkeypatch.setattr("engine.postgres.migrate.SERVER_VERSION_MIN", 99)
    with pytest.raises(ConfigurationError, match="PostgreSQL 99"):
        await migrate(empty.owner)


async def test_a_migration_that_waits_too_long_can_be_tried_again(
    empty: ClusterUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.postgres.migrate.LOCK_TIMEOUT_SECONDS", 0.05)
    holder = await asyncpg.connect(empty.owner)
    try:
        await holder.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
        with pytest.raises(UnavailableError):
            await migrate(empty.owner)
    finally:
        await holder.close()
    assert await migrate(empty.owner) is True
