"""What the reconciler and the registry ask across tenants, as the maintenance role."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from engine.contracts.limits import PAGE_SIZE_MAX
from engine.errors import InvalidParametersError
from engine.plans import PLANS
from engine.ports import OpenExecution
from engine.postgres.pool import Database

AFFECTED_MAX: Final = 10_000
"""Executions told about one host at once; the reconciler finds the others."""
PROGRESS_UPDATES_MAX: Final = 10_000


class PostgresMaintenanceStore:
    """Implements `engine.ports.MaintenanceStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def unlaunched(self, older_than_seconds: float, limit: int) -> Sequence[OpenExecution]:
        return await self._open("maintenance.unlaunched", older_than_seconds, limit)

    async def behind(self, quiet_seconds: float, limit: int) -> Sequence[OpenExecution]:
        return await self._open("maintenance.behind", quiet_seconds, limit)

    async def open_executions(self, after: UUID | None, limit: int) -> Sequence[OpenExecution]:
        return await self._open("maintenance.open_executions", after, limit)

    async def launch_document(self, tenant: str, execution_id: UUID) -> dict[str, Any] | None:
        async with self._database.maintenance_connection() as connection:
            row = await connection.fetchrow(self._queries["maintenance.launch_document"], tenant, execution_id)
        if row is None:
            return None
        document = _launch_document(row["launch"], row["started_at"])
        if row["plan"] is not None:
            document["plan"] = await asyncio.to_thread(PLANS.keep, tenant, row["plan_hash"], row["plan"])
        return document

    async def executions_using_host(self, tenant: str, host_id: str) -> Sequence[UUID]:
        return await self._affected("maintenance.executions_using_host", tenant, host_id)

    async def executions_missing_hosts(self, tenant: str, agent_type: str) -> Sequence[UUID]:
        return await self._affected("maintenance.executions_missing_hosts", tenant, agent_type)

    async def is_closed(self, tenant: str, execution_id: UUID) -> bool | None:
        async with self._database.maintenance_connection() as connection:
            closed: bool | None = await connection.fetchval(
                self._queries["maintenance.is_closed"], tenant, execution_id
            )
        return closed

    async def completed_tasks(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> Sequence[str]:
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(
                self._queries["maintenance.completed_tasks"], tenant, execution_id, list(task_ids)
            )
        return [row["task_id"] for row in rows]

    async def write_progress(self, tenant: str, updates: Sequence[tuple[UUID, str, int, float]]) -> None:
        if len(updates) > PROGRESS_UPDATES_MAX:
            raise InvalidParametersError(f"at most {PROGRESS_UPDATES_MAX} updates at once")
        # The last report of an attempt stands for those before it.
        latest = {(execution_id, task_id): (attempt, progress) for execution_id, task_id, attempt, progress in updates}
        if not latest:
            return
        async with self._database.maintenance_connection() as connection:
            await connection.execute(
                self._queries["maintenance.write_progress"],
                tenant,
                [execution_id for execution_id, _ in latest],
                [task_id for _, task_id in latest],
                [attempt for attempt, _ in latest.values()],
                [min(1.0, max(0.0, progress)) for _, progress in latest.values()],
            )

    @asynccontextmanager
    async def leader(self, name: str) -> AsyncIterator[bool]:
        """Held by the session: a process that dies, or loses its connection, gives it up.

        Who leads is therefore not certain at every instant, and what a leader does must bear being done twice.
        """
        async with self._database.session() as connection:
            yield bool(await connection.fetchval(self._queries["maintenance.try_lead"], name))

    async def _open(self, query: str, argument: Any, limit: int) -> list[OpenExecution]:
        if not 1 <= limit <= PAGE_SIZE_MAX:
            raise InvalidParametersError(f"limit must be between 1 and {PAGE_SIZE_MAX}")
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries[query], argument, limit)
        return [open_execution(row) for row in rows]

    async def _affected(self, query: str, tenant: str, argument: str) -> list[UUID]:
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries[query], tenant, argument, AFFECTED_MAX)
        return [row["execution_id"] for row in rows]


def open_execution(row: asyncpg.Record) -> OpenExecution:
    """`launch`, where it was asked for, comes with `started_at`."""
    fields = dict(row)
    if "launch" in fields:
        fields["launch"] = _launch_document(fields["launch"], fields.pop("started_at"))
    return OpenExecution.model_validate(fields)


def _launch_document(text: str, started_at: datetime) -> dict[str, Any]:
    """With the time of the start: an execution that waited for capacity starts later than it was written."""
    document: dict[str, Any] = orjson.loads(text)
    document["started_at_ms"] = round(started_at.timestamp() * 1000)
    return document
