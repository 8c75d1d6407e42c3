"""Connections: one pool as the application's role, a small one as the maintenance role.

Only `tenant_connection` and the functions that name the tenant themselves read the application's tables; without a
tenant, row-level security shows nothing.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self, TypeAlias
from uuid import UUID

import asyncpg
import asyncpg.pool
import orjson

from engine.contracts.limits import TENANT_PATTERN
from engine.errors import InvalidParametersError
from engine.postgres.failures import translated_failures
from engine.postgres.queries import load_queries
from engine.settings import Settings

ACQUIRE_TIMEOUT_SECONDS: Final = 5.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0
COMMAND_TIMEOUT_SECONDS: Final = 15.0
"""Above the server's own limit, so that the server's answer comes first."""
STATEMENT_TIMEOUT_MS: Final = 10_000
LOCK_TIMEOUT_MS: Final = 5_000
IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 30_000
MAINTENANCE_CONNECTIONS_MAX: Final = 4
CLOSE_TIMEOUT_SECONDS: Final = 10.0
CONNECTION_CLOSE_TIMEOUT_SECONDS: Final = 2.0
MAINTENANCE_ROLE: Final = "orchestrator_maintenance"

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

_TENANT = re.compile(TENANT_PATTERN)


if TYPE_CHECKING:
    _BaseConnection = asyncpg.Connection[asyncpg.Record]
else:
    _BaseConnection = asyncpg.Connection  # generic in its stubs only


class _PooledConnection(_BaseConnection):
    """Skips the reset on release, a round trip: settings are only ever made for one transaction."""

    def get_reset_query(self) -> str:
        return ""


class Database:
    """The two pools and the statements. Built once by each process's composition root."""

    def __init__(
        self,
        app: "asyncpg.Pool[asyncpg.Record]",
        maintenance: "asyncpg.Pool[asyncpg.Record]",
        maintenance_url: str,
        maintenance_switches_role: bool,
    ) -> None:
        self._app = app
        self._maintenance = maintenance
        self._maintenance_url = maintenance_url
        self._maintenance_switches_role = maintenance_switches_role
        self.queries: Mapping[str, str] = load_queries()

    @classmethod
    async def connect(cls, settings: Settings) -> Self:
        """Raises UnavailableError or ConfigurationError."""
        app_url = settings.database_url.get_secret_value()
        own_login = settings.database_maintenance_url
        maintenance_url = own_login.get_secret_value() if own_login else app_url
        with translated_failures():
            app = await _create_pool(app_url, settings.database_pool_max, None)
            try:
                maintenance = await _create_pool(
                    maintenance_url,
                    min(MAINTENANCE_CONNECTIONS_MAX, settings.database_pool_max),
                    None if own_login else MAINTENANCE_ROLE,
                )
            except BaseException:
                app.terminate()
                raise
        return cls(app, maintenance, maintenance_url, own_login is None)

    async def close(self) -> None:
        for pool in (self._app, self._maintenance):
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    async def ping(self) -> None:
        """One statement as the application's role. Raises UnavailableError."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """No tenant and no transaction: for calls of functions that take the tenant themselves."""
        with translated_failures():
            async with self._app.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                yield connection

    @asynccontextmanager
    async def tenant_connection(self, tenant: str) -> AsyncIterator[Connection]:
        """A transaction that sees this tenant's rows."""
        check_tenant(tenant)
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.tenant', $1, true)", tenant)
            yield connection

    @asynccontextmanager
    async def maintenance_connection(self) -> AsyncIterator[Connection]:
        """All tenants' rows, as the maintenance role."""
        with translated_failures():
            async with self._maintenance.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A connection outside the pools, for what is held as long as a process lives."""
        with translated_failures():
            connection = await asyncpg.connect(
                self._maintenance_url,
                timeout=CONNECT_TIMEOUT_SECONDS,
                command_timeout=COMMAND_TIMEOUT_SECONDS,
                server_settings=_server_settings(MAINTENANCE_ROLE if self._maintenance_switches_role else None),
            )
        try:
            with translated_failures():
                yield connection
        finally:
            # Closed in order, so that the server has let go of the session's locks when this returns.
            await close_connection(connection)


async def close_connection(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Close it in order when the server answers in time, and at any rate."""
    try:
        await connection.close(timeout=CONNECTION_CLOSE_TIMEOUT_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        connection.terminate()


def check_tenant(tenant: str) -> None:
    if _TENANT.fullmatch(tenant) is None:
        raise InvalidParametersError("not a tenant's name")


async def _create_pool(url: str, connections_max: int, role: str | None) -> "asyncpg.Pool[asyncpg.Record]":
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=connections_max,
        timeout=CONNECT_TIMEOUT_SECONDS,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        connection_class=_PooledConnection,
        init=_register_codecs,
        server_settings=_server_settings(role),
    )


def _server_settings(role: str | None) -> dict[str, str]:
    settings = {
        "application_name": "orchestrator",
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
        # Compiling a plan costs more than the statements here take.
        "jit": "off",
    }
    if role is not None:
        # As a start-up setting it is the session's default: nothing that resets a session undoes it.
        settings["role"] = role
    return settings


async def _register_codecs(connection: "asyncpg.Connection[asyncpg.Record] | Connection") -> None:
    """JSON goes in as bytes that `documents` made, so that what cannot be stored is known before.

    UUIDs come out as the standard library's, since JSON encoders refuse the driver's own class.
    """
    await connection.set_type_codec(
        "uuid",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: value.bytes,
        decoder=lambda raw: UUID(bytes=bytes(raw)),
    )
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda document: b"\x01" + document,
        decoder=lambda raw: orjson.loads(raw[1:]),
    )
    await connection.set_type_codec(
        "json", schema="pg_catalog", format="binary", encoder=lambda document: document, decoder=orjson.loads
    )
