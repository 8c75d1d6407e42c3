"""The registry: which host processes live, and telling executions of those that come and go.

One monitor is active at a time. Losing one must lose nothing: what matters is in PostgreSQL, hosts repeat
themselves every few seconds, and an execution is told of a dead host before that host is marked as gone.

A host is lost when it was silent for `host_lost_after_seconds` while this monitor could hear. Whenever the monitor
itself was away (started, stopped for a while, Redis not answering), every host gets a full period anew.
"""

import asyncio
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from engine.agents.health_watch import HealthWatch
from engine.agents.hostport import RegistryPort
from engine.contracts.hosts import Group, HostReport
from engine.errors import EngineError, UnavailableError
from engine.health_ports import HostHealthStore
from engine.observability.log import get_logger
from engine.ports import HostRecord, HostStore, MaintenanceStore
from engine.settings import Settings

log = get_logger(__name__)

LEADER: Final = "host-registry"
TERM_SECONDS: Final = 30.0
"""After this the lead is taken anew: a lock whose session died is not noticed in between."""

STANDBY_SECONDS: Final = 1.0
READ_SECONDS: Final = 0.2
RESTORE_TENANTS_SECONDS: Final = 2.0
SEEN_WRITE_SECONDS: Final = 5.0
REPORTS_KEPT_SECONDS: Final = 60
REPORTS_READ_MAX: Final = 1_000
"""Of a tenant, in one reading: where so many came, more may be waiting."""

HOSTS_MAX: Final = 1_000
LIVE_HOSTS_MAX: Final = 100_000
"""Of all tenants. One that is not loaded at a takeover and dies before it speaks again would never be missed."""
RENEW_AGAIN_SECONDS: Final = 5.0

TELL_AGAIN_SECONDS: Final = (1.0, 3.0, 10.0, 30.0, 120.0, 600.0)
"""An execution may bind to a host in the moment in which it dies: who uses it is asked again for a while."""

RECENTLY_GONE: Final = timedelta(seconds=TELL_AGAIN_SECONDS[-1])


@dataclass(slots=True)
class _Host:
    tenant: str
    record: HostRecord
    heard_at: float
    written_at: float = float("-inf")
    draining: bool = False
    told: bool = False
    """Executions that were waiting for such a host know of it."""


@dataclass(slots=True)
class _Repeat:
    tenant: str
    host_id: str
    due: float
    step: int
    reason: str = ""


