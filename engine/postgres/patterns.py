"""Patterns that tenants have registered. A version never changes and is never deleted: executions may run it."""

from typing import Final
from uuid import UUID

from engine.contracts.patterns.language import PatternRegistration
from engine.contracts.patterns.registered import PatternSummary, RegisteredPattern
from engine.contracts.views import Page
from engine.errors import NotFoundError, PatternConflictError, TooManyRequestsError
from engine.postgres.documents import client_document
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.pool import Database

PATTERNS_MAX: Final = 1_000
"""Versions of patterns that a tenant may register."""


class PostgresPatternStore:
    """Implements `engine.ports.PatternStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def register(
        self, tenant: str, registration: PatternRegistration, content_hash: str, created_by: str
    ) -> tuple[UUID, bool]:
        name, version = registration.name, registration.version
        arguments = (
            tenant,
            name,
            version,
            registration.description,
            client_document(registration.coordination_logic),
            client_document(registration.configuration_schema),
            content_hash,
            created_by,
            PATTERNS_MAX,
        )
        async with self._database.tenant_connection(tenant) as connection:
            # Two statements: the second must see what a concurrent registration has committed meanwhile.
            pattern_id = await connection.fetchval(self._queries["patterns.insert"], *arguments)
            if pattern_id is not None:
                return pattern_id, True
            stored = await connection.fetchrow(self._queries["patterns.find"], tenant, name, version)
        if stored is None:
            raise TooManyRequestsError(f"{PATTERNS_MAX} versions of patterns are registered; no more are taken")
        if stored["content_hash"] != content_hash:
            message = f"version: another pattern is registered as {name} {version}; give this one a new version"
            raise PatternConflictError(message, errors=[message])
        return stored["pattern_id"], False

    async def get(self, tenant: str, name: str, version: str | None = None) -> RegisteredPattern:
        async with self._database.tenant_connection(tenant) as connection:
            row = await connection.fetchrow(self._queries["patterns.get"], tenant, name, version)
        if row is None:
            raise NotFoundError("no such pattern")
        return RegisteredPattern.model_validate(dict(row))

    async def list(self, tenant: str, *, limit: int, page_token: str | None) -> Page[PatternSummary]:
        check_limit(limit)
        after = decode_token("patterns", page_token, (str, str)) or [None, None]
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["patterns.list"], tenant, limit + 1, *after)
        items = tuple(PatternSummary.model_validate(dict(row)) for row in rows[:limit])
        last = items[-1] if len(rows) > limit else None
        return Page(items=items, next_page_token=encode_token("patterns", (last.name, last.version)) if last else None)
