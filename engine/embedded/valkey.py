"""The embedded Valkey, which speaks Redis's protocol: loopback only, with a password, appending to a file."""

import asyncio
from pathlib import Path
from typing import Final

from engine.embedded import binaries
from engine.embedded.addresses import LOOPBACK
from engine.embedded.process import ChildProcess
from engine.embedded.server import EmbeddedServer, kept_secret, write_secret

CONFIGURATION: Final = """\
# Written at every start.
port {port}
bind {address}
protected-mode yes
requirepass {password}
dir .
daemonize no
appendonly yes
appendfsync everysec
# A rewrite copies everything: not for what a busy minute writes.
auto-aof-rewrite-min-size 256mb
save ""
# Streams are never thrown away to make room: producers are refused instead.
maxmemory-policy noeviction
"""


class ValkeyServer(EmbeddedServer):
    name = "valkey"

    def __init__(self, directory: Path, port: int = 0) -> None:
        super().__init__(directory, (port,))
        self._password_file = self.directory / "password"

    @property
    def password(self) -> str:
        return self._password_file.read_text("ascii").strip()

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    async def _prepare(self, descriptor: int) -> None:  # noqa: ARG002 - runs no program
        kept_secret(self._password_file)

    def _new_process(self, ports: tuple[int, ...], descriptor: int) -> ChildProcess:
        # In a file, because every user of the machine can read a process's arguments.
        configuration = self.directory / "valkey.conf"
        text = CONFIGURATION.format(port=ports[0], address=LOOPBACK, password=self.password)
        write_secret(configuration, text.encode("ascii"))
        return ChildProcess(
            self.name,
            [binaries.valkey_program(), configuration.name],
            directory=self.directory,
            log_file=self.log_file,
            environment=self._environment(),
            kept_open=(descriptor,),
        )

    async def _probe(self, ports: tuple[int, ...]) -> bool:
        """PONG comes only when the file has been read in."""
        reader, writer = await asyncio.open_connection(LOOPBACK, ports[0])
        try:
            writer.write(f"AUTH {self.password}\r\nPING\r\n".encode("ascii"))
            await writer.drain()
            return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()
