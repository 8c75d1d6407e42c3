"""Deleting what is old, as the maintenance role: the only one that may delete.

Events are not deleted: their partitions are dropped. An old partition may hold events of executions that are still
kept, open ones, and those that ended long after they began. These events are copied to a small table, which takes the
partition's place until none of these executions is there any more.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

from engine.postgres.maintenance import PostgresMaintenanceStore
from engine.postgres.pool import Connection, Database

KEPT_SUFFIX: Final = "_kept"
KEPT_EVENTS_MAX: Final = 200_000
"""More than these are not copied: the partition stays as it is, and is looked at again in the next round."""


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

    async def delete_host_history(self, older_than_days: float, limit: int) -> int:
        return await self._delete("retention.delete_host_history", older_than_days, limit)

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

    async def prepare_event_partitions(self, days: int, ahead: int) -> int:
        async with self._database.maintenance_connection() as connection:
            made: int = await connection.fetchval(self._queries["retention.prepare_event_partitions"], days, ahead)
        return made

    async def drop_event_partitions(self, older_than_days: float) -> tuple[int, int]:
        dropped = 0
        async with self._database.maintenance_connection() as connection:
            old = await connection.fetch(self._queries["retention.old_event_partitions"], older_than_days)
            for row in old:
                dropped += await self._drop_partition(connection, row["name"], row["from_at"], row["until_at"])
        return dropped, len(old) - dropped

    async def _drop_partition(self, connection: Connection, name: str, from_at: datetime, until_at: datetime) -> bool:
        kept: int = await connection.fetchval(
            self._queries["retention.count_kept_events"], from_at, until_at, KEPT_EVENTS_MAX + 1
        )
        if kept > KEPT_EVENTS_MAX or (kept and name.endswith(KEPT_SUFFIX)):
            return False
        async with connection.transaction():
            if kept:
                await connection.execute(self._queries["retention.keep_events"], name, from_at, until_at)
            await connection.execute(self._queries["retention.drop_event_partition"], name, kept > 0)
        return True

    async def delete_events_without_partition(self, older_than_days: float, limit: int) -> int:
        return await self._delete("retention.delete_events_without_partition", older_than_days, limit)

    async def _delete(self, query: str, older_than_days: float, limit: int) -> int:
        async with self._database.maintenance_connection() as connection:
            # The driver answers "DELETE n".
            status = await connection.execute(self._queries[query], older_than_days, limit)
        return int(status.rpartition(" ")[2])
