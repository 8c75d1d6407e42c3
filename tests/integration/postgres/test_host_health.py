"""Suspicion, speed, load and history of hosts in PostgreSQL."""
# ruff: noqa: F811 - fixtures of another module

from datetime import UTC, datetime, timedelta

import pytest

from engine.errors import InvalidParametersError, NotFoundError
from engine.health_ports import Measured
from engine.postgres.figures import PostgresFigures
from engine.postgres.host_health import PostgresHostHealthStore
from engine.postgres.hosts import PostgresHostStore
from engine.postgres.pool import Database
from engine.postgres.retention import PostgresRetentionStore
from tests.integration.postgres.test_retention import Superuser, retention, superuser  # noqa: F401 - fixtures
from tests.integration.postgres.test_stores import host


@pytest.fixture
def health(database: Database) -> PostgresHostHealthStore:
    return PostgresHostHealthStore(database)


@pytest.fixture
async def known(hosts: PostgresHostStore, tenant: str) -> PostgresHostStore:
    await hosts.upsert(tenant, [host("h1"), host("h2"), host("h3")])
    return hosts


async def test_a_suspicion_is_marked_seen_by_binders_and_taken_back(
    known: PostgresHostStore, health: PostgresHostHealthStore, tenant: str
) -> None:
    assert await health.mark_suspect(tenant, ["h1", "nobody"], "silent for 4.2 s") == ["h1"]
    assert await health.mark_suspect(tenant, ["h1"], "still") == []
    await known.upsert(tenant, [host("h1")])  # a heartbeat that was on its way says nothing of it
    seen = await health.get(tenant, "h1")
    assert (seen.state, seen.state_reason) == ("suspect", "silent for 4.2 s")
    assert seen.suspect_since is not None
    agent_type = host("h1").types[0]
    assert [h.host_id for h in await known.live(tenant, agent_type, 10) if h.suspect_since is not None] == ["h1"]
    assert await health.mark_recovered(tenant, ["h1", "h2"]) == ["h1"]
    assert (await health.get(tenant, "h1")).state == "healthy"
    assert [change.state for change in (await health.get(tenant, "h1")).history] == ["healthy", "suspect", "healthy"]


async def test_what_is_gone_is_neither_suspected_nor_heard_again_and_its_reason_stays(
    known: PostgresHostStore, health: PostgresHostHealthStore, tenant: str
) -> None:
    await health.explain_gone(tenant, "h1", "the node is gone")
    await known.mark_gone(tenant, ["h1"])
    assert await health.mark_suspect(tenant, ["h1"], "silent") == []
    assert await health.mark_recovered(tenant, ["h1"]) == []
    await health.explain_gone(tenant, "h1", "silent")
    detail = await health.get(tenant, "h1")
    assert (detail.state, detail.state_reason) == ("gone", "the node is gone")
    assert (detail.history[0].state, detail.history[0].reason) == ("gone", "the node is gone")


async def test_speeds_are_averaged_over_workers_and_forgotten_when_nobody_measures(
    known: PostgresHostStore, health: PostgresHostHealthStore, superuser: Superuser, tenant: str
) -> None:
    await health.note_measured(tenant, {"h1": Measured(0.4, 10), "h2": Measured(1.0, 7), "nobody": Measured(0.1, 1)})
    await health.note_measured(tenant, {"h1": Measured(0.1, 5)})
    detail = await health.get(tenant, "h1")
    assert detail.measured_speed == pytest.approx(0.3)
    assert (detail.measured_tasks, detail.speed) == (15, 1.0)
    mine = [(host_id, round(value, 3)) for t, host_id, value in await health.measured(1_000) if t == tenant]
    assert mine == [("h1", 0.3)]
    assert await health.set_speed(tenant, "h1", 0.25, "slow")
    assert not await health.set_speed(tenant, "h1", 0.25, "slow")
    assert (await health.get(tenant, "h1")).history[0].speed == 0.25
    await superuser.execute("UPDATE agent_hosts SET measured_at = now() - interval '1 hour' WHERE tenant = $1", tenant)
    assert [value for t, _, value in await health.measured(1_000) if t == tenant] == [1.0]
    await health.note_measured(tenant, {"h1": Measured(0.9, 1)})
    assert (await health.get(tenant, "h1")).measured_speed == pytest.approx(0.9)


async def test_hosts_are_listed_in_pages_by_state_and_type_and_the_tenants_own_only(
    known: PostgresHostStore, health: PostgresHostHealthStore, tenant: str
) -> None:
    await health.mark_suspect(tenant, ["h2"], "silent")
    await known.mark_gone(tenant, ["h3"])
    first = await health.page(tenant, limit=1, page_token=None)
    assert [(h.host_id, h.state) for h in first.items] == [("h1", "healthy")]
    rest = await health.page(tenant, limit=5, page_token=first.next_page_token)
    assert [(h.host_id, h.state) for h in rest.items] == [("h2", "suspect")]
    assert rest.next_page_token is None
    gone = await health.page(tenant, limit=5, page_token=None, states=("gone",))
    assert [h.host_id for h in gone.items] == ["h3"]
    assert not (await health.page(tenant, limit=5, page_token=None, agent_type="no such type")).items
    assert not (await health.page(f"{tenant}-b", limit=5, page_token=None)).items
    with pytest.raises(NotFoundError):
        await health.get(f"{tenant}-b", "h1")
    with pytest.raises(InvalidParametersError):
        await health.page(tenant, limit=0, page_token=None)


async def test_hosts_of_all_tenants_are_counted_by_state(
    known: PostgresHostStore, health: PostgresHostHealthStore, database: Database, tenant: str
) -> None:
    figures = PostgresFigures(database)
    before = await figures.hosts()
    await health.mark_suspect(tenant, ["h1"], "silent")
    after = await figures.hosts()
    assert set(after) == {"healthy", "suspect", "gone"}
    assert after["suspect"] == before["suspect"] + 1
    assert after["healthy"] == before["healthy"] - 1


async def test_history_goes_with_its_host_and_that_of_living_hosts_after_a_time(
    known: PostgresHostStore,
    health: PostgresHostHealthStore,
    retention: PostgresRetentionStore,
    superuser: Superuser,
    tenant: str,
) -> None:
    await health.mark_suspect(tenant, ["h1"], "silent")
    old = datetime.now(UTC) - timedelta(days=9_000)
    await superuser.execute(
        "UPDATE agent_host_history SET at = $2 WHERE tenant = $1 AND host_id = 'h1' AND state = 'healthy'", tenant, old
    )
    assert await retention.delete_host_history(8_999, 10) == 1
    assert [change.state for change in (await health.get(tenant, "h1")).history] == ["suspect"]
    await known.mark_gone(tenant, ["h2"])
    await superuser.execute("UPDATE agent_hosts SET last_seen = $2 WHERE tenant = $1 AND host_id = 'h2'", tenant, old)
    assert await retention.delete_gone_hosts(8_999, 10) == 1
    left = await superuser.fetchval(
        "SELECT count(*) FROM agent_host_history WHERE tenant = $1 AND host_id = 'h2'", tenant
    )
    assert left == 0
