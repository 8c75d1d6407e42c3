"""Hosts that serve one agent alone, and hosts that wait in a pool until one of many claims them."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from engine.contracts.hosts import Dedication
from engine.ports import HostRecord
from engine.postgres.hosts import PostgresHostStore

POOLED = Dedication()


def host(host_id: str, dedicated_to: Dedication | None = None, **fields: Any) -> HostRecord:
    now = datetime.now(UTC)
    values = {"types": ("coder",), "slots": 1, "registered_at": now, "last_seen": now, **fields}
    return HostRecord(host_id=host_id, dedicated_to=dedicated_to, **values)


def ids(hosts: Any) -> list[str]:
    return [found.host_id for found in hosts]


async def test_a_dedicated_host_is_found_by_its_execution_only(hosts: PostgresHostStore, tenant: str) -> None:
    mine = Dedication(execution_id="e1", agent_id="worker-1")
    await hosts.upsert(tenant, [host("shared"), host("mine", mine), host("pooled", POOLED)])
    assert ids(await hosts.live(tenant, "coder", 10)) == ["shared"]
    assert ids(await hosts.live_for(tenant, "e1", 10)) == ["mine"]
    assert (await hosts.live_for(tenant, "e1", 10))[0].dedicated_to == mine
    assert ids(await hosts.pooled(tenant, "coder", 10)) == ["pooled"]
    assert ids(await hosts.pooled(tenant, "other", 10)) == []
    assert ids(await hosts.live_for(tenant, "e2", 10)) == []
    await hosts.mark_gone(tenant, ["mine"])
    assert ids(await hosts.live_for(tenant, "e1", 10)) == []
    assert ids(await hosts.live_for(tenant, "e1", 10, gone_too=True)) == ["mine"]


async def test_a_claim_is_made_once_and_outlives_what_the_host_says(hosts: PostgresHostStore, tenant: str) -> None:
    await hosts.upsert(tenant, [host("pooled", POOLED)])
    claims = [hosts.claim(tenant, "pooled", "e1", f"worker-{n}") for n in range(8)]
    assert sorted(await asyncio.gather(*claims)) == [False] * 7 + [True]
    (claimed,) = await hosts.live_for(tenant, "e1", 10)
    await hosts.upsert(tenant, [host("pooled", POOLED)])
    assert (await hosts.live_for(tenant, "e1", 10))[0].dedicated_to == claimed.dedicated_to
    assert ids(await hosts.pooled(tenant, "coder", 10)) == []


async def test_an_agent_never_claims_two_hosts(hosts: PostgresHostStore, tenant: str) -> None:
    pool = [f"pooled-{n}" for n in range(6)]
    await hosts.upsert(tenant, [host(name, POOLED) for name in pool])
    claims = [hosts.claim(tenant, name, "e1", "worker-1") for name in pool]
    assert sum(await asyncio.gather(*claims)) == 1
    assert len(await hosts.live_for(tenant, "e1", 10)) == 1
    assert len(await hosts.pooled(tenant, "coder", 10)) == 5


async def test_what_is_gone_or_shared_is_not_claimed(hosts: PostgresHostStore, tenant: str) -> None:
    await hosts.upsert(tenant, [host("gone", POOLED), host("shared")])
    await hosts.mark_gone(tenant, ["gone"])
    assert not await hosts.claim(tenant, "gone", "e1", "worker-1")
    assert not await hosts.claim(tenant, "shared", "e1", "worker-1")
    assert not await hosts.claim("another-tenant", "shared", "e1", "worker-1")
