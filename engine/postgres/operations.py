"""The audit log of operations: who did what, from where, to what, with which outcome."""

from typing import Any

from engine.contracts.views import OperationRecord, Page
from engine.postgres.documents import raw_document, storable_text
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.pool import Database


class PostgresOperationLog:
    """Implements `engine.ports.OperationLog`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def record(self, tenant: str, operation: OperationRecord) -> None:
        """Stored whatever it holds: what a client sent must not keep it out of the log."""
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(
                self._queries["operations.record"],
                tenant,
                storable_text(operation.actor),
                [storable_text(role) for role in operation.roles],
                storable_text(operation.address),
                storable_text(operation.operation),
                storable_text(operation.subject_type),
                storable_text(operation.subject_id) if operation.subject_id is not None else None,
                storable_text(operation.outcome),
                storable_text(operation.request_id),
                raw_document(operation.details),
            )

    async def list(self, tenant: str, *, limit: int, page_token: str | None) -> Page[dict[str, Any]]:
        """Newest first."""
        check_limit(limit)
        (before,) = decode_token("operations", page_token, (int,)) or [None]
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["operations.list"], tenant, limit + 1, before)
        items = tuple(dict(row) for row in rows[:limit])
        more = len(rows) > limit
        return Page(items=items, next_page_token=encode_token("operations", (items[-1]["id"],)) if more else None)
