"""Redis and the stores as the fleet, the registry and binding see them, in memory."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from engine.contracts.hosts import Dedication, Group, HostEvent, HostReport, Wanted
from engine.contracts.views import Page
from engine.errors import UnavailableError
from engine.health_ports import Measured
from engine.ports import HostRecord


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what fakes record has no event
            await asyncio.sleep(0.005)


def record(
    host_id: str,
    *,
    types: tuple[str, ...] = ("coder",),
    capabilities: Any = "*",
    slots: int = 1,
    features: tuple[str, ...] = (),
) -> HostRecord:
    now = datetime.now(UTC)
    return HostRecord(
        host_id=host_id,
        types=types,
        capabilities=capabilities,
        slots=slots,
        features=features,
        registered_at=now,
        last_seen=now,
    )


class FakeHosts:
    """A HostStore of one tenant's hosts, in order of registration."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], HostRecord] = {}
        self.reads = 0
        self.writes: list[str] = []
        self.down = False

    def put(self, tenant: str, host: HostRecord) -> None:
        self.rows[tenant, host.host_id] = host

    def state(self, tenant: str, host_id: str) -> str:
        return self.rows[tenant, host_id].state

    async def upsert(self, tenant: str, hosts: Sequence[HostRecord]) -> Sequence[str]:
        if self.down:
            raise UnavailableError("PostgreSQL does not answer")
        gone = []
        for host in hosts:
            self.writes.append(host.host_id)
            present = self.rows.get((tenant, host.host_id))
            if present is not None and present.state == "gone":
                gone.append(host.host_id)
            else:
                self.rows[tenant, host.host_id] = host
        return gone

    async def live(self, tenant: str, agent_type: str, limit: int) -> Sequence[HostRecord]:
        self.reads += 1
        return [
            h
            for (t, _), h in self.rows.items()
            if t == tenant and agent_type in h.types and h.state == "live" and h.dedicated_to is None
        ]

    async def live_for(
        self, tenant: str, execution_id: str, limit: int, *, gone_too: bool = False
    ) -> Sequence[HostRecord]:
        found = [
            host
            for (t, _), host in self.rows.items()
            if t == tenant and host.dedicated_to is not None and host.dedicated_to.execution_id == execution_id
        ]
        return [host for host in found if host.state == "live" or gone_too][:limit]

    async def pooled(self, tenant: str, agent_type: str, limit: int) -> Sequence[HostRecord]:
        found = await self.live_for(tenant, "", limit)
        return [host for host in found if agent_type in host.types]

    async def claim(self, tenant: str, host_id: str, execution_id: str, agent_id: str) -> bool:
        host = self.rows.get((tenant, host_id))
        if host is None or host.state != "live" or host.dedicated_to != Dedication():
            return False
        dedicated_to = Dedication(execution_id=execution_id, agent_id=agent_id)
        self.rows[tenant, host_id] = host.model_copy(update={"dedicated_to": dedicated_to})
        return True

    async def mark_gone(self, tenant: str, host_ids: Sequence[str]) -> Sequence[str]:
        went = []
        for host_id in host_ids:
            present = self.rows.get((tenant, host_id))
            if present is not None and present.state == "live":
                self.rows[tenant, host_id] = present.model_copy(update={"state": "gone"})
                went.append(host_id)
        return went

    async def page(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        agent_type: str | None = None,
        state: str | None = None,
    ) -> Page[HostRecord]:
        return Page(items=tuple(h for (t, _), h in self.rows.items() if t == tenant and h.state == state))

    async def silent(self, older_than_seconds: float, limit: int) -> Sequence[tuple[str, HostRecord]]:
        return [(tenant, host) for (tenant, _), host in self.rows.items() if host.state == "live"]


class FakeHealth:
    """A HostHealthStore over the rows of `FakeHosts`, with what it was told in order."""

    def __init__(self, hosts: FakeHosts) -> None:
        self._hosts = hosts
        self.suspects: dict[str, str] = {}
        self.changes: list[tuple[str, str]] = []
        self.explained: dict[str, str] = {}
        self.speeds: dict[str, float] = {}
        self.noted: list[tuple[str, dict[str, Measured]]] = []
        self.slow: list[tuple[str, str, float]] = []

    async def mark_suspect(self, tenant: str, host_ids: Sequence[str], reason: str) -> Sequence[str]:
        new = [host_id for host_id in host_ids if host_id not in self.suspects]
        for host_id in new:
            self.suspects[host_id] = reason
            self.changes.append((host_id, "suspect"))
        return new

    async def mark_recovered(self, tenant: str, host_ids: Sequence[str]) -> Sequence[str]:
        well = [host_id for host_id in host_ids if self.suspects.pop(host_id, None) is not None]
        self.changes += [(host_id, "recovered") for host_id in well]
        return well

    async def explain_gone(self, tenant: str, host_id: str, reason: str) -> None:
        self.explained[host_id] = reason

    async def note_measured(self, tenant: str, measured: Mapping[str, Measured]) -> None:
        if self._hosts.down:
            raise UnavailableError("PostgreSQL does not answer")
        self.noted.append((tenant, dict(measured)))

    async def measured(self, limit: int) -> Sequence[tuple[str, str, float]]:
        return self.slow[:limit]

    async def set_speed(self, tenant: str, host_id: str, speed: float, reason: str) -> bool:
        self.speeds[host_id] = speed
        return True


