"""A cluster of three Valkey nodes on this machine, for the length of a test module."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from engine.embedded.binaries import valkey_program
from tests.fakes.streams import eventually

NODES = 3
SLOTS = 16_384
START_SECONDS = 60.0

CONFIGURATION = """\
port {port}
cluster-port {bus_port}
bind 127.0.0.1
protected-mode no
dir {directory}
daemonize no
appendonly yes
save ""
cluster-enabled yes
cluster-config-file nodes.conf
cluster-require-full-coverage yes
"""


class ValkeyCluster:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: list[asyncio.subprocess.Process] = []
        self.ports: list[int] = []

    @property
    def url(self) -> str:
        return "redis-cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    async def start(self) -> None:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2 * NODES)]
            free = [listener.getsockname()[1] for listener in sockets]
        self.ports, bus_ports = free[:NODES], free[NODES:]
        for number, (port, bus_port) in enumerate(zip(self.ports, bus_ports, strict=True)):
            folder = self._directory / f"node-{number}"
            folder.mkdir(parents=True)
            text = CONFIGURATION.format(port=port, bus_port=bus_port, directory=folder)
            (folder / "valkey.conf").write_text(text)
            self._processes.append(await self._run(number))
        clients = [Redis(host="127.0.0.1", port=port) for port in self.ports]
        try:
            await self._join(clients, bus_ports)
        finally:
            for client in clients:
                await client.aclose()

    async def _run(self, number: int) -> asyncio.subprocess.Process:
        folder = self._directory / f"node-{number}"
        with (folder / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                valkey_program(), str(folder / "valkey.conf"), stdout=log, stderr=log
            )

    async def kill(self, number: int) -> None:
        self._processes[number].kill()
        await self._processes[number].wait()

    async def restart(self, number: int) -> None:
        """With what it had written, and its place in the cluster."""
        self._processes[number] = await self._run(number)
        client = Redis(host="127.0.0.1", port=self.ports[number])
        try:
            await eventually(partial(_answers, client), START_SECONDS)
            await eventually(partial(_is_whole, client), START_SECONDS)
        finally:
            await client.aclose()

    async def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            await process.wait()

    async def _join(self, clients: list[Redis], bus_ports: list[int]) -> None:
        share = -(-SLOTS // NODES)
        for number, client in enumerate(clients):
            await eventually(partial(_answers, client), START_SECONDS)
            first, last = number * share, min((number + 1) * share, SLOTS) - 1
            await _command(client, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for port, bus_port in zip(self.ports[1:], bus_ports[1:], strict=True):
            await _command(clients[0], "CLUSTER", "MEET", "127.0.0.1", port, bus_port)
        for client in clients:
            await eventually(partial(_is_whole, client), START_SECONDS)


@asynccontextmanager
async def running_cluster(directory: Path) -> AsyncIterator[ValkeyCluster]:
    cluster = ValkeyCluster(directory)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


async def _answers(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except (RedisConnectionError, OSError):
        return False


async def _is_whole(client: Redis) -> bool:
    state = str(await _command(client, "CLUSTER", "INFO"))
    known = await _command(client, "CLUSTER", "NODES")
    nodes = known if isinstance(known, dict) else known.splitlines()
    return "ok" in state.partition("cluster_state")[2][:8] and len(nodes) == NODES


async def _command(client: Redis, *arguments: Any) -> Any:
    return await client.execute_command(*arguments)  # type: ignore[no-untyped-call]  # the client's own gap
