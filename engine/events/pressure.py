"""Back-pressure: producers are told before Redis is full, and refused when it is.

One bridge measures the share of the memory that the server may use. Agents read it in their hosts' streams, the
gateway in a key that expires, so that whoever measured and died stops nobody. Above all that stands the server itself:
when its memory is used up it refuses what agents add, and still carries out what consumes it.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.contracts.pressure import Pressure
from engine.errors import EngineError
from engine.events import keys, wire
from engine.events.partitions import PartitionLeases
from engine.observability.log import get_logger
from engine.ports import HostRecord

log = get_logger(__name__)

SLOW_ABOVE: Final = 0.70
STOP_ABOVE: Final = 0.85
CALM_BELOW: Final = 0.05
"""So much less than what raised it lowers it again."""

MEASURE_SECONDS: Final = 1.0
TELL_SECONDS: Final = 5.0
HOLDS_SECONDS: Final = 15.0
"""What was said counts so long, unless it is said again."""

FEATURE: Final = "pressure"
"""Of hosts that understand what they are told here."""

HOSTS_MAX: Final = 10_000
SHARE_OF_MACHINE: Final = 0.5
"""Of the machine's memory, for a server without a limit of its own."""

ASK_SECONDS: Final = 1.0
ASK_TIMEOUT_SECONDS: Final = 0.25
ENTRIES_OF_HOST_MAX: Final = 10_000


class LiveHosts(Protocol):
    async def silent(self, older_than_seconds: float, limit: int) -> Sequence[tuple[str, HostRecord]]: ...


class PressureMonitor:
    """Measures for all, where it holds the first partition; `level` is for this process."""

    def __init__(self, redis: Redis, leases: PartitionLeases, hosts: LiveHosts, bytes_max: int | None = None) -> None:
        self._redis = redis
        self._leases = leases
        self._hosts = hosts
        self._bytes_max = bytes_max
        self._told_at = float("-inf")
        self.level = Pressure.OK

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.measure()
            except (RedisError, OSError, EngineError) as error:
                log.warning("pressure.not_measured", error=str(error))
            await asyncio.sleep(MEASURE_SECONDS)

    async def measure(self) -> None:
        memory: Any = await self._redis.info("memory")
        limit = self._bytes_max or memory.get("maxmemory") or memory["total_system_memory"] * SHARE_OF_MACHINE
        before, self.level = self.level, level_of(memory["used_memory"] / limit, self.level)
        if self.level is not before:
            log.warning("pressure.changed", level=self.level.value, used_bytes=memory["used_memory"], limit_bytes=limit)
        if 0 not in self._leases.fences:
            return
        due = time.monotonic() - self._told_at > TELL_SECONDS
        if self.level is not before or (self.level is not Pressure.OK and due):
            await self._tell()
            self._told_at = time.monotonic()

    async def _tell(self) -> None:
        until_ms = int((time.time() + HOLDS_SECONDS) * 1000)
        body = wire.encode_host_entry({"v": 1, "pressure": {"level": self.level.value, "until_ms": until_ms}})
        hosts = await self._hosts.silent(0.0, HOSTS_MAX)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(keys.PRESSURE, self.level.value, px=int(HOLDS_SECONDS * 1000))
            for tenant, host in hosts:
                if FEATURE not in host.features:
                    continue
                # A stream that is not there is not made: its host has left.
                stream = keys.tasks_stream(tenant, host.host_id)
                pipe.xadd(stream, {"b": body}, maxlen=ENTRIES_OF_HOST_MAX, approximate=True, nomkstream=True)
            await pipe.execute()


def level_of(used: float, before: Pressure) -> Pressure:
    """From the share of memory in use; what was raised stays until there is clearly less."""
    stop = STOP_ABOVE - (CALM_BELOW if before is Pressure.STOP else 0.0)
    slow = SLOW_ABOVE - (CALM_BELOW if before is not Pressure.OK else 0.0)
    if used > stop:
        return Pressure.STOP
    return Pressure.SLOW if used > slow else Pressure.OK


class PressureGauge:
    """What the gateway knows of it. Without an answer there is none: an outage of Redis stops no request by itself."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._asked_at = float("-inf")
        self._level = Pressure.OK

    async def level(self) -> Pressure:
        now = time.monotonic()
        if now - self._asked_at > ASK_SECONDS:
            self._asked_at = now
            self._level = await self._ask()
        return self._level

    async def _ask(self) -> Pressure:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
                found: Any = await self._redis.get(keys.PRESSURE)
        except (RedisError, OSError, TimeoutError):
            return Pressure.OK
        text = b"" if found is None else found
        return Pressure(text.decode()) if text in _LEVELS else Pressure.OK


_LEVELS: Final = frozenset(level.value.encode() for level in Pressure)
