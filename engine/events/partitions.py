"""Which process reads which partition: one fenced owner each, by lease.

The fence rises with every new owner. Workflows drop what an older owner still sends, so that a process that was
stopped for a while and comes back cannot disturb the order.
"""

import asyncio
from uuid import uuid4

from redis.exceptions import RedisError

from engine.events import keys
from engine.events.functions import Functions
from engine.observability.log import get_logger

log = get_logger(__name__)

LEASE_MS = 5_000
RENEW_SECONDS = 1.25
STRAYS_MAX = 500
READER_FORGOTTEN_MS = 3_600_000


class PartitionLeases:
    """The leases that this process holds. `fences` maps partition to fence and is all that readers need."""

    def __init__(self, functions: Functions, partitions: int) -> None:
        self._functions = functions
        self.partitions = partitions
        self.owner_id = uuid4().hex
        self.fences: dict[int, int] = {}

    async def renew(self) -> None:
        """Extend what is held and take what is free. A lease that cannot be extended is given up."""
        for partition in range(self.partitions):
            names = [keys.partition_owner(partition), keys.partition_fence(partition)]
            try:
                fence = await self._functions.call("orc_own_partition", names, [self.owner_id, LEASE_MS])
            except (RedisError, OSError) as error:
                log.warning("bridge.lease_unavailable", partition=partition, error=str(error))
                self.fences.pop(partition, None)
                continue
            if fence == 0:
                self.fences.pop(partition, None)
            elif self.fences.get(partition) != fence:
                self.fences[partition] = fence
                log.debug("bridge.partition_taken", partition=partition, fence=fence)

    async def requeue_strays(self, tenant: str, partition: int) -> int:
        """Entries that another process read after this one had taken the partition over: a process that was stopped
        for a while reads once more before it learns that its lease is gone. They are written again as new ones."""
        names = [keys.partition_owner(partition), keys.partition_stream(tenant, partition)]
        args = [self.owner_id, keys.GROUP, STRAYS_MAX, READER_FORGOTTEN_MS]
        return await self._functions.call("orc_requeue_strays", names, args)

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self.renew()

    async def release(self) -> None:
        """On an orderly stop, so that the next owner need not wait for the lease to end."""
        for partition in list(self.fences):
            try:
                await self._functions.call("orc_release_partition", [keys.partition_owner(partition)], [self.owner_id])
            except (RedisError, OSError) as error:
                log.warning("bridge.release_failed", partition=partition, error=str(error))
        self.fences.clear()
