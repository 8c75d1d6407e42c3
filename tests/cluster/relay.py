"""Makes a server that listens on the loopback interface reachable from pods, on the bridge's address."""

import asyncio
from collections.abc import Callable
from typing import Final

CHUNK_BYTES: Final = 65_536
CONNECT_SECONDS: Final = 5.0


class Relay:
    """`target` is asked at each connection: the server may be started later, and elsewhere after a restart."""

    def __init__(self, address: str, target: Callable[[], tuple[str, int]]) -> None:
        self._address = address
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """The port on which it listens."""
        self._server = await asyncio.start_server(self._begin, self._address, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio's would log it as an error when it is cancelled.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                there, back = await asyncio.open_connection(*self._target())
            try:
                both = [asyncio.ensure_future(_copy(reader, back)), asyncio.ensure_future(_copy(there, writer))]
                try:
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in both:
                        one.cancel()
                    await asyncio.gather(*both, return_exceptions=True)
            finally:
                back.close()
        except (OSError, TimeoutError):
            return
        finally:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
