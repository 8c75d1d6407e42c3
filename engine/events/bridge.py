"""The bridge: from agents' reports on Redis Streams to few, coalesced Temporal signals.

Each partition has one owner. The owner reads its streams, hands events to a tick that lingers in this process, and
sends everything else by signal, all that has arrived for an execution in one. An entry is acknowledged by the tick
that consumes it (`engine.events.dispatch`), never before; what is not consumed in time is sent again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from engine.concurrency import end_all, run_together
from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch, TaskError
from engine.contracts.limits import (
    RESULT_BYTES_MAX,
    RESULT_INLINE_BYTES_MAX,
    SIGNAL_BYTES_MAX,
    SIGNALS_UNCOVERED_BYTES_MAX,
)
from engine.contracts.streams import partition_of
from engine.errors import EngineError, NotFoundError, UnavailableError
from engine.events import keys, wire
from engine.events.dead_letters import DeadLetters, Fields
from engine.events.deliveries import (
    TIMEOUT_SHARE,
    UNHURRIED_BUSY_SECONDS,
    UNHURRIED_SECONDS,
    Deliveries,
    Held,
)
from engine.events.forwarding import Forwarding
from engine.events.intake import ProgressIntake
from engine.events.lingering import Lingering
from engine.events.partitions import PartitionLeases
from engine.events.progress import ProgressBoard
from engine.observability.log import get_logger
from engine.ports import DispatchStore, Launcher, MaintenanceStore

log = get_logger(__name__)

READ_COUNT = 500
READ_COUNT_MIN = 20
READ_COUNT_MAX = 5_000
READ_BYTES = 4 * 1024 * 1024
"""About so much is read at once: many entries where they are small."""

READ_BLOCK_MS = 100
HELD_BYTES_MAX = 128 * 1024 * 1024
SWEEP_SECONDS = 0.05
BUSY_SIGNALS, BUSY_SECONDS = 60, 2.0
"""As many signals in so short a time are much to do."""

COVER_CHECK_SECONDS = 0.5
SIGNAL_TIMEOUT_SECONDS = 10.0
TRIES_MAX = 5
"""Then what cannot be delivered is a dead letter."""
STRAYS_CHECK_SECONDS = 5.0
TENANTS_REFRESH_SECONDS = 0.25


class Bridge:
    """Reads every partition that its leases hold. `reader` must not repeat commands by itself: an answer with new
    entries that got lost would be followed by later ones, and workflows would take the lost ones for old."""

    def __init__(
        self,
        redis: Redis,
        reader: Redis,
        leases: PartitionLeases,
        launcher: Launcher,
        maintenance: MaintenanceStore,
        payloads: DispatchStore,
        lingering: Lingering,
        progress: ProgressBoard,
        started_held_seconds: float = UNHURRIED_SECONDS,
    ) -> None:
        """`started_held_seconds`: how long the news that a task has started may wait for other news, at most."""
        self._started_held_seconds = started_held_seconds
        self._redis = redis
        self._reader = reader
        self._leases = leases
        self._launcher = launcher
        self._maintenance = maintenance
        self._payloads = payloads
        self._lingering = lingering
        lingering.abandoned = self.undelivered
        self._progress = progress
        self._intake = ProgressIntake(progress, leases.partitions)
        self._deliveries: dict[tuple[str, str], Deliveries] = {}
        self._held_bytes = 0
        self._signalled_at: deque[float] = deque(maxlen=BUSY_SIGNALS)
        """When the last signals went out."""
        self._senders: set[asyncio.Task[None]] = set()
        self._recovered: dict[tuple[str, int], int] = {}
        """(tenant, partition) -> fence under which its pending entries were taken over."""
        self._parked: dict[tuple[str, str], int] = {}
        """(tenant, execution) -> partition, of those that hold too much: what else comes for them stays in Redis."""
        self._poison: dict[tuple[str, int, str], int] = {}
        """Entries that were refused, and how often."""
        self._letters = DeadLetters(redis, leases.partitions)
        self._forwarding = Forwarding(
            redis,
            launcher,
            maintenance,
            self._acknowledge,
            self._bury_entry,
            lambda partition: partition in leases.fences,
            lambda tenant, partition: self._recovered.pop((tenant, partition), None),
        )
        self._read_count = READ_COUNT
        self._tenants: list[str] = []
        self._tenants_at = 0.0
        self._strays_at = 0.0

    async def run(self) -> None:
        """Until cancelled. Redis being away is waited out."""
        await self._leases.renew()
        await run_together([self._leases.keep, self._sweep, self._progress.run, self._read])

    async def stop(self) -> None:
        await end_all(self._senders)
        await self._forwarding.stop()
        await self._leases.release()

    def acknowledged(self, tenant: str, execution_id: str, entry_ids: Sequence[str]) -> None:
        """A tick of this process consumed them. Other processes' ticks are noticed by looking."""
        deliveries = self._deliveries.get((tenant, execution_id))
        if deliveries is not None:
            self._cover(deliveries, list(entry_ids))

    def undelivered(self, tenant: str, execution_id: str, entry_ids: Sequence[str]) -> None:
        """They were handed over, and no tick came that consumed them: they go by signal."""
        deliveries = self._deliveries.get((tenant, execution_id))
        if deliveries is None:
            return
        for entry_id in entry_ids:
            held = deliveries.held.get(entry_id)
            if held is not None:
                held.delivered_at = None
        self._send_soon(deliveries)

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
        count = max(self._read_count // len(streams), READ_COUNT_MIN)
        try:
            await self._look_for_strays(streams)
            reply: Any = await self._reader.xreadgroup(
                keys.GROUP, self._leases.owner_id, names, count=count, block=READ_BLOCK_MS
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error) and "no such key" not in str(error):
                raise
            self._recovered.clear()
            return
        self._read_count = _next_count(reply or ())
        for name, entries in reply or ():
            tenant, partition = streams[name.decode()]
            done, left = self._intake.take(tenant, partition, entries)
            if done:
                await self._acknowledge(tenant, partition, *done)
            for entry_id, fields in left:
                await self._take(tenant, partition, entry_id.decode(), fields)

    async def _streams(self) -> dict[str, tuple[str, int]]:
        """Streams to read: those of owned partitions, whose unfinished entries were taken over first."""
        now = time.monotonic()
        if now - self._tenants_at > TENANTS_REFRESH_SECONDS:
            members: Any = await self._redis.smembers(keys.TENANTS)
            self._tenants = sorted(member.decode() for member in members)
            self._tenants_at = now
        self._leases.reading()
        streams = {}
        for partition, fence in sorted(self._leases.fences.items()):
            for tenant in self._tenants:
                if self._recovered.get((tenant, partition)) != fence:
                    # Noted first: while it goes on, a parked execution may ask for another round.
                    self._recovered[(tenant, partition)] = fence
                    await self._take_over(tenant, partition)
                streams[keys.partition_stream(tenant, partition)] = (tenant, partition)
        return streams

    async def _look_for_strays(self, streams: dict[str, tuple[str, int]]) -> None:
        now = time.monotonic()
        if now - self._strays_at < STRAYS_CHECK_SECONDS:
            return
        self._strays_at = now
        for tenant, partition in streams.values():
            moved = await self._leases.requeue_strays(tenant, partition)
            if moved:
                log.warning("bridge.strays_requeued", tenant=tenant, partition=partition, entries=moved)

    async def _take_over(self, tenant: str, partition: int) -> None:
        """Read what earlier owners read and no tick consumed, before anything new; and what was parked, which must not
        be overtaken."""
        self._parked = {key: home for key, home in self._parked.items() if (key[0], home) != (tenant, partition)}
        self._forwarding.taken_over(tenant, partition)
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

    async def _take(self, tenant: str, partition: int, entry_id: str, fields: Fields) -> None:
        """Hold the entry, or bury it. One that is refused again and again must not keep its partition from going on."""
        poison = (tenant, partition, entry_id)
        try:
            await self._read_entry(tenant, partition, entry_id, fields)
        except (EngineError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            if isinstance(error, EngineError) and error.transient:
                raise
            tries = self._poison[poison] = self._poison.get(poison, 0) + 1
            if tries < TRIES_MAX:
                raise UnavailableError(f"entry {entry_id} was refused: {error!r}") from error
            await self._bury(tenant, partition, entry_id, fields, f"refused: {error!r}"[:1000], tries)
        self._poison.pop(poison, None)

    async def _read_entry(self, tenant: str, partition: int, entry_id: str, fields: Fields) -> None:
        fence = self._leases.fences.get(partition)
        if fence is None:
            return  # given up while it was being read: it stays pending, and the next owner takes it over
        size_bytes = sum(len(value) for value in fields.values()) if fields else 0
        try:
            if fields and b"z" in fields:
                large = size_bytes > wire.THREAD_ABOVE_BYTES
                inflated = await asyncio.to_thread(wire.inflated, fields) if large else wire.inflated(fields)
                size_bytes = sum(len(value) for value in inflated.values())
                report = wire.decode_report(inflated)
            else:
                report = wire.decode_report(fields)
            home = partition_of(report.execution_id, self._leases.partitions)
            if home != partition:
                # Its ticks would acknowledge it in their own partition, where another entry may have the same id.
                raise wire.WireError(f"execution_id belongs into partition {home}: write to the assignment's reply_to")
            deliveries = self._deliveries.get((tenant, report.execution_id))
            if deliveries is not None and entry_id in deliveries.held:
                return
            if self._is_parked(tenant, report.execution_id, deliveries):
                return
            if report.external is not None:
                self._forwarding.begin(tenant, report.execution_id, partition, entry_id, report.external)
                return
            events = await self._events(tenant, report, size_bytes)
            batch = InboxBatch.trusted(
                entry_id=entry_id,
                partition=partition,
                fence=fence,
                low="0-0",
                events=tuple(events),
            )
            if size_bytes > RESULT_INLINE_BYTES_MAX:
                size_bytes = len(batch.model_dump_json())
            if size_bytes > SIGNALS_UNCOVERED_BYTES_MAX:
                raise wire.WireError(f"{size_bytes} bytes without its results: more than a signal can carry")
        except wire.WireError as error:
            await self._bury(tenant, partition, entry_id, fields, str(error))
            return
        if events:
            self._hold(tenant, report.execution_id, batch, size_bytes, self._patience_seconds(report))
        else:
            await self._acknowledge(tenant, partition, entry_id)

    def _is_parked(self, tenant: str, execution_id: str, deliveries: Deliveries | None) -> bool:
        """One execution may hold half of what the others leave, so that one which is stuck keeps nobody waiting."""
        key = (tenant, execution_id)
        if key in self._parked:
            return True
        if deliveries is None or not deliveries.memory_bytes > (HELD_BYTES_MAX - self._held_bytes) / 2 > 0:
            return False
        self._parked[key] = deliveries.partition
        log.warning("bridge.parked", tenant=tenant, execution_id=execution_id, bytes=deliveries.memory_bytes)
        return True

    async def _events(self, tenant: str, report: wire.Report, entry_bytes: int) -> list[AgentEvent]:
        """What the workflow is to hear. All that is inline fits into one signal."""
        events: list[AgentEvent] = []
        room = SIGNAL_BYTES_MAX
        for event in report.events:
            if event.type is AgentEventType.TASK_PROGRESS:
                self._progress.note(tenant, report.execution_id, event)
            elif entry_bytes <= RESULT_INLINE_BYTES_MAX or event.result is None:
                events.append(event.to_event())
            else:
                body = orjson.dumps(event.result)
                inline = len(body) <= min(RESULT_INLINE_BYTES_MAX, room)
                room -= len(body) if inline else 0
                events.append(event.to_event() if inline else await self._slim(tenant, report, event, body))
        return events

    def _patience_seconds(self, report: wire.Report) -> float:
        """A start must be known in good time for its timeout; what says nothing of that cannot wait."""
        limits = [event.timeout_seconds for event in report.events if event.type is AgentEventType.TASK_STARTED]
        soonest = min((limit or 0.0 for limit in limits), default=0.0)
        return max(min(self._started_held_seconds, soonest * TIMEOUT_SHARE), UNHURRIED_SECONDS)

    async def _slim(self, tenant: str, report: wire.Report, event: wire.WireEvent, body: bytes) -> AgentEvent:
        """The event without its large result, which is stored first and travels by reference."""
        slim = event.to_event()
        if len(body) > RESULT_BYTES_MAX:
            message = f"the result has {len(body)} bytes as JSON, at most {RESULT_BYTES_MAX} are taken"
            error = TaskError(code="RESULT_TOO_LARGE", message=message, retryable=False)
            return slim.model_copy(update={"type": AgentEventType.TASK_FAILED, "result": None, "error": error})
        reference = await self._payloads.put_payload(tenant, UUID(report.execution_id), body)
        return slim.model_copy(update={"result": None, "result_ref": reference})

    def _hold(
        self, tenant: str, execution_id: str, batch: InboxBatch, size_bytes: int, patience_seconds: float
    ) -> None:
        key = (tenant, execution_id)
        deliveries = self._deliveries.get(key)
        if deliveries is None:
            deliveries = self._deliveries[key] = Deliveries(tenant, execution_id, batch.partition)
        held = Held(batch, size_bytes, time.monotonic(), patience_seconds)
        deliveries.under(self._leases.fences.get(batch.partition))
        hand_over = deliveries.may_hand_over()
        if not deliveries.add(held):
            return
        self._held_bytes += held.memory_bytes
        if hand_over and self._lingering.hand_over(tenant, execution_id, self._stamped(deliveries, held)):
            held.delivered_at = time.monotonic()
            return
        self._send_soon(deliveries)

    def _stamped(self, deliveries: Deliveries, held: Held) -> InboxBatch:
        fence = self._leases.fences.get(deliveries.partition, held.batch.fence)
        return held.batch.model_copy(update={"low": deliveries.low, "fence": fence})

    async def _acknowledge(self, tenant: str, partition: int, *entry_ids: str | bytes) -> None:
        stream = keys.partition_stream(tenant, partition)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xack(stream, keys.GROUP, *entry_ids)
            pipe.xdel(stream, *entry_ids)
            await pipe.execute()

    async def _bury(
        self, tenant: str, partition: int, entry_id: str, fields: Fields | None, reason: str, tries: int = 1
    ) -> None:
        """An entry that can never be delivered: kept where operators find it, with the reason."""
        await self._letters.bury(tenant, partition, entry_id, fields, reason, tries)
        await self._acknowledge(tenant, partition, entry_id)

    async def _bury_held(self, deliveries: Deliveries, held: Held, reason: str) -> None:
        entry_id = held.batch.entry_id
        await self._bury_entry(deliveries.tenant, deliveries.partition, entry_id, reason, deliveries.failures)

    async def _bury_entry(self, tenant: str, partition: int, entry_id: str, reason: str, tries: int) -> None:
        """As it was written: what is held is only what the workflow was to hear."""
        found: Any = await self._redis.xrange(keys.partition_stream(tenant, partition), entry_id, entry_id)
        await self._bury(tenant, partition, entry_id, found[0][1] if found else None, reason, tries)

    # Sending ---------------------------------------------------------------------------------------------------

    def _send_soon(self, deliveries: Deliveries) -> None:
        taken = self._due(deliveries)
        if not taken:
            self._forget_when_empty(deliveries)
            return
        deliveries.sending = True
        sender = asyncio.create_task(self._send(deliveries, taken), name=f"signal-{deliveries.execution_id}")
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    def _due(self, deliveries: Deliveries) -> list[Held]:
        deliveries.under(self._leases.fences.get(deliveries.partition))
        now = time.monotonic()
        busy = len(self._signalled_at) == BUSY_SIGNALS and now - self._signalled_at[0] < BUSY_SECONDS
        return deliveries.due(now, UNHURRIED_BUSY_SECONDS if busy else 0.0)

    async def _send(self, deliveries: Deliveries, taken: list[Held]) -> None:
        batches = [self._stamped(deliveries, held) for held in taken]
        self._signalled_at.append(time.monotonic())
        try:
            async with asyncio.timeout(SIGNAL_TIMEOUT_SECONDS):
                await self._launcher.signal(deliveries.tenant, UUID(deliveries.execution_id), "events", batches)
        except NotFoundError:
            await self._not_found(deliveries, taken)
        except (EngineError, TimeoutError) as error:
            deliveries.retry_at = time.monotonic() + 0.5
            log.warning("bridge.signal_failed", execution_id=deliveries.execution_id, error=str(error))
        except Exception:
            # Nobody awaits this task. What it carried stays held, and pending in Redis.
            deliveries.retry_at = time.monotonic() + SIGNAL_TIMEOUT_SECONDS
            log.exception("bridge.signal_broken", execution_id=deliveries.execution_id)
        else:
            self._sent(deliveries, taken, batches)
        finally:
            deliveries.sending = False
        self._send_soon(deliveries)

    def _sent(self, deliveries: Deliveries, taken: list[Held], batches: Sequence[InboxBatch]) -> None:
        """It has arrived. Workflows drop what came under an older fence once they hear of a newer one: what went out
        before this process lost the partition and got it back goes once more."""
        deliveries.failures = 0
        if self._leases.fences.get(deliveries.partition) in (None, batches[0].fence):
            deliveries.mark_sent(taken, time.monotonic())

    async def _not_found(self, deliveries: Deliveries, taken: list[Held]) -> None:
        """Temporal has no such open run. It is late only if PostgreSQL says closed; otherwise it waits."""
        try:
            closed = await self._maintenance.is_closed(deliveries.tenant, UUID(deliveries.execution_id))
        except EngineError:
            closed = False
        deliveries.retry_at = time.monotonic() + 1.0
        deliveries.failures += 1
        lacking: frozenset[str] = frozenset()
        if closed:
            log.info("bridge.late", execution_id=deliveries.execution_id, entries=len(taken))
            lacking = await self._lacking(deliveries, taken)
        elif closed is None and deliveries.failures >= TRIES_MAX:
            log.warning("bridge.unknown_execution", execution_id=deliveries.execution_id, entries=len(taken))
        else:
            return
        try:
            for held in taken:
                if not closed:
                    await self._bury_held(deliveries, held, "no such execution")
                elif held.results & lacking:
                    await self._bury_held(deliveries, held, "too late: the execution is closed")
                else:
                    await self._acknowledge(deliveries.tenant, deliveries.partition, held.batch.entry_id)
                self._cover(deliveries, [held.batch.entry_id])
        except (RedisError, OSError) as error:
            log.warning("bridge.redis_unavailable", error=str(error))

    async def _lacking(self, deliveries: Deliveries, taken: list[Held]) -> frozenset[str]:
        """Tasks of a closed execution whose results were never counted: the others' are repetitions."""
        task_ids = frozenset(task_id for held in taken for task_id in held.results)
        if not task_ids:
            return task_ids
        try:
            done = await self._maintenance.completed_tasks(
                deliveries.tenant, UUID(deliveries.execution_id), sorted(task_ids)
            )
        except EngineError:
            return task_ids
        return task_ids.difference(done)

    def _cover(self, deliveries: Deliveries, entry_ids: list[str]) -> None:
        before_bytes = deliveries.memory_bytes
        deliveries.covered(entry_ids)
        self._held_bytes -= before_bytes - deliveries.memory_bytes
        room_bytes = max(HELD_BYTES_MAX - self._held_bytes, 0)
        if (deliveries.tenant, deliveries.execution_id) in self._parked and deliveries.memory_bytes <= room_bytes / 4:
            self._recovered.pop((deliveries.tenant, deliveries.partition), None)
        self._forget_when_empty(deliveries)

    def _forget_when_empty(self, deliveries: Deliveries) -> None:
        key = (deliveries.tenant, deliveries.execution_id)
        if not deliveries.held and not deliveries.sending and self._deliveries.get(key) is deliveries:
            del self._deliveries[key]

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


def _next_count(reply: Sequence[Any]) -> int:
    """How many entries to read next, by the size of the last ones; one of each stream stands for the others."""
    sizes = [sum(map(len, fields.values())) for _, entries in reply for _, fields in entries[-1:] if fields]
    if not sizes:
        return READ_COUNT
    return min(max(READ_BYTES // max(max(sizes), 1), READ_COUNT), READ_COUNT_MAX)
