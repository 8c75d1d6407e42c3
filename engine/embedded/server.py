"""What the three embedded servers have in common: a directory, a lock, ports, starting and stopping.

Each server process inherits the lock on its directory. A supervisor that was killed may leave its servers alive for
an instant; the next one waits for the lock, which is free exactly when the last of their processes has ended.
"""

import asyncio
import os
import secrets
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Final

from engine.embedded.addresses import HeldPort, hold_free_port, hold_port, says_port_taken
from engine.embedded.locks import FileLock
from engine.embedded.process import ChildProcess
from engine.errors import ConfigurationError, UnavailableError

LOCK_TIMEOUT_SECONDS: Final = 60.0
READY_TIMEOUT_SECONDS: Final = 120.0
"""Recovery after a kill is replayed before a server answers, so this is far above a usual start."""
STOP_TIMEOUT_SECONDS: Final = 20.0
START_ATTEMPTS: Final = 4
ATTEMPT_PAUSE_SECONDS: Final = 0.2


class EmbeddedServer(ABC):
    """Start it, use its address, stop it. Started again after a stop or a crash, it keeps its ports."""

    name: ClassVar[str]

    def __init__(self, directory: Path, ports: tuple[int, ...]) -> None:
        self.directory = directory.absolute()
        self.log_file = self.directory / f"{self.name}.log"
        self.start_seconds = 0.0
        self._requested_ports = ports
        self._ports: tuple[int, ...] = ()
        self._held: tuple[HeldPort, ...] = ()
        self._lock = FileLock(self.directory / "lock")
        self._process: ChildProcess | None = None

    @property
    def port(self) -> int:
        if not self._ports:
            raise UnavailableError(f"{self.name} was not started: it has no port yet")
        return self._ports[0]

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    async def start(self) -> None:
        """Raises ConfigurationError or UnavailableError, with the end of the server's log where it has one."""
        if self.running:
            return
        started = time.monotonic()
        told = self._ports
        try:
            self._make_directory()
            descriptor = await self._lock.acquire(LOCK_TIMEOUT_SECONDS)
            await self._start_process(descriptor)
            await self._configure()
        except OSError as error:
            await self._give_up(told)
            raise ConfigurationError(f"{self.name} cannot use {self.directory}: {error}") from error
        except BaseException:
            await self._give_up(told)
            raise
        finally:
            self._lock.release()
        self.start_seconds = time.monotonic() - started

    async def wait(self) -> int:
        """Until the server has ended; its exit code."""
        if self._process is None:
            raise UnavailableError(f"{self.name} was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        try:
            await self._stop_process()
        finally:
            self._release_ports()

    def log_tail(self) -> str:
        return "" if self._process is None else self._process.log_tail()

    async def _give_up(self, told: tuple[int, ...]) -> None:
        """Ports that somebody was told of stay held: whoever watches over the server starts it again."""
        if told:
            await self._stop_process()
        else:
            await self.stop()

    async def _stop_process(self) -> None:
        if self._process is not None:
            await asyncio.shield(self._process.stop(STOP_TIMEOUT_SECONDS))

    async def _start_process(self, descriptor: int) -> None:
        """Several times if need be: what a server needs beside its ports (Temporal binds more of its own choice)
        somebody else may have had just then. One that is there and does not get ready is not started again."""
        for attempt in range(1, START_ATTEMPTS + 1):
            self._hold_ports()
            ports = tuple(held.port for held in self._held)
            await self._prepare(descriptor)
            process = self._new_process(ports, descriptor)
            self._process = process
            for held in self._held:
                held.hand_over()
            await process.start()
            try:
                await process.wait_ready(lambda ports=ports: self._probe(ports), READY_TIMEOUT_SECONDS)  # type: ignore[misc]
            except UnavailableError as error:
                if process.running or attempt == START_ATTEMPTS:
                    raise
                if says_port_taken(error.message):
                    self._move_on(error)
                await asyncio.sleep(ATTEMPT_PAUSE_SECONDS)
                continue
            self._ports = ports
            return

    def _move_on(self, error: UnavailableError) -> None:
        """To other ports, where the choice is ours. Not once somebody was told of them: they get free again."""
        if self._ports:
            return
        if 0 not in self._requested_ports:
            raise error
        self._release_ports()

    def _hold_ports(self) -> None:
        if not self._held:
            for port in self._ports or self._requested_ports:
                self._held += (self._hold(port),)

    def _hold(self, port: int) -> HeldPort:
        if not port:
            return hold_free_port()
        held = hold_port(port)
        if held is None:
            raise ConfigurationError(f"{self.name} cannot listen on port {port}: it is in use")
        return held

    def _release_ports(self) -> None:
        for held in self._held:
            held.release()
        self._held = ()

    def _make_directory(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _environment(self) -> dict[str, str]:
        """Nothing of the user's own settings (`PGPORT`, `TEMPORAL_ADDRESS`, ...) reaches a server."""
        return {
            "PATH": os.defpath,
            "HOME": str(self.directory),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }

    async def _configure(self) -> None:  # noqa: B027 - most servers need nothing here
        """What is set once it answers."""

    @abstractmethod
    async def _prepare(self, descriptor: int) -> None:
        """What must be there before the process is started. Programs run for it inherit the lock's descriptor."""

    @abstractmethod
    def _new_process(self, ports: tuple[int, ...], descriptor: int) -> ChildProcess: ...

    @abstractmethod
    async def _probe(self, ports: tuple[int, ...]) -> bool:
        """Ask the server, in its own protocol, whether it serves."""


def kept_secret(path: Path) -> str:
    """A password that is made once and kept in a file that its owner alone can read."""
    if path.exists():
        return path.read_text("ascii").strip()
    fresh = secrets.token_urlsafe(24)
    write_secret(path, fresh.encode("ascii"))
    return fresh


def write_secret(path: Path, content: bytes) -> None:
    """All of it or nothing, readable by its owner alone from the first moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
