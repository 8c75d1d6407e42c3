"""Statistics of executions: counted by the maintenance role, read by tenants."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg

from engine.contracts.execution import ExecutionStatus
from engine.contracts.statistics import RunStatistics, Statistics, WorkflowStatistics
from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.pool import Database

_PLAIN: Final = tuple(name for name in RunStatistics.model_fields if name != "executions")


class PostgresStatisticsStore:
    """Implements `engine.ports.StatisticsStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries
        self._maintenance = PostgresMaintenanceStore(database)

    @asynccontextmanager
    async def leader(self, name: str) -> AsyncIterator[bool]:
        async with self._maintenance.leader(name) as leading:
            yield leading

    async def tenants(self, after: str, limit: int) -> Sequence[str]:
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["statistics.tenants"], after, limit)
        return [row["tenant"] for row in rows]

    async def refresh(self, tenant: str) -> None:
        async with self._database.maintenance_connection() as connection:
            await connection.execute(self._queries["statistics.refresh"], tenant)

    async def report(
        self, tenant: str, *, limit: int, page_token: str | None = None, workflow_id: UUID | None = None
    ) -> Statistics:
        check_limit(limit)
        after = decode_token("statistics", page_token, (str,)) or [None]
        wanted = None if workflow_id is None else str(workflow_id)
        async with self._database.tenant_connection(tenant) as connection:
            overall = await connection.fetch(self._queries["statistics.overall"], tenant)
            rows = await connection.fetch(self._queries["statistics.workflows"], tenant, limit + 1, *after, wanted)
        total = next((row for row in overall if row["scope"] == "tenant"), None)
        items = tuple(
            WorkflowStatistics(
                workflow_id=UUID(row["key"]),
                workflow_name=row["workflow_name"],
                version=row["version"],
                orchestration_pattern=row["orchestration_pattern"],
                **_numbers(row),
            )
            for row in rows[:limit]
        )
        return Statistics(
            items=items,
            next_page_token=encode_token("statistics", (str(items[-1].workflow_id),)) if len(rows) > limit else None,
            as_of=total and total["as_of"],
            total=RunStatistics(**_numbers(total)) if total else RunStatistics(executions=_by_status(None)),
            patterns={row["key"]: RunStatistics(**_numbers(row)) for row in overall if row["scope"] == "pattern"},
        )


def _numbers(row: asyncpg.Record) -> dict[str, Any]:
    return {"executions": _by_status(row), **{name: row[name] for name in _PLAIN}}


def _by_status(row: asyncpg.Record | None) -> dict[str, int]:
    return {status.value: row[status.value] if row else 0 for status in ExecutionStatus}
