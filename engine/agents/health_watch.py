"""What the registry makes of silence and of slowness: it marks hosts, and tells the executions that use them.

A part of the registry's monitor, which calls it in each of its rounds. As there, what matters is in PostgreSQL, and
every step may be repeated: a host counts as changed only when its mark and all the news of it are out. Being suspect is
marked first, so that nobody new comes; being well again is told first, so that a monitor that dies between the two
leaves a mark that its successor takes away.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from engine.agents.health import Rhythm
from engine.agents.hostport import RegistryPort
from engine.agents.speed import speed_class
from engine.contracts.hosts import HostEvent
from engine.health_ports import HostHealthStore
from engine.observability.log import get_logger
from engine.ports import HostRecord, MaintenanceStore
from engine.settings import Settings

log = get_logger(__name__)

ROUND_SECONDS_MAX: Final = 1.0
"""A longer round counts for so much: the monitor was busy or asleep, and did not hear meanwhile."""

SPEEDS_SECONDS: Final = 5.0
SLOW_HOSTS_MAX: Final = 1_000
TELL_AGAIN_SECONDS: Final = 1.0
"""An execution may bind to a host in the moment in which it becomes suspect."""

Key = tuple[str, str]


@dataclass(slots=True)
class _Host:
    rhythm: Rhythm
    suspect: bool = False
    """Marked, and told."""
    heard: bool = False
    """Since it was marked."""
    again_at: float | None = None
    speed: float = 1.0


class HealthWatch:
    """Of the hosts that the monitor knows. Its clock is one of listening: it stands while the monitor does not hear."""

    def __init__(
        self, port: RegistryPort, maintenance: MaintenanceStore, store: HostHealthStore, settings: Settings
    ) -> None:
        self._port = port
        self._maintenance = maintenance
        self._store = store
        self._expected_seconds = settings.heartbeat_seconds
        self._gone_after_seconds = settings.host_lost_after_seconds
        self._hosts: dict[Key, _Host] = {}
        self._clock = 0.0
        self._speeds_at = float("-inf")

    def listened(self, seconds: float) -> None:
        self._clock += min(max(seconds, 0.0), ROUND_SECONDS_MAX)

    def forgive(self) -> None:
        """The monitor was away for long: what was silent meanwhile was not silent."""
        for host in self._hosts.values():
            host.rhythm.forgive(self._clock)

    def heard(self, tenant: str, record: HostRecord) -> None:
        host = self._hosts.get((tenant, record.host_id))
        if host is None:
            self.know(tenant, record)
            return
        host.rhythm.beat(self._clock)
        host.heard = host.suspect

    def know(self, tenant: str, record: HostRecord) -> None:
        """Heard for the first time, or left by a former monitor, which may have died before it told of a suspicion."""
        rhythm = Rhythm(
            self._clock, expected_seconds=self._expected_seconds, gone_after_seconds=self._gone_after_seconds
        )
        marked = record.suspect_since is not None
        self._hosts[tenant, record.host_id] = _Host(
            rhythm, suspect=marked, again_at=self._clock if marked else None, speed=record.speed
        )

    def forget(self, tenant: str, host_id: str) -> None:
        self._hosts.pop((tenant, host_id), None)

    async def round(self, unread: Collection[str] = ()) -> None:
        """Mark and tell. Of the tenants in `unread` not all reports are read yet. Raises EngineError."""
        for (tenant, host_id), host in list(self._hosts.items()):
            if host.suspect:
                await self._look_again(tenant, host_id, host)
            elif tenant not in unread and host.rhythm.is_suspect(self._clock):
                await self._suspect(tenant, host_id, host)
        await self._follow_speeds()

    async def _suspect(self, tenant: str, host_id: str, host: _Host) -> None:
        silent = self._clock - host.rhythm.heard_at
        await self._store.mark_suspect(tenant, [host_id], f"silent for {silent:.1f} s")
        told = await self._tell(tenant, host_id, "agent.suspect")
        host.suspect, host.heard, host.again_at = True, False, self._clock + TELL_AGAIN_SECONDS
        log.info("registry.host_suspect", tenant=tenant, host_id=host_id, silent_seconds=silent, executions=told)

    async def _look_again(self, tenant: str, host_id: str, host: _Host) -> None:
        if host.heard:
            told = await self._tell(tenant, host_id, "agent.recovered")
            await self._store.mark_recovered(tenant, [host_id])
            host.suspect, host.heard, host.again_at = False, False, None
            log.info("registry.host_recovered", tenant=tenant, host_id=host_id, executions=told)
        elif host.again_at is not None and host.again_at <= self._clock:
            await self._tell(tenant, host_id, "agent.suspect")
            host.again_at = None

    async def _follow_speeds(self) -> None:
        now = time.monotonic()
        if now - self._speeds_at < SPEEDS_SECONDS:
            return
        self._speeds_at = now
        for tenant, host_id, measured in await self._store.measured(SLOW_HOSTS_MAX):
            host = self._hosts.get((tenant, host_id))
            if host is None or (speed := speed_class(measured, host.speed)) == host.speed:
                continue
            await self._store.set_speed(tenant, host_id, speed, f"measured at {measured:.2f} of the usual speed")
            told = await self._tell(tenant, host_id, "agent.speed", speed)
            host.speed = speed
            log.info("registry.host_speed", tenant=tenant, host_id=host_id, speed=speed, executions=told)

    async def _tell(self, tenant: str, host_id: str, event: HostEvent, speed: float = 1.0) -> int:
        using = await self._maintenance.executions_using_host(tenant, host_id)
        await self._port.tell_executions(tenant, using, event, host_id, speed=speed)
        return len(using)
