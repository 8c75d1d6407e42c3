"""Bridges on a real Valkey, with Temporal and the stores in memory."""

import asyncio
from typing import Any, cast
from uuid import uuid4

import orjson
from redis.asyncio import Redis

from engine.concurrency import end_all
from engine.contracts.streams import partition_of
from engine.events import keys
from engine.events.bridge import Bridge
from engine.events.connection import connect
from engine.events.feed import RedisFeed
from engine.events.functions import Functions
from engine.events.lingering import Lingering
from engine.events.partitions import PartitionLeases
from engine.events.progress import ProgressBoard
from engine.ports import MaintenanceStore
from engine.settings import Settings
from tests.fakes.streams import FakeClosings, FakeDispatchStore, FakeLauncher

PARTITIONS = 2


class Crossing:
    """One tenant's agents on one side, Temporal on the other; any number of bridges between."""

    def __init__(self, redis: Redis, settings: Settings, tenant: str) -> None:
        self.redis = redis
        self.settings = settings
        self.tenant = tenant
        self.launcher = FakeLauncher()
        self.stores = FakeDispatchStore()
        self.closings = FakeClosings()
        self.lingering = Lingering()
        self.feed = RedisFeed(redis)
        self.board = ProgressBoard(cast(MaintenanceStore, self.closings), self.feed)
        self._readers: list[Redis] = []
        self._running: dict[Bridge, asyncio.Task[None]] = {}

    def bridge(self) -> Bridge:
        reader = connect(self.settings, repeat=False)
        self._readers.append(reader)
        return Bridge(
            self.redis,
            reader,
            PartitionLeases(Functions(self.redis), PARTITIONS),
            self.launcher,
            cast(MaintenanceStore, self.closings),
            self.stores,
            self.lingering,
            self.board,
        )

    def start(self) -> Bridge:
        bridge = self.bridge()
        self._running[bridge] = asyncio.create_task(bridge.run())
        return bridge

    async def kill(self, bridge: Bridge) -> None:
        """As a process that dies: nothing is released."""
        await end_all([self._running.pop(bridge)])
        await end_all(bridge._senders)
        await bridge._forwarding.stop()

    async def stop(self, bridge: Bridge) -> None:
        await end_all([self._running.pop(bridge)])
        await bridge.stop()

    async def close(self) -> None:
        self.launcher.gate.set()
        for bridge in list(self._running):
            await self.stop(bridge)
        await self.feed.close()
        for reader in self._readers:
            await close_for_good(reader)

    # What agents and ticks do ----------------------------------------------------------------------------------

    def execution(self, partition: int = 0) -> str:
        while True:
            execution_id = str(uuid4())
            if partition_of(execution_id, PARTITIONS) == partition:
                return execution_id

    def stream(self, partition: int = 0) -> str:
        return keys.partition_stream(self.tenant, partition)

    async def report(self, execution_id: str, *events: dict[str, Any], tenant: str | None = None) -> str:
        partition = partition_of(execution_id, PARTITIONS)
        fields: dict[Any, Any] = {"x": execution_id, "b": orjson.dumps(list(events))}
        entry_id = await self.redis.xadd(keys.partition_stream(tenant or self.tenant, partition), fields)
        return cast(bytes, entry_id).decode()

    async def consume(self, bridge: Bridge | None, execution_id: str, *entry_ids: str) -> None:
        """What a committed tick does with entries; in the bridge's process, or (None) in another."""
        stream = self.stream(partition_of(execution_id, PARTITIONS))
        await self.redis.xack(stream, keys.GROUP, *entry_ids)
        await self.redis.xdel(stream, *entry_ids)
        if bridge is not None:
            bridge.acknowledged(self.tenant, execution_id, list(entry_ids))

    async def waiting(self, partition: int = 0) -> int:
        return int(await self.redis.xlen(self.stream(partition)))

    async def pending(self, partition: int = 0) -> int:
        if not await self.redis.exists(self.stream(partition)) or not await self._groups(partition):
            return 0
        summary: Any = await self.redis.xpending(self.stream(partition), keys.GROUP)
        return int(summary["pending"])

    async def _groups(self, partition: int) -> Any:
        return await self.redis.xinfo_groups(self.stream(partition))

    async def dead_letters(self) -> list[dict[bytes, bytes]]:
        letters: Any = await self.redis.xrange(keys.dead_letters(self.tenant))
        return [fields for _, fields in letters]


async def close_for_good(client: Redis) -> None:
    """Twice: a connection that was being made when the first of it came is in the pool by now."""
    await client.aclose()
    await asyncio.sleep(0)
    await client.connection_pool.disconnect()


def completed(task_id: str = "a", result: Any = 1, **more: Any) -> dict[str, Any]:
    return {
        "type": "agent.task_completed", "task_id": task_id, "agent_id": "worker-1", "epoch": 1, "attempt": 1,
        "at_ms": 1_700_000_000_000, "started_at_ms": 1_699_999_999_000, "result": result, **more,
    }  # fmt: skip


def started(task_id: str = "a") -> dict[str, Any]:
    return {"type": "agent.task_started", "task_id": task_id, "agent_id": "worker-1", "attempt": 1, "at_ms": 1}
