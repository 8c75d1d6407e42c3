"""The bridge: from agents' reports on Redis Streams to few, coalesced Temporal signals.

Each partition has one owner. The owner reads its streams, hands events to a tick that lingers in this process, and
sends everything else by signal, all that has arrived for an execution in one. An entry is acknowledged by the tick
that consumes it (`engine.events.dispatch`), never before; what is not consumed in time is sent again.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from engine.concurrency import end_all, run_together
from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch
from engine.contracts.limits import RESULT_INLINE_BYTES_MAX
from engine.errors import EngineError, NotFoundError
from engine.events import keys, wire
from engine.events.deliveries import Deliveries, Held
from engine.events.lingering import Lingering
from engine.events.partitions import PartitionLeases
from engine.events.progress import ProgressBoard
from engine.observability.log import get_logger
from engine.ports import DispatchStore, Launcher, MaintenanceStore

log = get_logger(__name__)

READ_COUNT = 500
READ_BLOCK_MS = 100
HELD_BYTES_MAX = 128 * 1024 * 1024
SWEEP_SECONDS = 0.05
COVER_CHECK_SECONDS = 0.5
SIGNAL_TIMEOUT_SECONDS = 10.0
STRAY_TRIES_MAX = 5
DEAD_LETTER_SECONDS = 7 * 24 * 3600
TENANTS_REFRESH_SECONDS = 1.0


class Bridge:
    """Reads every partition that its leases hold."""

    def __init__(
        self,
        redis: Redis,
        leases: PartitionLeases,
        launcher: Launcher,
        maintenance: MaintenanceStore,
        payloads: DispatchStore,
        lingering: Lingering,
        progress: ProgressBoard,
    ) -> None:
        self._redis = redis
        self._leases = leases
        self._launcher = launcher
        self._maintenance = maintenance
        self._payloads = payloads
        self._lingering = lingering
        self._progress = progress
        self._deliveries: dict[str, Deliveries] = {}
        self._held_bytes = 0
        self._senders: set[asyncio.Task[None]] = set()
        self._recovered: dict[tuple[str, int], int] = {}
        """(tenant, partition) -> fence under which its pending entries were taken over."""
        self._tenants: list[str] = []
        self._tenants_at = 0.0

    async def run(self) -> None:
        """Until cancelled. Redis being away is waited out."""
        await self._leases.renew()
        await run_together([self._leases.keep, self._sweep, self._progress.run, self._read])

    async def stop(self) -> None:
        await end_all(self._senders)
        await self._leases.release()

    def acknowledged(self, execution_id: str, entry_ids: Sequence[str]) -> None:
        """A tick of this process consumed them. Other processes' ticks are noticed by looking."""
        deliveries = self._deliveries.get(execution_id)
        if deliveries is not None:
            self._cover(deliveries, list(entry_ids))

    # Reading ---------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                await self._read_once()
            except (RedisError, OSError, EngineError) as error:
                # What was read and not held stays pending: taking over again finds it.
                log.warning("bridge.reading_interrupted", error=str(error))
                self._recovered.clear()
                await asyncio.sleep(0.5)

    async def _read_once(self) -> None:
        streams = await self._streams()
        if not streams or self._held_bytes > HELD_BYTES_MAX:
            await asyncio.sleep(READ_BLOCK_MS / 1000)
            return
        names: dict[Any, Any] = dict.fromkeys(streams, ">")
        try:
            reply: Any = await self._redis.xreadgroup(
                keys.GROUP, self._leases.owner_id, names, count=READ_COUNT, block=READ_BLOCK_MS
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._recovered.clear()
            return
        for name, entries in reply or ():
            tenant, partition = streams[name.decode()]
            for entry_id, fields in entries:
                await self._take(tenant, partition, entry_id.decode(), fields)

    async def _streams(self) -> dict[str, tuple[str, int]]:
        """Streams to read: those of owned partitions, whose unfinished entries were taken over first."""
        now = time.monotonic()
        if now - self._tenants_at > TENANTS_REFRESH_SECONDS:
            members: Any = await self._redis.smembers(keys.TENANTS)
            self._tenants = sorted(member.decode() for member in members)
            self._tenants_at = now
        streams = {}
        for partition, fence in sorted(self._leases.fences.items()):
            for tenant in self._tenants:
                if self._recovered.get((tenant, partition)) != fence:
                    await self._take_over(tenant, partition)
                    self._recovered[(tenant, partition)] = fence
                streams[keys.partition_stream(tenant, partition)] = (tenant, partition)
        return streams

    async def _take_over(self, tenant: str, partition: int) -> None:
        """Read what earlier owners read and no tick consumed, before anything new."""
        stream = keys.partition_stream(tenant, partition)
        try:
            await self._redis.xgroup_create(stream, keys.GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        cursor: Any = "0-0"
        while True:
            reply: Any = await self._redis.xautoclaim(
                stream, keys.GROUP, self._leases.owner_id, min_idle_time=0, start_id=cursor, count=READ_COUNT
            )
            cursor, entries = reply[0], reply[1]
            for entry_id, fields in entries:
                await self._take(tenant, partition, entry_id.decode(), fields)
            if cursor in (b"0-0", "0-0"):
                return

    async def _take(self, tenant: str, partition: int, entry_id: str, fields: dict[bytes, bytes]) -> None:
        size_bytes = sum(len(value) for value in fields.values()) if fields else 0
        try:
            report = wire.decode_report(fields)
        except wire.WireError as error:
            await self._bury(tenant, partition, entry_id, fields, str(error))
            return
        events: list[AgentEvent] = []
        for event in report.events:
            if event.type is AgentEventType.TASK_PROGRESS:
                self._progress.note(tenant, report.execution_id, event)
            else:
                events.append(await self._slim(tenant, report.execution_id, event, size_bytes))
        if not events:
            await self._acknowledge(tenant, partition, entry_id)
            return
        self._hold(tenant, partition, entry_id, report.execution_id, events, size_bytes)

    async def _slim(self, tenant: str, execution_id: str, event: wire.WireEvent, entry_bytes: int) -> AgentEvent:
        """The event for the workflow; a large result is stored first and travels by reference."""
        slim = event.to_event()
        if entry_bytes <= RESULT_INLINE_BYTES_MAX or event.result is None:
            return slim
        body = orjson.dumps(event.result)
        if len(body) <= RESULT_INLINE_BYTES_MAX:
            return slim
        reference = await self._payloads.put_payload(tenant, UUID(execution_id), body)
        return slim.model_copy(update={"result": None, "result_ref": reference})

    def _hold(
        self, tenant: str, partition: int, entry_id: str, execution_id: str, events: list[AgentEvent], size_bytes: int
    ) -> None:
        deliveries = self._deliveries.get(execution_id)
        if deliveries is None:
            deliveries = self._deliveries[execution_id] = Deliveries(tenant, execution_id, partition)
        fence = self._leases.fences.get(partition, 0)
        batch = InboxBatch.model_construct(
            entry_id=entry_id, partition=partition, fence=fence, low="0-0", events=tuple(events)
        )
        held = Held(batch, min(size_bytes, 64 * 1024 * 1024), time.monotonic())
        hand_over = deliveries.may_hand_over()
        if not deliveries.add(held):
            return
        self._held_bytes += held.size_bytes
        if hand_over and self._lingering.hand_over(execution_id, self._stamped(deliveries, held)):
            held.delivered_at = time.monotonic()
            return
        self._send_soon(deliveries)

    def _stamped(self, deliveries: Deliveries, held: Held) -> InboxBatch:
        fence = self._leases.fences.get(deliveries.partition, held.batch.fence)
        return held.batch.model_copy(update={"low": deliveries.low, "fence": fence})

    async def _acknowledge(self, tenant: str, partition: int, entry_id: str) -> None:
        stream = keys.partition_stream(tenant, partition)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.xack(stream, keys.GROUP, entry_id)
            pipe.xdel(stream, entry_id)
            await pipe.execute()

    async def _bury(self, tenant: str, partition: int, entry_id: str, fields: dict[bytes, bytes], reason: str) -> None:
        """An entry that can never be delivered: kept where operators find it, with the reason."""
        log.warning("bridge.dead_letter", tenant=tenant, partition=partition, entry_id=entry_id, reason=reason)
        letter: dict[Any, Any] = {
            **{b"entry:" + name: value[:65536] for name, value in (fields or {}).items()},
            b"reason": reason.encode(),
            b"partition": str(partition).encode(),
            b"entry_id": entry_id.encode(),
        }
        stream = keys.dead_letters(tenant)
        oldest_ms = int((time.time() - DEAD_LETTER_SECONDS) * 1000)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(stream, letter)
            pipe.xtrim(stream, minid=f"{oldest_ms}-0", approximate=True)
            await pipe.execute()
        await self._acknowledge(tenant, partition, entry_id)

    # Sending ---------------------------------------------------------------------------------------------------

    def _send_soon(self, deliveries: Deliveries) -> None:
        taken = deliveries.due(time.monotonic())
        if not taken:
            return
        deliveries.sending = True
        sender = asyncio.create_task(self._send(deliveries, taken), name=f"signal-{deliveries.execution_id}")
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    async def _send(self, deliveries: Deliveries, taken: list[Held]) -> None:
        batches = [self._stamped(deliveries, held) for held in taken]
        try:
            async with asyncio.timeout(SIGNAL_TIMEOUT_SECONDS):
                await self._launcher.signal(deliveries.tenant, UUID(deliveries.execution_id), "events", batches)
        except NotFoundError:
            await self._stray(deliveries, taken)
        except (EngineError, TimeoutError) as error:
            deliveries.retry_at = time.monotonic() + 0.5
            log.warning("bridge.signal_failed", execution_id=deliveries.execution_id, error=str(error))
        else:
            deliveries.failures = 0
            deliveries.mark_sent(taken)
        finally:
            deliveries.sending = False
        self._send_soon(deliveries)

    async def _stray(self, deliveries: Deliveries, taken: list[Held]) -> None:
        """Temporal has no such open run. It is late only if PostgreSQL says closed; otherwise it waits."""
        try:
            closed = await self._maintenance.is_closed(deliveries.tenant, UUID(deliveries.execution_id))
        except EngineError:
            closed = False
        deliveries.retry_at = time.monotonic() + 1.0
        deliveries.failures += 1
        if closed:
            log.info("bridge.late", execution_id=deliveries.execution_id, entries=len(taken))
        elif closed is None and deliveries.failures >= STRAY_TRIES_MAX:
            log.warning("bridge.unknown_execution", execution_id=deliveries.execution_id, entries=len(taken))
        else:
            return
        entry_ids = [held.batch.entry_id for held in taken]
        for held in taken:
            if closed:
                await self._acknowledge(deliveries.tenant, deliveries.partition, held.batch.entry_id)
            else:
                body = {b"b": held.batch.model_dump_json().encode()}
                await self._bury(
                    deliveries.tenant, deliveries.partition, held.batch.entry_id, body, "no such execution"
                )
        self._cover(deliveries, entry_ids)

    def _cover(self, deliveries: Deliveries, entry_ids: list[str]) -> None:
        for entry_id in entry_ids:
            held = deliveries.held.get(entry_id)
            if held is not None:
                self._held_bytes -= held.size_bytes
        deliveries.covered(entry_ids)
        if not deliveries.held and not deliveries.sending:
            self._deliveries.pop(deliveries.execution_id, None)

    # Looking after ---------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Send what waits for its time or its credit, and notice what other processes' ticks consumed."""
        checked_at = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            if now - checked_at > COVER_CHECK_SECONDS:
                checked_at = now
                try:
                    await self._look_for_covered(now)
                except (RedisError, OSError) as error:
                    log.warning("bridge.redis_unavailable", error=str(error))
            for deliveries in list(self._deliveries.values()):
                if deliveries.partition in self._leases.fences:
                    self._send_soon(deliveries)
                elif not deliveries.sending:
                    self._cover(deliveries, list(deliveries.held))

    async def _look_for_covered(self, now: float) -> None:
        """Entries that are gone from the stream's pending list were consumed by somebody's tick."""
        for deliveries in list(self._deliveries.values()):
            old = [h.batch.entry_id for h in deliveries.held.values()
                   if h.delivered_at is not None and now - h.delivered_at > COVER_CHECK_SECONDS]  # fmt: skip
            if not old:
                continue
            stream = keys.partition_stream(deliveries.tenant, deliveries.partition)
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry_id in old[:READ_COUNT]:
                    pipe.xpending_range(stream, keys.GROUP, entry_id, entry_id, 1)
                found = await pipe.execute()
            gone = [entry_id for entry_id, pending in zip(old, found, strict=False) if not pending]
            if gone:
                self._cover(deliveries, gone)
