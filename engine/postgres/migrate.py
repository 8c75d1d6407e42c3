"""Brings the schema to the newest revision, once, however many processes start at the same time.

Alembic is slow to import (about a second) and is needed once in a database's life: when the stored revision is the
newest, it is not imported at all.
"""

from pathlib import Path
from typing import Any, Final

import asyncpg

from engine.errors import ConfigurationError
from engine.postgres.failures import translate, translated_failures
from engine.postgres.pool import close_connection

MIGRATIONS: Final = Path(__file__).parent / "migrations"
LOCK_KEY: Final = 0x6F72_6368_6573_7472
"""Of pg_advisory_lock: "orchestr" in ASCII; any number that nobody else uses will do."""
LOCK_TIMEOUT_SECONDS: Final = 120.0
CONNECT_TIMEOUT_SECONDS: Final = 30.0
ROLES: Final = ("orchestrator_app", "orchestrator_maintenance")
SERVER_VERSION_MIN: Final = 15


def newest_revision() -> str:
    """Revisions are numbered files; the last one is the newest."""
    return max(path.stem.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


async def stored_revision(owner_url: str) -> str | None:
    """None when nothing was migrated yet. Raises UnavailableError, ConfigurationError."""
    with translated_failures():
        connection = await asyncpg.connect(owner_url, timeout=CONNECT_TIMEOUT_SECONDS)
        try:
            return await _stored_revision(connection)
        finally:
            await close_connection(connection)


async def migrate(owner_url: str) -> bool:
    """Returns whether anything had to be done. Raises UnavailableError, ConfigurationError."""
    newest = newest_revision()
    with translated_failures():
        connection = await asyncpg.connect(owner_url, timeout=CONNECT_TIMEOUT_SECONDS)
        try:
            if await _stored_revision(connection) == newest:
                return False
            await _check_server(connection)
            await connection.execute(f"SET lock_timeout = {int(LOCK_TIMEOUT_SECONDS * 1000)}")
            await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
            # Another process may have done it while this one waited for the lock.
            if await _stored_revision(connection) == newest:
                return False
            await _upgrade(owner_url)
            return True
        finally:
            # Gives the lock back, whatever happened.
            await close_connection(connection)


async def _stored_revision(connection: "asyncpg.Connection[asyncpg.Record]") -> str | None:
    if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    return revision


async def _check_server(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    version = connection.get_server_version()
    if version.major < SERVER_VERSION_MIN:
        raise ConfigurationError(f"PostgreSQL {SERVER_VERSION_MIN} or newer is needed, this is {version.major}")
    there = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    missing = [role for role in ROLES if role not in there]
    if missing:
        raise ConfigurationError(
            f"the roles {', '.join(missing)} are missing: a superuser creates them "
            "(docs/architecture.md, or `engine.postgres.cluster.prepare_cluster`)"
        )


async def _upgrade(owner_url: str) -> None:
    # Imported here because of the time it takes, see above.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(owner_url, timeout=CONNECT_TIMEOUT_SECONDS),
        poolclass=NullPool,
    )

    def upgrade(connection: Any) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    try:
        async with engine.connect() as connection:
            await connection.run_sync(upgrade)
            await connection.commit()
    except (asyncpg.PostgresError, SQLAlchemyError) as error:
        translated = translate(error)
        if translated.transient:
            raise translated from error
        raise ConfigurationError(f"the migration failed and was rolled back: {error}") from error
    finally:
        await engine.dispose()
