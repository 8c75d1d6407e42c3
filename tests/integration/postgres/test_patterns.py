"""Registered patterns in PostgreSQL: stored once, by version, apart by tenant."""

import asyncio
from typing import Any

import asyncpg
import pytest

import engine.postgres.patterns
from engine.contracts.patterns.language import PatternRegistration
from engine.errors import InvalidParametersError, NotFoundError, PatternConflictError, TooManyRequestsError
from engine.postgres.cluster import ClusterUrls
from engine.postgres.patterns import PostgresPatternStore
from engine.postgres.pool import Database

LOGIC: dict[str, Any] = {"start": "end", "states": {"end": {"do": "finish"}}}


@pytest.fixture
def patterns(database: Database) -> PostgresPatternStore:
    return PostgresPatternStore(database)


def registration(name: str = "mine", version: str = "1", **changes: Any) -> PatternRegistration:
    return PatternRegistration(**{"name": name, "version": version, "coordination_logic": LOGIC, **changes})


async def test_a_pattern_is_stored_once_and_got_back_as_it_was(patterns: PostgresPatternStore, tenant: str) -> None:
    given = registration(description="d", configuration_schema={"type": "object"})
    made = [await patterns.register(tenant, given, "hash", "me") for _ in range(2)]
    assert [created for _, created in made] == [True, False]
    assert made[0][0] == made[1][0]
    got = await patterns.get(tenant, "mine")
    assert (got.pattern_id, got.description, got.created_by) == (made[0][0], "d", "me")
    assert (got.coordination_logic, got.configuration_schema) == (LOGIC, {"type": "object"})


async def test_registrations_at_the_same_time_make_one(patterns: PostgresPatternStore, tenant: str) -> None:
    made = await asyncio.gather(*(patterns.register(tenant, registration(), "hash", "me") for _ in range(8)))
    assert len({pattern_id for pattern_id, _ in made}) == 1
    assert sum(created for _, created in made) == 1


async def test_other_content_under_the_same_version_is_a_conflict(patterns: PostgresPatternStore, tenant: str) -> None:
    await patterns.register(tenant, registration(), "hash", "me")
    with pytest.raises(PatternConflictError, match="new version"):
        await patterns.register(tenant, registration(), "another", "me")


async def test_the_version_registered_last_is_the_newest(patterns: PostgresPatternStore, tenant: str) -> None:
    for version in ("10", "9"):
        await patterns.register(tenant, registration(version=version), version, "me")
    assert (await patterns.get(tenant, "mine")).version == "9"
    assert (await patterns.get(tenant, "mine", "10")).version == "10"
    with pytest.raises(NotFoundError):
        await patterns.get(tenant, "mine", "11")


async def test_they_are_listed_in_pages_by_name_and_version(patterns: PostgresPatternStore, tenant: str) -> None:
    for name, version in (("b", "1"), ("a", "2"), ("a", "1"), ("c", "1")):
        await patterns.register(tenant, registration(name, version), name + version, "me")
    seen: list[tuple[str, str]] = []
    token: str | None = None
    while True:
        page = await patterns.list(tenant, limit=3, page_token=token)
        seen += [(item.name, item.version) for item in page.items]
        token = page.next_page_token
        if token is None:
            break
    assert seen == [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")]
    with pytest.raises(InvalidParametersError):
        await patterns.list(tenant, limit=3, page_token="nonsense")


async def test_a_tenant_sees_its_own_only(patterns: PostgresPatternStore, tenant: str) -> None:
    await patterns.register(tenant, registration(), "hash", "me")
    other = tenant + "-other"
    with pytest.raises(NotFoundError):
        await patterns.get(other, "mine")
    assert (await patterns.list(other, limit=5, page_token=None)).items == ()
    await patterns.register(other, registration(), "another", "you")


async def test_a_tenant_may_have_so_many(
    patterns: PostgresPatternStore, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.postgres.patterns, "PATTERNS_MAX", 1)
    await patterns.register(tenant, registration(), "hash", "me")
    assert not (await patterns.register(tenant, registration(), "hash", "me"))[1]
    with pytest.raises(TooManyRequestsError):
        await patterns.register(tenant, registration(version="2"), "hash", "me")


@pytest.mark.parametrize(
    "statement", ["UPDATE workflow_patterns SET description = ''", "DELETE FROM workflow_patterns"]
)
async def test_a_version_cannot_be_changed_by_the_engine(urls: ClusterUrls, tenant: str, statement: str) -> None:
    connection = await asyncpg.connect(urls.app)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()
