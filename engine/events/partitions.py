"""Which process reads which partition: one fenced owner each, by lease, shared out evenly among the living bridges.

Every bridge says several times in a lease that it lives, and the same server-side function tells it what to read: it
takes what is free up to its share, and gives up what it holds above it. What is given up is first no longer read, and
then released, so that the next owner's take-over finds all that was read of it.

The fence rises with every new owner, and whenever an owner begins to read again. Workflows drop what came under an
older one, so that a process that was stopped for a while and comes back cannot disturb the order.
"""

import asyncio
import os
import socket
import time
from typing import Any, Final
from uuid import uuid4

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from engine.errors import UnavailableError
from engine.events import keys
from engine.events.connection import connect
from engine.events.functions import Functions
from engine.observability.log import get_logger
from engine.settings import Settings

log = get_logger(__name__)

LEASE_MS = 5_000
RENEW_SECONDS = 1.25
HURRY_SECONDS = 0.1
"""Between two renewals while partitions change hands: they are read by nobody meanwhile."""

LOOK_SECONDS = 3.0
STRAYS_MAX = 500
READER_FORGOTTEN_MS = 3_600_000

_STOP: Final = -1


class PartitionLeases:
    """The leases that this process holds. `fences` is all that readers need."""

    def __init__(self, functions: Functions, partitions: int) -> None:
        self._functions = functions
        self.partitions = partitions
        self.owner_id = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:12]}"
        self._fences: dict[int, int] = {}
        self._until = 0.0
        self._stopping: set[int] = set()
        """To be given up, while a read that began earlier may still bring some of it."""
        self._stopped: set[int] = set()
        self._lacking = 0

    @property
    def fences(self) -> dict[int, int]:
        """Partition -> fence, of those to be read. None once the lease has run out by this process's own clock, which
        goes on while the process is stopped."""
        return self._fences if time.monotonic() < self._until else {}

    def reading(self) -> None:
        """A new round of reading begins: the last one has ended, and with it whatever read a partition that was to be
        given up before this."""
        self._stopped |= self._stopping
        self._stopping.clear()

    async def renew(self) -> None:
        """Say that this process lives; extend, give up, take. Without an answer, everything is given up."""
        began = time.monotonic()
        asked = dict(self.fences)
        uses = ["reads" if p in asked else "stopped" if p in self._stopped else "" for p in range(self.partitions)]
        clustered = self._functions.clustered
        names = [keys.bridges(clustered=clustered)]
        for partition in range(self.partitions):
            names.append(keys.partition_owner(partition, clustered=clustered))
            names.append(keys.partition_fence(partition, clustered=clustered))
        try:
            async with asyncio.timeout(LEASE_MS / 1000):
                answer = await self._functions.ask("orc_share_partitions", names, [self.owner_id, LEASE_MS, *uses])
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("bridge.lease_unavailable", error=str(error))
            self._forget()
            return
        *answers, self._lacking = (int(value) for value in answer)
        # What ran out meanwhile may have been dropped by its readers: it is read again under a new fence only.
        kept = self.fences
        fences = {p: f for p, f in enumerate(answers) if f > 0 and (p not in asked or p in kept)}
        self._note(fences)
        told = {p for p, f in enumerate(answers) if f == _STOP}
        self._stopping = {p for p in told if p not in self._stopped}
        self._stopped &= told
        self._fences, self._until = fences, began + LEASE_MS / 1000

    def _note(self, fences: dict[int, int]) -> None:
        taken = sorted(p for p, fence in fences.items() if self._fences.get(p) != fence)
        given_up = sorted(self._fences.keys() - fences.keys())
        if taken or given_up:
            log.info("bridge.partitions", owner=self.owner_id, taken=taken, given_up=given_up, held=sorted(fences))

    def _forget(self) -> None:
        self._fences = {}
        self._stopping.clear()
        self._stopped.clear()

    async def requeue_strays(self, tenant: str, partition: int) -> int:
        """Entries that another process read after this one had taken the partition over: a process that was stopped
        for a while reads once more before it learns that its lease is gone. They are written again as new ones."""
        names = [keys.partition_owner(partition), keys.partition_stream(tenant, partition)]
        if self._functions.clustered:
            # The lease lies in another slot. A move of an instant too late makes another owner's entries new ones:
            # their events count once, whatever their entries are.
            if partition not in self.fences:
                return 0
            names = names[1:]
        args = [self.owner_id, keys.GROUP, STRAYS_MAX, READER_FORGOTTEN_MS]
        return await self._functions.call("orc_requeue_strays", names, args)

    async def keep(self) -> None:
        while True:
            changing = self._lacking or self._stopping or self._stopped
            await asyncio.sleep(HURRY_SECONDS if changing else RENEW_SECONDS)
            await self.renew()

    async def release(self) -> None:
        """On an orderly stop, when nothing is read any more: the next owners need not wait for the leases to end."""
        self._forget()
        clustered = self._functions.clustered
        owners = (keys.partition_owner(partition, clustered=clustered) for partition in range(self.partitions))
        names = [keys.bridges(clustered=clustered), *owners]
        try:
            async with asyncio.timeout(LEASE_MS / 1000):
                await self._functions.call("orc_leave_partitions", names, [self.owner_id])
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("bridge.release_failed", error=str(error))


async def read_shares(redis: Redis, partitions: int) -> dict[str, list[int]]:
    """For each bridge that lives, the partitions that it owns. Raises RedisError or OSError."""
    clustered = isinstance(redis, RedisCluster)
    members: Any = await redis.zrange(keys.bridges(clustered=clustered), 0, -1)
    owners: Any = await redis.mget(
        [keys.partition_owner(partition, clustered=clustered) for partition in range(partitions)]
    )
    shares: dict[str, list[int]] = {member.decode(): [] for member in members}
    for partition, owner in enumerate(owners):
        if owner is not None:
            shares.setdefault(owner.decode(), []).append(partition)
    return shares


async def look_at_shares(settings: Settings) -> dict[str, list[int]]:
    """The same over a connection of its own. Raises UnavailableError."""
    redis = connect(settings, repeat=False)
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await read_shares(redis, settings.event_partitions)
    except (RedisError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Redis does not answer: {error}") from error
    finally:
        await redis.aclose()
