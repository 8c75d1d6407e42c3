"""Which executions have facts that must reach the streams, across tenants, as the maintenance role."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from engine.contracts.limits import PAGE_SIZE_MAX
from engine.contracts.views import ExecutionEvent
from engine.errors import InvalidParametersError
from engine.ports import Published
from engine.postgres.pool import Database


class PostgresPublicationStore:
    """Implements `engine.ports.PublicationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def open_executions(self, after: UUID | None, limit: int) -> Sequence[Published]:
        return await self._executions("publications.open_executions", after, limit)

    async def closed_executions(self, closed_after: datetime, limit: int) -> Sequence[Published]:
        return await self._executions("publications.closed_executions", closed_after, limit)

    async def facts(self, tenant: str, execution_id: UUID, after_sequence: int, limit: int) -> Sequence[ExecutionEvent]:
        _check_limit(limit)
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(
                self._queries["publications.facts"], tenant, execution_id, after_sequence, limit
            )
        return [ExecutionEvent.model_validate(dict(row)) for row in rows]

    async def confirm(self, executions: Sequence[Published]) -> None:
        if not executions:
            return
        async with self._database.maintenance_connection() as connection:
            await connection.execute(
                self._queries["publications.confirm"],
                [item.tenant for item in executions],
                [item.execution_id for item in executions],
                [item.last_sequence for item in executions],
            )

    async def _executions(self, query: str, after: UUID | datetime | None, limit: int) -> list[Published]:
        _check_limit(limit)
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries[query], after, limit)
        return [Published.model_validate(dict(row)) for row in rows]


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= PAGE_SIZE_MAX:
        raise InvalidParametersError(f"limit must be between 1 and {PAGE_SIZE_MAX}")
