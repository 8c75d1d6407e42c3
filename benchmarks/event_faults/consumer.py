"""A bridge whose signals go to a ledger in PostgreSQL: `python -m benchmarks.event_faults.consumer`, job on stdin."""

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import asyncpg
from redis.asyncio import Redis

from benchmarks.event_faults.plan import PARTITIONS
from engine.contracts.events import InboxBatch
from engine.contracts.streams import entry_order, partition_of
from engine.errors import UnavailableError
from engine.events import keys
from engine.events.bridge import Bridge
from engine.events.connection import connect
from engine.events.feed import RedisFeed
from engine.events.functions import Functions
from engine.events.lingering import Lingering
from engine.events.partitions import PartitionLeases
from engine.events.progress import ProgressBoard
from engine.ports import Launcher, MaintenanceStore
from engine.settings import Settings
from tests.fakes.streams import FakeClosings, FakeDispatchStore
from workflows.kernel.inbox import Admitted, admit
from workflows.kernel.state import RunState

SCHEMA = """
CREATE TABLE ledgers (
    execution_id uuid PRIMARY KEY, fence bigint NOT NULL, low text NOT NULL, consumed text[] NOT NULL, n bigint NOT NULL
);
CREATE TABLE effects (execution_id uuid NOT NULL, position bigint NOT NULL, task_id text NOT NULL);
CREATE INDEX ON effects (execution_id, task_id);
"""


@dataclass
class Admission:
    """The part of an execution's state that decides what counts."""

    fence: int
    low: tuple[int, int]
    consumed: dict[str, None]

    def after(self, admitted: Admitted) -> "Admission":
        """As a tick's delta changes it."""
        low = max(entry_order(admitted.low), self.low)
        kept = [entry_id for entry_id in (*self.consumed, *admitted.consumed) if entry_order(entry_id) >= low]
        return Admission(admitted.fence, low, dict.fromkeys(kept))


class Ledger:
    """In the place of Temporal and of the tick's commit: what comes counts once, then its entries are acknowledged."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", redis: Redis) -> None:
        self._pool = pool
        self._redis = redis
        self.bridge: Bridge | None = None

    async def signal(self, tenant: str, execution_id: UUID, name: str, *args: Any) -> None:
        assert name == "events"
        batches: list[InboxBatch] = args[0]
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                acknowledge = await self._apply(connection, execution_id, batches)
        except (asyncpg.PostgresError, OSError) as error:
            raise UnavailableError("the ledger does not answer") from error
        stream = keys.partition_stream(tenant, partition_of(str(execution_id), PARTITIONS))
        if acknowledge:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xack(stream, keys.GROUP, *acknowledge)
                pipe.xdel(stream, *acknowledge)
                await pipe.execute()
        if self.bridge is not None:
            self.bridge.acknowledged(tenant, str(execution_id), acknowledge)

    async def _apply(self, connection: Any, execution_id: UUID, batches: list[InboxBatch]) -> list[str]:
        row = await connection.fetchrow(
            "SELECT fence, low, consumed, n FROM ledgers WHERE execution_id = $1 FOR UPDATE", execution_id
        )
        state = Admission(row["fence"], entry_order(row["low"]), dict.fromkeys(row["consumed"]))
        admitted = admit(cast(RunState, state), batches)
        named = list(dict.fromkeys(event.task_id for event in admitted.events))
        counted = {
            found["task_id"]
            for found in await connection.fetch(
                "SELECT task_id FROM effects WHERE execution_id = $1 AND task_id = ANY ($2)", execution_id, named
            )
        }
        # An attempt's result counts once: what the kernel does for a task that is completed.
        new = [task_id for task_id in named if task_id not in counted]
        await connection.execute(
            "INSERT INTO effects SELECT $1, $2 + t.n, t.id FROM unnest($3::text[]) WITH ORDINALITY AS t (id, n)",
            execution_id, row["n"], new,
        )  # fmt: skip
        after = state.after(admitted)
        await connection.execute(
            "UPDATE ledgers SET fence = $2, low = $3, consumed = $4, n = n + $5 WHERE execution_id = $1",
            execution_id, after.fence, f"{after.low[0]}-{after.low[1]}", list(after.consumed), len(new),
        )  # fmt: skip
        return admitted.acknowledge


class Open(FakeClosings):
    async def is_closed(self, tenant: str, execution_id: UUID) -> bool | None:  # noqa: ARG002 - the port's
        return False


async def consume(job: dict[str, Any]) -> None:
    settings = Settings.model_validate({"redis_url": job["redis_url"]})
    redis, reader = connect(settings), connect(settings, repeat=False)
    async with asyncpg.create_pool(job["database_url"], min_size=1, max_size=4) as pool:
        ledger = Ledger(pool, redis)
        store = cast(MaintenanceStore, Open())
        ledger.bridge = Bridge(
            redis,
            reader,
            PartitionLeases(Functions(redis), PARTITIONS),
            cast(Launcher, ledger),
            store,
            FakeDispatchStore(),
            Lingering(),
            ProgressBoard(store, RedisFeed(redis)),
        )
        while True:
            try:
                await ledger.bridge.run()
            except (OSError, UnavailableError):
                await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(consume(json.loads(sys.stdin.readline())))
