"""Roles and database in a cluster of the engine's own, such as the embedded one. A superuser's work, repeatable.

Where PostgreSQL is somebody else's, its administrator does the same once:

    CREATE ROLE orchestrator_owner LOGIN PASSWORD '...';
    CREATE ROLE orchestrator_maintenance NOLOGIN;
    CREATE ROLE orchestrator_app LOGIN PASSWORD '...';
    GRANT orchestrator_maintenance TO orchestrator_app WITH INHERIT FALSE, SET TRUE;
    CREATE DATABASE orchestrator OWNER orchestrator_owner;
"""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from engine.postgres.failures import translated_failures
from engine.postgres.pool import close_connection

OWNER_ROLE = "orchestrator_owner"
APP_ROLE = "orchestrator_app"
MAINTENANCE_ROLE = "orchestrator_maintenance"
CONNECT_TIMEOUT_SECONDS = 30.0
COMMAND_TIMEOUT_SECONDS = 60.0
GRANT_OPTIONS_SINCE = 16


@dataclass(frozen=True)
class ClusterUrls:
    """Addresses of the prepared database, with passwords."""

    owner: str
    app: str


async def prepare_cluster(
    superuser_url: str, *, owner_password: str, app_password: str, database: str = "orchestrator"
) -> ClusterUrls:
    """Create what is missing and set the passwords. Raises UnavailableError, ConfigurationError."""
    with translated_failures():
        connection = await asyncpg.connect(
            superuser_url, timeout=CONNECT_TIMEOUT_SECONDS, command_timeout=COMMAND_TIMEOUT_SECONDS
        )
        try:
            await _prepare_roles(connection, owner_password, app_password)
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
                await connection.execute(f"CREATE DATABASE {_identifier(database)} OWNER {OWNER_ROLE}")
            await connection.execute(f"REVOKE ALL ON DATABASE {_identifier(database)} FROM PUBLIC")
            await connection.execute(
                f"GRANT CONNECT ON DATABASE {_identifier(database)} TO {APP_ROLE}, {MAINTENANCE_ROLE}"
            )
        finally:
            await close_connection(connection)
    return ClusterUrls(
        owner=_with_login(superuser_url, OWNER_ROLE, owner_password, database),
        app=_with_login(superuser_url, APP_ROLE, app_password, database),
    )


async def _prepare_roles(
    connection: "asyncpg.Connection[asyncpg.Record]", owner_password: str, app_password: str
) -> None:
    grants_have_options = connection.get_server_version().major >= GRANT_OPTIONS_SINCE
    there = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    for role in (OWNER_ROLE, APP_ROLE, MAINTENANCE_ROLE):
        if role not in there:
            await connection.execute(f"CREATE ROLE {role}")
    plain = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"
    # Before grants had options, a role that inherits nothing was the way not to have another's rights unasked.
    inherit = "INHERIT" if grants_have_options else "NOINHERIT"
    await connection.execute(f"ALTER ROLE {OWNER_ROLE} LOGIN {plain} PASSWORD {_literal(owner_password)}")
    await connection.execute(f"ALTER ROLE {APP_ROLE} LOGIN {inherit} {plain} PASSWORD {_literal(app_password)}")
    await connection.execute(f"ALTER ROLE {MAINTENANCE_ROLE} NOLOGIN {plain}")
    options = " WITH INHERIT FALSE, SET TRUE" if grants_have_options else ""
    await connection.execute(f"GRANT {MAINTENANCE_ROLE} TO {APP_ROLE}{options}")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


def _with_login(url: str, role: str, password: str, database: str) -> str:
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(
        parts._replace(netloc=f"{role}:{quote(password, safe='')}@{address}", path=f"/{quote(database, safe='')}")
    )
