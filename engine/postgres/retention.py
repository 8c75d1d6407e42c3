"""Deleting what is old, as the maintenance role: the only one that may delete."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.pool import Connection, Database


class PostgresRetentionStore:
    """Implements `engine.ports.RetentionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries
        self._maintenance = PostgresMaintenanceStore(database)

    @asynccontextmanager
    async def leader(self, name: str) -> AsyncIterator[bool]:
        async with self._maintenance.leader(name) as leading:
            yield leading

    async def journals(
        self, older_than_days: float, limit: int, closed_from: datetime | None = None
    ) -> Sequence[tuple[str, UUID, datetime]]:
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["retention.journals"], older_than_days, limit, closed_from)
        return [(row["tenant"], row["execution_id"], row["completed_at"]) for row in rows]

    async def delete_journal(self, tenant: str, execution_id: UUID) -> None:
        async with self._database.maintenance_connection() as connection, connection.transaction():
            await connection.execute(self._queries["retention.delete_journal"], tenant, execution_id)
            await connection.execute(self._queries["retention.mark_journal_deleted"], tenant, execution_id)

    async def expired(self, older_than_days: float, limit: int) -> Sequence[tuple[str, UUID]]:
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["retention.expired"], older_than_days, limit)
        return [(row["tenant"], row["execution_id"]) for row in rows]

    async def delete_execution(self, tenant: str, execution_id: UUID) -> None:
        async with self._database.maintenance_connection() as connection, connection.transaction():
            plan_hash = await connection.fetchval(self._queries["retention.delete_execution"], tenant, execution_id)
            if plan_hash is not None:
                await self._delete_plan(connection, tenant, plan_hash)

    async def delete_unused_plans(self, older_than_days: float, limit: int) -> int:
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["retention.unused_plans"], older_than_days, limit)
            for row in rows:
                async with connection.transaction():
                    await self._delete_plan(connection, row["tenant"], row["plan_hash"])
        return len(rows)

    async def _delete_plan(self, connection: Connection, tenant: str, plan_hash: str) -> None:
        """When nothing refers to it. Two statements: the second sees who had come to until the first had its lock."""
        if await connection.fetchval(self._queries["retention.lock_plan"], tenant, plan_hash):
            await connection.execute(self._queries["retention.delete_unused_plan"], tenant, plan_hash)

    async def delete_gone_hosts(self, older_than_days: float, limit: int) -> int:
        return await self._delete("retention.delete_gone_hosts", older_than_days, limit)

    async def delete_cached_results(self, older_than_days: float, limit: int) -> int:
        return await self._delete("retention.delete_cached_results", older_than_days, limit)

    async def delete_idempotency_keys(self, older_than_days: float, limit: int) -> int:
        return await self._delete("retention.delete_idempotency_keys", older_than_days, limit)

    async def delete_operations(self, older_than_days: float, limit: int) -> int:
        return await self._delete("retention.delete_operations", older_than_days, limit)

    async def delete_hook_executions(self, older_than_days: float, limit: int) -> int:
        return await self._delete("retention.delete_hook_executions", older_than_days, limit)

    async def delete_hook_deliveries(self, older_than_days: float, limit: int) -> int:
        return await self._delete("retention.delete_hook_deliveries", older_than_days, limit)

    async def _delete(self, query: str, older_than_days: float, limit: int) -> int:
        async with self._database.maintenance_connection() as connection:
            # The driver answers "DELETE n".
            status = await connection.execute(self._queries[query], older_than_days, limit)
        return int(status.rpartition(" ")[2])
