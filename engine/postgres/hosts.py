"""Host processes of agents: who registered, who is there, who is gone."""

from collections.abc import Sequence
from typing import Final

import asyncpg

from engine.contracts.hosts import Dedication
from engine.contracts.views import Page
from engine.errors import InvalidParametersError
from engine.ports import HostRecord
from engine.postgres.documents import storable_text
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.pool import Database

BATCH_HOSTS_MAX: Final = 10_000
DEDICATED_HOSTS_MAX: Final = 20_000
SILENT_HOSTS_MAX: Final = 100_000
"""Of all tenants, for a monitor that takes over."""

HOST_STATES: Final = ("live", "gone")


class PostgresHostStore:
    """Implements `engine.ports.HostStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def upsert(self, tenant: str, hosts: Sequence[HostRecord]) -> Sequence[str]:
        _check_batch(hosts)
        # In one order everywhere: two batches with the same hosts must not wait for each other.
        ordered = sorted({host.host_id: host for host in hosts}.values(), key=lambda host: host.host_id)
        async with self._database.tenant_connection(tenant) as connection:
            await connection.executemany(self._queries["hosts.upsert"], [_columns(tenant, host) for host in ordered])
            rows = await connection.fetch(
                self._queries["hosts.gone"], tenant, [host.host_id for host in ordered if host.state == "live"]
            )
        return [row["host_id"] for row in rows]

    async def live(self, tenant: str, agent_type: str, limit: int) -> Sequence[HostRecord]:
        check_limit(limit)
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["hosts.live"], tenant, agent_type, limit)
        return [_host(row) for row in rows]

    async def live_for(
        self, tenant: str, execution_id: str, limit: int, *, gone_too: bool = False
    ) -> Sequence[HostRecord]:
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(
                self._queries["hosts.live_for"], tenant, execution_id, min(limit, DEDICATED_HOSTS_MAX), gone_too
            )
        return [_host(row) for row in rows]

    async def pooled(self, tenant: str, agent_type: str, limit: int) -> Sequence[HostRecord]:
        check_limit(limit)
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["hosts.pooled"], tenant, agent_type, limit)
        return [_host(row) for row in rows]

    async def claim(self, tenant: str, host_id: str, execution_id: str, agent_id: str) -> bool:
        async with self._database.tenant_connection(tenant) as connection:
            # Two that claim different hosts for the same agent must see each other.
            await connection.execute(self._queries["hosts.lock_agent"], tenant, execution_id, agent_id)
            row = await connection.fetchrow(self._queries["hosts.claim"], tenant, host_id, execution_id, agent_id)
        return row is not None

    async def mark_gone(self, tenant: str, host_ids: Sequence[str]) -> Sequence[str]:
        _check_batch(host_ids)
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["hosts.mark_gone"], tenant, list(host_ids))
        return [row["host_id"] for row in rows]

    async def page(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        agent_type: str | None = None,
        state: str | None = None,
    ) -> Page[HostRecord]:
        check_limit(limit)
        if state is not None and state not in HOST_STATES:
            raise InvalidParametersError(f"state must be one of {', '.join(HOST_STATES)}")
        (after,) = decode_token("hosts", page_token, (str,)) or [None]
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["hosts.page"], tenant, limit + 1, after, agent_type, state)
        items = tuple(_host(row) for row in rows[:limit])
        more = len(rows) > limit
        return Page(items=items, next_page_token=encode_token("hosts", (items[-1].host_id,)) if more else None)

    async def silent(self, older_than_seconds: float, limit: int) -> Sequence[tuple[str, HostRecord]]:
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(
                self._queries["hosts.silent"], older_than_seconds, min(limit, SILENT_HOSTS_MAX)
            )
        return [(row["tenant"], _host(row)) for row in rows]


def _check_batch(batch: Sequence[object]) -> None:
    if len(batch) > BATCH_HOSTS_MAX:
        raise InvalidParametersError(f"at most {BATCH_HOSTS_MAX} hosts at once")


def _columns(tenant: str, host: HostRecord) -> tuple[object, ...]:
    capabilities = None if host.capabilities == "*" else [storable_text(name) for name in host.capabilities]
    return (
        tenant,
        storable_text(host.host_id),
        [storable_text(name) for name in host.types],
        capabilities,
        host.slots,
        host.pid,
        host.state,
        host.registered_at,
        host.last_seen,
        [storable_text(name) for name in host.features],
        None if host.dedicated_to is None else storable_text(host.dedicated_to.execution_id),
        None if host.dedicated_to is None else storable_text(host.dedicated_to.agent_id),
    )


def _host(row: asyncpg.Record) -> HostRecord:
    return HostRecord(
        host_id=row["host_id"],
        types=tuple(row["types"]),
        capabilities="*" if row["capabilities"] is None else tuple(row["capabilities"]),
        slots=row["slots"],
        features=tuple(row["features"]),
        pid=row["pid"],
        state=row["state"],
        suspect_since=row["suspect_since"],
        speed=row["speed"],
        dedicated_to=(
            None
            if row["execution_id"] is None
            else Dedication(execution_id=row["execution_id"], agent_id=row["agent_id"] or "")
        ),
        registered_at=row["registered_at"],
        last_seen=row["last_seen"],
    )
