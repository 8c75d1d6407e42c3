"""The three servers together, on one data directory, with the engine's database and key made ready.

One engine at a time has a data directory; the lock goes when its process ends, however it ends. A server that ends
unasked is started again on the same port, so that clients find it where it was.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from engine.embedded.backoff import Backoff
from engine.embedded.locks import FileLock
from engine.embedded.postgres import PostgresServer
from engine.embedded.server import EmbeddedServer, kept_secret
from engine.embedded.temporal import TemporalServer
from engine.embedded.valkey import ValkeyServer
from engine.errors import ConfigurationError, EngineError, UnavailableError
from engine.postgres.cluster import ClusterUrls, prepare_cluster
from engine.postgres.migrate import migrate
from engine.security.keys import create_key_file

TOKEN_KEY_FILE: Final = "token-key.pem"  # noqa: S105 - a file's name
LOG_DIRECTORY: Final = "logs"
PREPARE_ATTEMPTS: Final = 3
PREPARE_PAUSE_SECONDS: Final = 1.0
# Of servers elsewhere, and not for the roles: they act as `orchestrator_app` alone.
WITHHELD: Final = ("DATABASE_OWNER_URL", "DATABASE_MAINTENANCE_URL")


@dataclass(frozen=True, slots=True)
class ServerPorts:
    """0 takes a free one."""

    postgres: int = 0
    valkey: int = 0
    temporal: int = 0
    temporal_ui: int = 0


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step of the start, for showing progress."""

    name: str
    seconds: float


Progress = Callable[[StepDone], None]
Report = Callable[[str], None]


def no_progress(step: StepDone) -> None:
    """For callers that show none."""


def no_report(message: str) -> None:
    """For callers that show none."""


class EmbeddedEngine:
    """`async with EmbeddedEngine(data_dir) as engine:` has everything running inside the block."""

    def __init__(
        self,
        data_dir: Path,
        *,
        ports: ServerPorts | None = None,
        temporal_namespace: str = "default",
        token_key_file: Path | None = None,
        progress: Progress = no_progress,
        report: Report = no_report,
    ) -> None:
        self.data_dir = data_dir.absolute()
        ports = ports or ServerPorts()
        self.postgres = PostgresServer(self.data_dir / "postgres", ports.postgres)
        self.valkey = ValkeyServer(self.data_dir / "valkey", ports.valkey)
        self.temporal = TemporalServer(
            self.data_dir / "temporal", ports.temporal, ui_port=ports.temporal_ui, namespace=temporal_namespace
        )
        self.token_key_file = (token_key_file or self.data_dir / TOKEN_KEY_FILE).absolute()
        self._progress = progress
        self._report = report
        self._lock = FileLock(self.data_dir / "engine.lock")
        self._urls: ClusterUrls | None = None
        self._watchers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def database_url(self) -> str:
        """As `orchestrator_app`: what the roles connect with."""
        return self._prepared().app

    @property
    def database_owner_url(self) -> str:
        return self._prepared().owner

    @property
    def redis_url(self) -> str:
        return self.valkey.url

    @property
    def temporal_address(self) -> str:
        return self.temporal.address

    @property
    def temporal_namespace(self) -> str:
        return self.temporal.namespace

    @property
    def temporal_ui(self) -> str:
        return self.temporal.ui_url

    @property
    def log_directory(self) -> Path:
        return self.data_dir / LOG_DIRECTORY

    def environment(self) -> dict[str, str]:
        """This process's environment with the addresses of these servers, for a role."""
        environment = {key: value for key, value in os.environ.items() if key not in WITHHELD}
        # One machine's own clients are not counted unless the operator says so.
        environment.setdefault("ORCHESTRATOR_RATE_LIMIT_EXEMPT_LOOPBACK", "true")
        return environment | {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "TEMPORAL_ADDRESS": self.temporal_address,
            "TEMPORAL_NAMESPACE": self.temporal_namespace,
            "ORCHESTRATOR_TEMPORAL_UI_URL": self.temporal_ui,
            "ORCHESTRATOR_TOKEN_KEY_FILE": str(self.token_key_file),
            "ORCHESTRATOR_DATA_DIR": str(self.data_dir),
        }

    async def start(self) -> None:
        """Raises ConfigurationError or UnavailableError; then nothing of it runs."""
        self._take_data_directory()
        try:
            create_key_file(self.token_key_file)
            await self._start_servers()
        except BaseException:
            await self.stop()
            raise
        servers: tuple[EmbeddedServer, ...] = (self.postgres, self.valkey, self.temporal)
        self._watchers = [asyncio.create_task(self._keep_running(server), name=server.name) for server in servers]

    async def stop(self) -> None:
        """Temporal first: it needs none of the others, and what it still does goes to none of them."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers = []
        for server in (self.temporal, self.valkey, self.postgres):
            await server.stop()
        self._lock.release()

    def _take_data_directory(self) -> None:
        try:
            # Others may pass through, since PostgreSQL runs as another user when we are root, but see nothing.
            self.data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            free = self._lock.try_acquire()
        except OSError as error:
            raise ConfigurationError(f"the data directory {self.data_dir} cannot be used: {error}") from error
        if not free:
            raise ConfigurationError(
                f"another engine runs on the data directory {self.data_dir}: stop it, or use another --data-dir"
            )

    async def _start_servers(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._start_database())
                group.create_task(self._step("Valkey", self.valkey.start()))
                group.create_task(self._step("Temporal", self.temporal.start()))
        except BaseExceptionGroup as errors:
            # One cause is what the operator needs; a defect goes before it.
            raise _first(errors) from errors

    async def _start_database(self) -> None:
        await self._step("PostgreSQL", self.postgres.start())
        await self._step("database", self._prepare_database())

    async def _prepare_database(self) -> None:
        """Again when the server does not answer in time, as on a busy machine: all of it may be repeated."""
        for attempt in range(1, PREPARE_ATTEMPTS + 1):
            try:
                await self._prepare_database_once()
            except UnavailableError:
                if attempt == PREPARE_ATTEMPTS or not self.postgres.running:
                    raise
                await asyncio.sleep(PREPARE_PAUSE_SECONDS)
            else:
                return

    async def _prepare_database_once(self) -> None:
        self._urls = await prepare_cluster(
            self.postgres.url,
            owner_password=kept_secret(self.postgres.directory / "owner-password"),
            app_password=kept_secret(self.postgres.directory / "app-password"),
        )
        await migrate(self._urls.owner)

    async def _step(self, name: str, work: Awaitable[None]) -> None:
        started = time.monotonic()
        await work
        self._progress(StepDone(name, time.monotonic() - started))

    async def _keep_running(self, server: EmbeddedServer) -> None:
        backoff = Backoff()
        while True:
            started = time.monotonic()
            code = await server.wait()
            delay = backoff.after_running(time.monotonic() - started)
            self._report(f"{server.name} ended with exit code {code}; starting it again in {delay:g} s")
            await asyncio.sleep(delay)
            try:
                await server.start()
                self._report(f"{server.name} is back")
            except EngineError as error:
                self._report(f"{server.name} cannot be started again: {error.message}")

    def _prepared(self) -> ClusterUrls:
        if self._urls is None:
            raise UnavailableError("the embedded engine is not started")
        return self._urls


def _first(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = min(errors.exceptions, key=lambda error: isinstance(error, EngineError))
    return errors
