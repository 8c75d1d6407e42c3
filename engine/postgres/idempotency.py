"""What idempotency keys were first used for."""

from engine.errors import IdempotencyConflictError
from engine.postgres.pool import Database


class PostgresIdempotencyKeys:
    """Implements `engine.ports.IdempotencyKeys`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def claim(self, tenant: str, operation: str, key: str, request_hash: str) -> None:
        async with self._database.tenant_connection(tenant) as connection:
            # Two statements: the second must see what a concurrent claim has committed meanwhile.
            await connection.execute(self._queries["idempotency.claim"], tenant, operation, key, request_hash)
            first = await connection.fetchval(self._queries["idempotency.find"], tenant, operation, key)
        if first != request_hash:
            raise IdempotencyConflictError("the idempotency key was used before with another request")
