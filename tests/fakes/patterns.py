"""Registered patterns in memory, with the rules of the real store."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

from engine.contracts.patterns.language import PatternRegistration
from engine.contracts.patterns.registered import PatternSummary, RegisteredPattern
from engine.contracts.views import Page
from engine.errors import NotFoundError, PatternConflictError


class FakePatternStore:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], tuple[RegisteredPattern, str]] = {}

    async def register(
        self, tenant: str, registration: PatternRegistration, content_hash: str, created_by: str
    ) -> tuple[UUID, bool]:
        key = (tenant, registration.name, registration.version)
        stored = self.rows.get(key)
        if stored is not None:
            if stored[1] != content_hash:
                raise PatternConflictError("another pattern is registered under that name and version")
            return stored[0].pattern_id, False
        pattern = RegisteredPattern(
            pattern_id=uuid4(),
            created_at=datetime.now(UTC),
            created_by=created_by,
            **registration.model_dump(exclude={"pattern_type"}),
        )
        self.rows[key] = (pattern, content_hash)
        return pattern.pattern_id, True

    async def get(self, tenant: str, name: str, version: str | None = None) -> RegisteredPattern:
        found = [
            pattern
            for (owner, stored, at), (pattern, _) in self.rows.items()
            if (owner, stored) == (tenant, name) and version in (None, at)
        ]
        if not found:
            raise NotFoundError("no such pattern")
        return found[-1]

    async def list(self, tenant: str, *, limit: int, page_token: str | None) -> Page[PatternSummary]:
        keys = sorted((name, version) for owner, name, version in self.rows if owner == tenant)
        rest = [key for key in keys if page_token is None or f"after-{key[0]}-{key[1]}" > page_token]
        items = tuple(
            PatternSummary(**self.rows[tenant, *key][0].model_dump(include=set(PatternSummary.model_fields)))
            for key in rest[:limit]
        )
        token = f"after-{items[-1].name}-{items[-1].version}" if len(rest) > limit else None
        return Page(items=items, next_page_token=token)
