"""How host processes are: suspicion, speed, load and history."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

from engine.contracts.agent_views import AgentDetail, AgentView, HostChange, HostLoad, HostState
from engine.contracts.views import Page
from engine.errors import NotFoundError
from engine.health_ports import Measured
from engine.postgres.documents import storable_text
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.pool import Connection, Database

MEASURED_SECONDS: Final = 300.0
"""What was measured longer ago says nothing of a host any more."""

HISTORY_SHOWN_MAX: Final = 200


class PostgresHostHealthStore:
    """Implements `engine.health_ports.HostHealthStore` and `AgentReader`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def mark_suspect(self, tenant: str, host_ids: Sequence[str], reason: str) -> Sequence[str]:
        async with self._database.tenant_connection(tenant) as connection:
            query = self._queries["health.mark_suspect"]
            rows = await connection.fetch(query, tenant, list(host_ids), storable_text(reason))
        return [row["host_id"] for row in rows]

    async def mark_recovered(self, tenant: str, host_ids: Sequence[str]) -> Sequence[str]:
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["health.mark_recovered"], tenant, list(host_ids))
        return [row["host_id"] for row in rows]

    async def explain_gone(self, tenant: str, host_id: str, reason: str) -> None:
        async with self._database.tenant_connection(tenant) as connection:
            query = self._queries["health.explain_gone"]
            await connection.execute(query, tenant, storable_text(host_id), storable_text(reason))

    async def note_measured(self, tenant: str, measured: Mapping[str, Measured]) -> None:
        ordered = sorted(measured.items())  # in one order everywhere: two workers must not wait for each other
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(
                self._queries["health.note_measured"],
                tenant,
                [host_id for host_id, _ in ordered],
                [item.speed for _, item in ordered],
                [item.tasks for _, item in ordered],
                MEASURED_SECONDS,
            )

    async def measured(self, limit: int) -> Sequence[tuple[str, str, float]]:
        check_limit(limit)
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["health.measured"], MEASURED_SECONDS, limit)
        return [(row["tenant"], row["host_id"], row["measured_speed"]) for row in rows]

    async def set_speed(self, tenant: str, host_id: str, speed: float, reason: str) -> bool:
        async with self._database.tenant_connection(tenant) as connection:
            query = self._queries["health.set_speed"]
            return await connection.fetchval(query, tenant, host_id, speed, storable_text(reason)) is not None

    async def page(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        agent_type: str | None = None,
        states: Sequence[HostState] = ("healthy", "suspect"),
    ) -> Page[AgentView]:
        check_limit(limit)
        (after,) = decode_token("hosts", page_token, (str,)) or [None]
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(
                self._queries["health.page"], tenant, limit + 1, after, agent_type, list(states)
            )
            more = len(rows) > limit
            loads = await self._loads(connection, tenant, [row["host_id"] for row in rows[:limit]])
        items = tuple(AgentView(**_columns(row), load=loads.get(row["host_id"], HostLoad())) for row in rows[:limit])
        return Page(items=items, next_page_token=encode_token("hosts", (items[-1].host_id,)) if more else None)

    async def get(self, tenant: str, host_id: str) -> AgentDetail:
        async with self._database.tenant_connection(tenant) as connection:
            row = await connection.fetchrow(self._queries["health.get"], tenant, storable_text(host_id))
            if row is None:
                raise NotFoundError(f"there is no agent host {host_id}")
            loads = await self._loads(connection, tenant, [host_id])
            history = await connection.fetch(self._queries["health.history"], tenant, host_id, HISTORY_SHOWN_MAX)
        return AgentDetail(
            **_columns(row),
            load=loads.get(host_id, HostLoad()),
            history=tuple(HostChange.model_validate(dict(change)) for change in history),
        )

    async def _loads(self, connection: Connection, tenant: str, host_ids: list[str]) -> dict[str, HostLoad]:
        rows = await connection.fetch(self._queries["health.load"], tenant, host_ids)
        return {
            row["host_id"]: HostLoad(agents=row["agents"], executions=row["executions"], tasks_in_flight=row["tasks"])
            for row in rows
        }


def _columns(row: asyncpg.Record) -> dict[str, Any]:
    columns = dict(row)
    columns["capabilities"] = "*" if columns["capabilities"] is None else tuple(columns["capabilities"])
    columns["types"], columns["features"] = tuple(columns["types"]), tuple(columns["features"])
    return columns
