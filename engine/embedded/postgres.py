"""The embedded PostgreSQL: loopback only, passwords only, every commit synced to disk before it is acknowledged.

PostgreSQL refuses to run as root. As root it runs as `nobody`, and where that user cannot enter the data directory its
files lie in `/var/lib/orchestrator/<hash of the directory>`, which the file `location` in the directory names.
"""

import asyncio
import hashlib
import os
import shutil
import signal
import struct
from pathlib import Path
from typing import Final

from engine.embedded import binaries
from engine.embedded.addresses import LOOPBACK
from engine.embedded.process import ChildProcess
from engine.embedded.server import EmbeddedServer, kept_secret
from engine.errors import ConfigurationError, UnavailableError

OTHER_USER_ID: Final = 65534  # nobody, on every Linux
SUPERUSER: Final = "postgres"
INITDB_TIMEOUT_SECONDS: Final = 240.0
PROTOCOL_VERSION: Final = 196608  # 3.0
SETTINGS: Final = {
    "listen_addresses": LOOPBACK,
    # No socket file: its path has a limit of about 100 characters, which data directories exceed.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    # One server without replicas: less is logged, and bulk loads are not logged twice.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_checkpoints": "off",
}
DISPOSABLE_SETTINGS: Final = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(EmbeddedServer):
    """`durable=False` is for tests: survives a killed process, but not a crash of the machine."""

    name = "postgres"

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        *,
        durable: bool = True,
        system_directory: Path = binaries.SYSTEM_DIRECTORY,
    ) -> None:
        super().__init__(directory, (port,))
        self._durable = durable
        self._system_directory = system_directory
        self._user_id = OTHER_USER_ID if os.geteuid() == 0 else None
        self._location_file = self.directory / "location"
        self._password_file = self.directory / "password"
        self._initialized_file = self.directory / "initialized"
        self._programs = Path()
        self._cluster = Path()

    @property
    def password(self) -> str:
        return self._password_file.read_text("ascii").strip()

    @property
    def url(self) -> str:
        """As the superuser, database `postgres`. Only preparing the database uses it."""
        return self.url_of(SUPERUSER, self.password, "postgres")

    def url_of(self, user: str, password: str, database: str) -> str:
        # Without TLS, and so that no client looks for certificates in a home directory it may not be able to enter.
        return f"postgresql://{user}:{password}@{LOOPBACK}:{self.port}/{database}?sslmode=disable"

    @property
    def cluster_directory(self) -> Path:
        """Where PostgreSQL's files lie; known once started."""
        return self._cluster

    def _make_directory(self) -> None:
        super()._make_directory()
        if self._user_id is not None:
            self.directory.chmod(0o711)  # the other user passes through, and sees nothing

    async def _prepare(self, descriptor: int) -> None:
        self._programs = (
            binaries.postgres_directory()
            if self._user_id is None
            else await binaries.postgres_for_other_users(self._system_directory)
        )
        self._cluster = self._locate()
        if self._initialized_file.exists():
            if not (self._cluster / "data" / "PG_VERSION").exists():
                raise ConfigurationError(
                    f"PostgreSQL's files in {self._cluster} are gone, and with them the engine's state. Bring them "
                    f"back, or remove {self.directory.parent} to begin anew"
                )
            return
        await self._initialize(descriptor)

    def _locate(self) -> Path:
        if self._location_file.exists():
            return Path(self._location_file.read_text("utf-8").strip())
        cluster = self.directory / "cluster"
        if self._user_id is not None and not _others_can_enter(self.directory):
            digest = hashlib.sha256(os.fsencode(self.directory.resolve())).hexdigest()[:16]
            cluster = self._system_directory / digest
            if cluster.exists():
                # Of a data directory with the same path that was removed: its password went with it.
                discarded = cluster.with_name(cluster.name + ".old")
                shutil.rmtree(discarded, ignore_errors=True)
                cluster.rename(discarded)
        self._location_file.write_text(f"{cluster}\n", "utf-8")
        return cluster

    async def _initialize(self, descriptor: int) -> None:
        """Into a directory that gets its name when it is complete: a start that was killed is simply repeated."""
        password = kept_secret(self._password_file)
        self._cluster.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._cluster / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(self._cluster / "data", ignore_errors=True)
        password_copy = self._cluster / "password"
        password_copy.touch(mode=0o600)
        password_copy.write_text(password, "ascii")
        if self._user_id is not None:
            os.chown(self._cluster, self._user_id, self._user_id)
            os.chown(password_copy, self._user_id, self._user_id)
        arguments = [self._programs / "bin" / "initdb", "-D", unfinished, "-U", SUPERUSER, "-A", "scram-sha-256"]
        arguments += ["--pwfile", password_copy, "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions"]
        if not self._durable:
            arguments.append("--no-sync")
        try:
            await self._run_initdb([str(argument) for argument in arguments], descriptor)
        finally:
            password_copy.unlink(missing_ok=True)
        unfinished.rename(self._cluster / "data")
        self._initialized_file.touch()

    async def _run_initdb(self, arguments: list[str], descriptor: int) -> None:
        process = ChildProcess(
            "initdb",
            arguments,
            directory=self._cluster,
            log_file=self.log_file,
            environment=self._environment(),
            user_id=self._user_id,
            kept_open=(descriptor,),
        )
        await process.start()
        try:
            code = await asyncio.wait_for(process.wait(), INITDB_TIMEOUT_SECONDS)
        except TimeoutError as error:
            raise UnavailableError(
                f"initdb is not done after {INITDB_TIMEOUT_SECONDS:g} s:\n{process.log_tail()}"
            ) from error
        finally:
            await process.stop(timeout_seconds=0)
        if code != 0:
            raise ConfigurationError(f"initdb failed with exit code {code}:\n{process.log_tail()}")

    def _new_process(self, ports: tuple[int, ...], descriptor: int) -> ChildProcess:
        settings = SETTINGS | {"port": str(ports[0])} | ({} if self._durable else DISPOSABLE_SETTINGS)
        arguments: list[str | Path] = [self._programs / "bin" / "postgres", "-D", self._cluster / "data"]
        for key, value in settings.items():
            arguments += ["-c", f"{key}={value}"]
        return ChildProcess(
            self.name,
            arguments,
            directory=self._cluster,
            log_file=self.log_file,
            environment=self._environment(),
            user_id=self._user_id,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
            # "immediate": ends its own children and frees its shared memory, which SIGKILL would leave behind.
            death_signal=signal.SIGQUIT,
            kept_open=(descriptor,),
        )

    async def _probe(self, ports: tuple[int, ...]) -> bool:
        """Greet as a client would: it asks for a password when it serves, and answers an error until then."""
        reader, writer = await asyncio.open_connection(LOOPBACK, ports[0])
        try:
            body = struct.pack("!I", PROTOCOL_VERSION)
            body += f"user\0{SUPERUSER}\0database\0postgres\0\0".encode("ascii")
            writer.write(struct.pack("!I", len(body) + 4) + body)
            await writer.drain()
            return await reader.readexactly(1) == b"R"
        finally:
            writer.close()


def _others_can_enter(directory: Path) -> bool:
    resolved = directory.resolve()
    return all(parent.stat().st_mode & 0o001 for parent in (resolved, *resolved.parents))
