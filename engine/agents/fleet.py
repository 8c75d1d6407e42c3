"""The host fleet: host processes on this machine, started when they are wanted, watched, stopped when idle.

It keeps no state that matters: wishes are in Redis, hosts announce themselves, and what a former fleet left behind
died with it. Those are reported as gone at start, from a list on disk, so that nobody has to wait for their silence.
One fleet serves a deployment.
"""

import asyncio
import contextlib
import os
import secrets
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from engine.agents.catalogue import hosts_started_here
from engine.agents.credentials import agent_password, agent_url
from engine.agents.hostport import FleetPort
from engine.concurrency import end_all
from engine.contracts.catalogue import AgentType, Catalogue
from engine.contracts.hosts import Group, Wanted
from engine.errors import ConfigurationError, UnavailableError
from engine.observability.log import get_logger
from engine.settings import Settings

log = get_logger(__name__)

POLL_SECONDS: Final = 1.0
RESTART_FIRST_SECONDS: Final = 0.2
RESTART_LONGEST_SECONDS: Final = 30.0
HEALTHY_SECONDS: Final = 10.0
GRACE_SECONDS: Final = 5.0
STOP_SECONDS: Final = GRACE_SECONDS + 2.0
HOSTS_FILE: Final = "hosts.json"
LEFT_BEHIND_MAX: Final = 10_000

PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Of the fleet's environment, a host gets these only: the rest may hold the engine's secrets."""


class HostProcess(Protocol):
    """A running host. Implemented by `engine.embedded.process.ChildProcess`."""

    @property
    def pid(self) -> int | None: ...

    async def wait(self) -> int: ...

    async def stop(self, timeout_seconds: float) -> int | None: ...


class Launch(Protocol):
    """Starts a host process that dies with this one. Raises ConfigurationError when it cannot be started."""

    async def __call__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log_file: Path
    ) -> HostProcess: ...


@dataclass(slots=True)
class _Host:
    host_id: str
    process: HostProcess
    started_at: float
    stopping: bool = False


@dataclass(slots=True)
class _Group:
    """Hosts of one type for one tenant."""

    wanted: Wanted
    hosts: dict[str, _Host] = field(default_factory=dict)
    restart_at: float = 0.0
    delay_seconds: float = RESTART_FIRST_SECONDS

    def failed(self, lived_seconds: float) -> None:
        """A host ended by itself: the next start waits, longer each time while hosts do not live long."""
        if lived_seconds >= HEALTHY_SECONDS:
            self.delay_seconds = RESTART_FIRST_SECONDS
        self.restart_at = time.monotonic() + self.delay_seconds
        self.delay_seconds = min(self.delay_seconds * 2, RESTART_LONGEST_SECONDS)


class HostFleet:
    """Keeps as many hosts of each type as are wanted."""

    def __init__(
        self, port: FleetPort, catalogue: Catalogue, launch: Launch, settings: Settings, secret: bytes
    ) -> None:
        self._port = port
        self._catalogue = catalogue
        self._launch = launch
        self._settings = settings
        self._secret = secret
        self._groups: dict[Group, _Group] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self._tenants: set[str] = set()
        self._changed = asyncio.Event()
        self._hosts_file = settings.data_dir / HOSTS_FILE
        self._left_behind: list[tuple[str, str]] = []

    async def run(self) -> None:
        """Until cancelled; then all hosts are stopped. Redis being away is waited out, with the hosts running."""
        self._left_behind = self._read_hosts_file()
        listener = asyncio.create_task(self._listen())
        try:
            while True:
                try:
                    await self.round()
                except UnavailableError as error:
                    log.warning("fleet.redis_unavailable", error=str(error))
                await self._wait()
        finally:
            await end_all([listener])
            await self._stop_all()

    async def round(self) -> None:
        """Bring what runs to what is wanted. Raises UnavailableError."""
        self._changed.clear()
        while self._left_behind:
            await self._port.host_gone(*self._left_behind[-1])
            self._left_behind.pop()
        self._tenants.update(await self._port.tenants())
        # Redis forgets users when it starts again, so this is looked after in every round.
        made = await self._port.ensure_logins({t: agent_password(self._secret, t) for t in sorted(self._tenants)})
        if made:
            log.info("fleet.logins_made", tenants=len(made))
        for group, wanted in (await self._port.wanted(sorted(self._tenants))).items():
            if hosts_started_here(self._catalogue.agents.get(group.agent_type)):
                # A wish that Redis has lost stands here until its time is over.
                self._groups.setdefault(group, _Group(wanted)).wanted = wanted
        for group, state in list(self._groups.items()):
            await self._serve(group, state)

    async def _serve(self, group: Group, state: _Group) -> None:
        running = [host for host in state.hosts.values() if not host.stopping]
        if state.wanted.until_ms <= time.time() * 1000:
            for host in running:
                log.info("fleet.host_idle", tenant=group.tenant, host_id=host.host_id)
                self._watch(self._stop(host))
            await self._port.forget_wish(group, state.wanted.until_ms)
            if not state.hosts:
                del self._groups[group]
            return
        agent_type = self._catalogue.agents[group.agent_type]
        missing = min(state.wanted.hosts, agent_type.hosts_max) - len(running)
        if missing <= 0 or time.monotonic() < state.restart_at:
            return
        for _ in range(missing):
            try:
                await self._start(group, state, agent_type)
            except ConfigurationError as error:
                log.error("fleet.host_not_started", agent_type=group.agent_type, error=str(error))
                state.failed(0.0)
                return

    async def _start(self, group: Group, state: _Group, agent_type: AgentType) -> None:
        host_id = f"{group.agent_type[:200]}-{secrets.token_hex(6)}"
        arguments = ["-P", "-m", "orchestration_agent", "--entry", agent_type.entry, "--tenant", group.tenant]
        arguments += ["--types", group.agent_type, "--slots", str(agent_type.slots), "--host-id", host_id]
        capabilities = "*" if agent_type.capabilities == "*" else orjson.dumps(agent_type.capabilities).decode()
        arguments += ["--capabilities", capabilities, "--grace-seconds", str(GRACE_SECONDS)]
        if agent_type.python_path is not None:
            arguments += ["--python-path", agent_type.python_path]
        log_file = self._settings.data_dir / "logs" / "hosts" / f"{group.tenant}.{group.agent_type[:200]}.log"
        process = await self._launch(
            host_id, [sys.executable, *arguments], self._environment(group.tenant, agent_type), log_file
        )
        host = _Host(host_id, process, time.monotonic())
        state.hosts[host_id] = host
        self._write_hosts_file()
        self._watch(self._attend(group, state, host))
        log.info("fleet.host_started", tenant=group.tenant, host_id=host_id, pid=process.pid)

    def _environment(self, tenant: str, agent_type: AgentType) -> dict[str, str]:
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        url = agent_url(self._settings.redis_url.get_secret_value(), self._secret, tenant)
        return {
            **passed_on,
            "PYTHONUNBUFFERED": "1",
            **agent_type.environment,
            "ORCHESTRATION_AGENT_REDIS_URL": url,
            "ORCHESTRATION_AGENT_PARENT_PID": str(os.getpid()),
            "ORCHESTRATION_AGENT_HEARTBEAT_SECONDS": str(self._settings.heartbeat_seconds),
        }

    async def _attend(self, group: Group, state: _Group, host: _Host) -> None:
        """Wait for its end, and report it at once: its tasks need not wait until its silence is noticed."""
        code = await host.process.wait()
        del state.hosts[host.host_id]
        if not host.stopping:
            state.failed(time.monotonic() - host.started_at)
            log.warning("fleet.host_ended", tenant=group.tenant, host_id=host.host_id, exit_code=code)
        try:
            await self._port.host_gone(group.tenant, host.host_id)
        except UnavailableError:
            self._left_behind.append((group.tenant, host.host_id))
        self._write_hosts_file()
        self._changed.set()

    async def _stop(self, host: _Host) -> None:
        host.stopping = True
        await host.process.stop(STOP_SECONDS)

    async def _stop_all(self) -> None:
        hosts = [host for state in self._groups.values() for host in state.hosts.values()]
        await asyncio.gather(*(self._stop(host) for host in hosts), return_exceptions=True)
        if self._watchers:
            await asyncio.wait(self._watchers, timeout=STOP_SECONDS)

    async def _listen(self) -> None:
        while True:
            try:
                await self._port.woken(POLL_SECONDS)
            except UnavailableError:
                await asyncio.sleep(POLL_SECONDS)
            self._changed.set()

    async def _wait(self) -> None:
        """Until a wish, an ended host, the end of a restart's delay, or a second."""
        now = time.monotonic()
        delays = [state.restart_at - now for state in self._groups.values() if state.restart_at > now]
        with contextlib.suppress(TimeoutError):
            # Not wait_for: before Python 3.12 it may swallow a cancellation.
            async with asyncio.timeout(min([POLL_SECONDS, *delays])):
                await self._changed.wait()

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        watcher = asyncio.create_task(work)
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    def _write_hosts_file(self) -> None:
        hosts = [(group.tenant, host_id) for group, state in self._groups.items() for host_id in state.hosts]
        draft = self._hosts_file.with_suffix(".new")
        try:
            self._hosts_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(orjson.dumps([*hosts, *self._left_behind]))
            draft.replace(self._hosts_file)
        except OSError as error:
            log.warning("fleet.list_not_written", error=str(error))  # costs time after a crash, nothing else

    def _read_hosts_file(self) -> list[tuple[str, str]]:
        try:
            found = orjson.loads(self._hosts_file.read_bytes())
            return [(str(tenant), str(host_id)) for tenant, host_id in found][:LEFT_BEHIND_MAX]
        except (OSError, ValueError, TypeError):
            return []