class RegistryMonitor:
    """Reads hosts' reports, keeps `agent_hosts`, tells executions."""

    def __init__(
        self,
        port: RegistryPort,
        hosts: HostStore,
        maintenance: MaintenanceStore,
        health: HostHealthStore,
        settings: Settings,
    ) -> None:
        self._port = port
        self._health_store = health
        self._health = HealthWatch(port, maintenance, health, settings)
        self._store = hosts
        self._maintenance = maintenance
        self._lost_after_seconds = settings.host_lost_after_seconds
        self._idle_seconds = settings.host_idle_seconds
        self._hosts: dict[tuple[str, str], _Host] = {}
        self._positions: dict[str, str] = {}
        self._repeats: list[_Repeat] = []
        self._renewed: dict[tuple[str, str], float] = {}
        self._round_at = float("-inf")
        self._tenants_at = float("-inf")
        self._kept_at = float("-inf")

    async def run(self) -> None:
        """Until cancelled. Leads when no other monitor does; sits out what does not answer."""
        while True:
            pause_seconds = STANDBY_SECONDS
            try:
                async with self._maintenance.leader(LEADER) as leading:
                    if leading:
                        await self._lead()
                        pause_seconds = 0.0
            except EngineError as error:
                log.warning("registry.interrupted", error=str(error))
            await asyncio.sleep(pause_seconds)

    async def round(self) -> None:
        """Hear what hosts said, write it, tell executions. Raises UnavailableError."""
        await self._find_tenants()
        try:
            heard = await self._port.reports(dict(self._positions), READ_SECONDS) if self._positions else {}
        except UnavailableError:
            self._round_at = float("-inf")  # deaf: silence meant nothing
            raise
        self._forgive_own_absence()
        if not self._positions:
            await asyncio.sleep(READ_SECONDS)
        for tenant, (reports, position) in heard.items():
            await self._take(tenant, reports)
            self._positions[tenant] = position
        unread = {tenant for tenant, (reports, _) in heard.items() if len(reports) >= REPORTS_READ_MAX}
        await self._write()
        await self._find_lost(unread)
        await self._health.round(unread)
        await self._repeat()
        await self._keep_hosts_in_use()
        if heard:
            await self._port.trim_reports({tenant: _older(position) for tenant, (_, position) in heard.items()})

    async def _lead(self) -> None:
        await self._load()
        ends = time.monotonic() + TERM_SECONDS
        while time.monotonic() < ends:
            await self.round()

    async def _load(self) -> None:
        """Hosts that PostgreSQL knows get a full period; executions are asked about those that went lately."""
        now = time.monotonic()
        tenants = set()
        for tenant, record in await self._store.silent(0.0, LIVE_HOSTS_MAX):
            tenants.add(tenant)
            known = self._hosts.get((tenant, record.host_id))
            if known is None:
                self._hosts[tenant, record.host_id] = _Host(tenant, record, now, told=True)
                self._health.know(tenant, record)
        await self._port.add_tenants(sorted(tenants))
        repeated = {(repeat.tenant, repeat.host_id) for repeat in self._repeats}
        since = datetime.now(UTC) - RECENTLY_GONE
        for tenant in sorted({*tenants, *await self._port.tenants()}):
            page = await self._store.page(tenant, limit=HOSTS_MAX, page_token=None, state="gone")
            for record in page.items:
                if record.last_seen > since and (tenant, record.host_id) not in repeated:
                    self._repeats.append(_Repeat(tenant, record.host_id, now, 0))

    async def _find_tenants(self) -> None:
        now = time.monotonic()
        if now - self._tenants_at >= RESTORE_TENANTS_SECONDS:
            self._tenants_at = now
            # In case Redis was emptied: the bridge reads the streams of these tenants.
            await self._port.add_tenants(sorted({host.tenant for host in self._hosts.values()}))
        known = await self._port.tenants()
        self._positions = {tenant: self._positions.get(tenant, "0-0") for tenant in known}

    def _forgive_own_absence(self) -> None:
        now = time.monotonic()
        self._health.listened(now - self._round_at)
        if now - self._round_at > self._lost_after_seconds / 2:
            for host in self._hosts.values():
                host.heard_at = now
            self._health.forgive()
        self._round_at = now

    async def _take(self, tenant: str, reports: Iterable[HostReport]) -> None:
        latest: dict[str, HostReport] = {}
        for report in reports:
            known = latest.get(report.host_id)
            if known is not None and known.reason and not report.types:
                continue  # its own farewell, or a repeat: the reason is known
            if report.event == "agent.disconnected" or report.types:
                latest[report.host_id] = report
        now = time.monotonic()
        for host_id, report in latest.items():
            if report.event == "agent.disconnected":
                await self._lose(tenant, host_id, report.reason or "it left", report.reason)
                continue
            host = self._hosts.get((tenant, host_id))
            moment = datetime.now(UTC)
            record = HostRecord(
                host_id=host_id,
                types=report.types,
                capabilities=report.capabilities,
                slots=report.slots,
                features=report.features,
                pid=report.pid,
                dedicated_to=report.dedicated_to,
                registered_at=moment if host is None else host.record.registered_at,
                last_seen=moment,
            )
            if host is None:
                if report.draining:
                    continue  # it was here before this monitor, and is about to go
                host = self._hosts[tenant, host_id] = _Host(tenant, record, now)
            elif _offer(host.record) != _offer(record):
                host.written_at = float("-inf")
            host.record, host.heard_at = record, now
            if not report.draining:
                self._health.heard(tenant, record)
            elif not host.draining:
                host.draining = True
                self._health.forget(tenant, host_id)
                await self._health_store.explain_gone(tenant, host_id, "it is leaving, and takes nothing new")
                await self._store.mark_gone(tenant, [host_id])  # no new work; what it does is still awaited

    async def _write(self) -> None:
        now = time.monotonic()
        due: dict[str, list[_Host]] = {}
        for host in self._hosts.values():
            news = host.heard_at > host.written_at and now - host.written_at >= SEEN_WRITE_SECONDS
            if news and not host.draining:
                due.setdefault(host.tenant, []).append(host)
        for tenant, hosts in due.items():
            gone = set(await self._store.upsert(tenant, [host.record for host in hosts]))
            for host in hosts:
                host.written_at = now
                if host.record.host_id in gone:
                    await self._renew(host)
                elif not host.told:
                    await self._tell_who_waits(host)

    async def _renew(self, host: _Host) -> None:
        """It was given up, but lives. Its agents are bound elsewhere by now, so it comes back as another."""
        key = (host.tenant, host.record.host_id)
        self._hosts.pop(key, None)
        self._health.forget(*key)
        now = time.monotonic()
        self._renewed = {k: at for k, at in self._renewed.items() if now - at < RENEW_AGAIN_SECONDS}
        if key not in self._renewed:
            self._renewed[key] = now
            log.info("registry.host_renewed", tenant=host.tenant, host_id=host.record.host_id)
            await self._port.tell_host_to_renew(*key)

    async def _tell_who_waits(self, host: _Host) -> None:
        log.info("registry.host_came", tenant=host.tenant, host_id=host.record.host_id, types=host.record.types)
        for agent_type in host.record.types:
            waiting = await self._maintenance.executions_missing_hosts(host.tenant, agent_type)
            dedicated = host.record.dedicated_to
            if dedicated is not None:
                waiting = [execution_id for execution_id in waiting if str(execution_id) == dedicated.execution_id]
            await self._port.tell_executions(host.tenant, waiting, "agent.registered", host.record.host_id)
        host.told = True

    async def _find_lost(self, unread: Collection[str]) -> None:
        """But of tenants of whom not all reports are read yet."""
        now = time.monotonic()
        for host in list(self._hosts.values()):
            if now - host.heard_at > self._lost_after_seconds and host.tenant not in unread:
                await self._lose(host.tenant, host.record.host_id, f"silent for {now - host.heard_at:.1f} s")

    async def _lose(self, tenant: str, host_id: str, why: str, reason: str = "") -> None:
        """Executions first, the mark second: killed in between, the next monitor finds it silent and does both.

        `reason` is what executions are told, where somebody knows it.
        """
        told = await self._tell_users(tenant, host_id, reason)
        await self._health_store.explain_gone(tenant, host_id, why)
        went = await self._store.mark_gone(tenant, [host_id])
        known = self._hosts.pop((tenant, host_id), None)
        self._health.forget(tenant, host_id)
        if not went and known is None:
            return  # old news, read again
        log.info("registry.host_gone", tenant=tenant, host_id=host_id, why=why, executions=told)
        await self._port.retire_stream(tenant, host_id)
        self._repeats.append(_Repeat(tenant, host_id, time.monotonic() + TELL_AGAIN_SECONDS[0], 1, reason))

    async def _tell_users(self, tenant: str, host_id: str, reason: str) -> int:
        using = await self._maintenance.executions_using_host(tenant, host_id)
        await self._port.tell_executions(tenant, using, "agent.disconnected", host_id, reason)
        return len(using)

    async def _repeat(self) -> None:
        now = time.monotonic()
        for repeat in [repeat for repeat in self._repeats if repeat.due <= now]:
            await self._tell_users(repeat.tenant, repeat.host_id, repeat.reason)
            if repeat.step >= len(TELL_AGAIN_SECONDS):
                self._repeats.remove(repeat)
            else:
                repeat.due = now + TELL_AGAIN_SECONDS[repeat.step]
                repeat.step += 1

    async def _keep_hosts_in_use(self) -> None:
        """Prolong the wish for hosts that open executions use, so that the fleet does not take them for idle."""
        now = time.monotonic()
        if now - self._kept_at < self._idle_seconds / 4:
            return
        self._kept_at = now
        in_use: dict[Group, int] = {}
        for host in list(self._hosts.values()):
            if not host.draining and await self._maintenance.executions_using_host(host.tenant, host.record.host_id):
                for agent_type in host.record.types:
                    group = Group(host.tenant, agent_type)
                    in_use[group] = in_use.get(group, 0) + 1
        until_ms = int((time.time() + self._idle_seconds) * 1000)
        for group, hosts in in_use.items():
            await self._port.want(group, hosts, until_ms)


def _offer(record: HostRecord) -> tuple[object, ...]:
    """What executions bind to: a change of it is written at once."""
    return record.types, record.slots, record.features


def _older(entry_id: str) -> str:
    """The id before which entries are old: another reader may still be at the newer ones."""
    return f"{max(0, int(entry_id.partition('-')[0]) - REPORTS_KEPT_SECONDS * 1000)}-0"