class FakeMaintenance:
    """Which executions use or miss hosts. The other methods of MaintenanceStore are not the registry's."""

    def __init__(self) -> None:
        self.using: dict[tuple[str, str], list[UUID]] = {}
        self.missing: dict[tuple[str, str], list[UUID]] = {}
        self.leading = True

    async def executions_using_host(self, tenant: str, host_id: str) -> Sequence[UUID]:
        return self.using.get((tenant, host_id), [])

    async def executions_missing_hosts(self, tenant: str, agent_type: str) -> Sequence[UUID]:
        return self.missing.get((tenant, agent_type), [])

    @asynccontextmanager
    async def leader(self, name: str) -> AsyncIterator[bool]:
        yield self.leading


class FakePort:
    """Implements WishPort, FleetPort and RegistryPort."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.wishes: dict[Group, Wanted] = {}
        self.asked: list[tuple[Group, int]] = []
        self.gone: list[tuple[str, str]] = []
        self.gone_because: dict[str, str] = {}
        self.refused = 0
        self.logins: set[str] = set()
        self.said: dict[str, list[HostReport]] = defaultdict(list)
        self.told: list[tuple[str, UUID, str, str]] = []
        self.told_because: dict[str, str] = {}
        self.told_speeds: list[tuple[str, float]] = []
        self.renewed: list[str] = []
        self.retired: list[str] = []
        self.trimmed: dict[str, str] = {}
        self.woke = asyncio.Event()
        self.down = False

    def _check(self) -> None:
        if self.down:
            self.refused += 1
            raise UnavailableError("Redis does not answer")

    def say(self, tenant: str, event: str, host_id: str, **more: Any) -> None:
        self.known.add(tenant)
        number = len(self.said[tenant]) + 1
        fields = {"types": ("coder",), **more} if event != "agent.disconnected" else more
        self.said[tenant].append(
            HostReport.model_validate({"entry_id": f"{number}-0", "event": event, "host_id": host_id, **fields})
        )

    def wish(self, group: Group, hosts: int, seconds: float = 60.0) -> None:
        self.known.add(group.tenant)
        self.wishes[group] = Wanted(hosts=hosts, until_ms=int((time.time() + seconds) * 1000))
        self.woke.set()

    async def want(self, group: Group, hosts: int, until_ms: int) -> None:
        self._check()
        self.asked.append((group, hosts))
        self.wishes[group] = Wanted(hosts=hosts, until_ms=until_ms)

    async def tenants(self) -> Sequence[str]:
        self._check()
        return sorted(self.known)

    async def add_tenants(self, tenants: Sequence[str]) -> None:
        self._check()
        self.known.update(tenants)

    async def wanted(self, tenants: Sequence[str]) -> dict[Group, Wanted]:
        self._check()
        return {group: wanted for group, wanted in self.wishes.items() if group.tenant in tenants}

    async def forget_wish(self, group: Group, until_ms: int) -> None:
        self._check()
        if group in self.wishes and self.wishes[group].until_ms <= until_ms:
            del self.wishes[group]

    async def woken(self, timeout_seconds: float) -> None:
        self._check()
        try:
            async with asyncio.timeout(min(timeout_seconds, 0.05)):
                await self.woke.wait()
        except TimeoutError:
            return
        self.woke.clear()

    async def host_gone(self, tenant: str, host_id: str, reason: str = "") -> None:
        self._check()
        self.gone.append((tenant, host_id))
        self.gone_because[host_id] = reason

    async def ensure_logins(self, passwords: dict[str, str]) -> Sequence[str]:
        self._check()
        missing = [tenant for tenant in passwords if tenant not in self.logins]
        self.logins.update(missing)
        return missing

    async def reports(self, after: dict[str, str], block_seconds: float) -> dict[str, tuple[Sequence[HostReport], str]]:
        self._check()
        found: dict[str, tuple[Sequence[HostReport], str]] = {}
        for tenant, position in after.items():
            new = self.said[tenant][int(position.partition("-")[0]) :]
            if new:
                found[tenant] = (new, new[-1].entry_id)
        await asyncio.sleep(0)
        return found

    async def trim_reports(self, before: dict[str, str]) -> None:
        self.trimmed.update(before)

    async def tell_executions(
        self,
        tenant: str,
        execution_ids: Sequence[UUID],
        event: HostEvent,
        host_id: str,
        reason: str = "",
        speed: float = 1.0,
    ) -> None:
        self._check()
        if event == "agent.speed":
            self.told_speeds.append((host_id, speed))
        self.told_because[host_id] = reason
        self.told += [(tenant, execution_id, event, host_id) for execution_id in execution_ids]

    async def tell_host_to_renew(self, tenant: str, host_id: str) -> None:
        self.renewed.append(host_id)

    async def retire_stream(self, tenant: str, host_id: str) -> None:
        self.retired.append(host_id)


class FakeProcess:
    """A host process that ends when it is told to."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log_file: Path) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.environment = dict(environment)
        self.log_file = log_file
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.stopped = False
        self.pid: int | None = 4711

    async def wait(self) -> int:
        return await self.ended

    async def stop(self, timeout_seconds: float) -> int | None:
        self.stopped = True
        self.end(0)
        return 0

    def end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)

    def argument(self, name: str) -> str:
        return self.arguments[self.arguments.index(name) + 1]
