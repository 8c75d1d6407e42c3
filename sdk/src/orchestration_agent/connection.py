"""Redis as a host uses it: one connection that waits for work, one that writes. Both outlive outages."""

import asyncio
import logging
import random
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError

from orchestration_agent.outbox import OutgoingEntry

logger = logging.getLogger("orchestration_agent")

CONNECT_SECONDS = 5.0
WRITE_SECONDS = 10.0
BLOCK_MS = 5_000
READ_SECONDS = BLOCK_MS / 1000 + 10.0
READ_COUNT = 128
BACKOFF_MIN_SECONDS = 0.05
BACKOFF_MAX_SECONDS = 2.0
COMPLAIN_SECONDS = 30.0
AGENTS_STREAM_MAX = 10_000
PIPELINE_ENTRIES_MAX = 64
COMPRESS_ABOVE_BYTES = 16 * 1024
COMPRESSION_LEVEL = 1
CLUSTER_SCHEMES = ("redis-cluster", "rediss-cluster")

Fields = dict[bytes, bytes]


class Connection:
    """The commands of the stream protocol. `read` and `write` repeat until they succeed."""

    def __init__(self, url: str, tenant: str, host_id: str) -> None:
        self._agents = f"orc:{{{tenant}}}:agents"
        self._own = f"orc:{{{tenant}}}:tasks:{host_id}"
        self._tenant = tenant
        self._reader = _client(url, READ_SECONDS)
        self._writer = _client(url, WRITE_SECONDS)
        self._read_to = b"0-0"
        self._trim_to: bytes | None = None
        self._lost = False
        self.compresses = False
        """Whether the engine takes reports that are compressed."""

    async def read(self, on_back: Callable[[], None]) -> list[tuple[bytes, Fields]]:
        """The next entries of the host's stream, in order; empty when none came for a while.

        After an outage it calls `on_back` and starts from the beginning of the stream: the server may have been
        emptied, and what was read before is recognised by the caller.
        """

        async def once() -> list[tuple[bytes, Fields]]:
            if self._lost:
                await self._reader.ping()
                self._lost = False
                self._read_to = b"0-0"
                on_back()
            try:
                answer = await _command(
                    self._reader, "XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS, "STREAMS", self._own, self._read_to
                )
            except (RedisError, OSError, TimeoutError):
                self._lost = True
                raise
            return list(answer[0][1]) if answer else []

        entries: list[tuple[bytes, Fields]] = await self._repeat(once, "read tasks")
        if entries:
            self._read_to = self._trim_to = entries[-1][0]
        return entries

    async def write(self, entries: Sequence[OutgoingEntry]) -> None:
        """Write entries, in order, and trim what this host has read of its own stream."""
        for first in range(0, len(entries), PIPELINE_ENTRIES_MAX):
            part = entries[first : first + PIPELINE_ENTRIES_MAX]

            async def once(part: Sequence[OutgoingEntry] = part) -> None:
                pipeline = self._writer.pipeline(transaction=False)
                for entry in part:
                    name, body = "b", entry.body
                    if self.compresses and len(body) > COMPRESS_ABOVE_BYTES:
                        name, body = "z", zlib.compress(body, COMPRESSION_LEVEL)
                    _command(pipeline, "XADD", entry.reply_to, "*", "x", entry.execution_id, name, body)
                if self._trim_to is not None:
                    _command(pipeline, "XTRIM", self._own, "MINID", _after(self._trim_to))
                    self._trim_to = None
                await pipeline.execute()

            await self._repeat(once, "report")

    async def announce(self, event_type: str, timestamp: str, payload: bytes) -> None:
        """Write to the agents stream, once; raises RedisError or OSError.

        The length limit loses nothing that matters: each heartbeat says all that a registration says.
        """
        command: list[Any] = ["XADD", self._agents, "MAXLEN", "~", AGENTS_STREAM_MAX, "*"]
        command += ["event_type", event_type, "timestamp", timestamp, "payload", payload]
        await _obeying_cancellation(_command(self._writer, *command))
        if self._trim_to is not None:
            await _command(self._writer, "XTRIM", self._own, "MINID", _after(self._trim_to))
            self._trim_to = None

    async def make_known(self) -> None:
        """Tell the engine that the tenant has agents. An agent's own login may not, and need not: whoever issued
        that login has done it."""
        try:
            await _command(self._writer, "SADD", "orc:tenants", self._tenant)
        except NoPermissionError:
            logger.debug("the login is limited to its tenant's keys")

    def rename(self, host_id: str) -> None:
        """Read the stream of another host id from now on."""
        self._own = f"orc:{{{self._tenant}}}:tasks:{host_id}"
        self._read_to, self._trim_to = b"0-0", None

    async def forget_stream(self) -> None:
        """Delete the host's own stream: nobody reads it any more."""
        await _command(self._writer, "DEL", self._own)

    async def close(self) -> None:
        for client in (self._reader, self._writer):
            await client.aclose()

    async def _repeat(self, call: Callable[[], Awaitable[Any]], what: str) -> Any:
        delay, complain_at, failed = BACKOFF_MIN_SECONDS, 0.0, False
        while True:
            try:
                answer = await _obeying_cancellation(call())
            except (RedisError, OSError, TimeoutError) as error:
                now = asyncio.get_running_loop().time()
                if now >= complain_at:
                    logger.warning("cannot %s, trying again: %s: %s", what, type(error).__name__, error)
                    complain_at = now + COMPLAIN_SECONDS
                failed = True
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, guards nothing
                delay = min(delay * 2, BACKOFF_MAX_SECONDS)
                continue
            if failed:
                logger.info("can %s again", what)
            return answer


class _Cluster(RedisCluster):
    """All keys of a tenant lie in one slot, which need not be asked for."""

    async def _determine_slot(self, command: str, *args: Any) -> int:
        return self.keyslot(args[-2]) if command == "XREAD" else await super()._determine_slot(command, *args)


def _client(url: str, timeout_seconds: float) -> Redis:
    # No retries inside the client: ours know what may be repeated and say in the log that they do.
    if urlsplit(url).scheme in CLUSTER_SCHEMES:
        return _cluster_client(url, timeout_seconds)
    return Redis.from_url(
        url,
        protocol=2,
        decode_responses=False,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        max_connections=2,
    )


def _cluster_client(url: str, timeout_seconds: float) -> Redis:
    """`redis-cluster://user:password@host:port[,host:port...]`."""
    parts = urlsplit(url)
    login, _, addresses = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    nodes = [address.rpartition(":") for address in addresses.split(",")]
    client = _Cluster(
        startup_nodes=[ClusterNode(host.strip("[]"), int(port)) for host, _, port in nodes],
        username=unquote(user) or None,
        password=unquote(password) or None,
        ssl=parts.scheme == "rediss-cluster",
        protocol=2,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return cast(Redis, client)  # it has the same commands


def _command(client: Redis, *arguments: Any) -> Any:
    return client.execute_command(*arguments)  # type: ignore[no-untyped-call]  # the client's own gap


async def _obeying_cancellation(call: Awaitable[Any]) -> Any:
    """A cancellation may get lost in the client: it writes under `asyncio.wait_for`, which before Python 3.12 swallows
    one that comes as the write ends, and it may raise an error of its own while it closes a connection. A loop around
    it would then never stop."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await call
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def _after(entry_id: bytes) -> str:
    milliseconds, _, sequence = entry_id.decode().partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"
