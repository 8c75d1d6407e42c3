"""The hook worker: takes up entries of the queues and runs their hooks, each entry's in order.

An entry is this worker's from its claim in PostgreSQL until its lease ends, which is renewed as long as the process
lives. When it dies, the stream's pending entry and the overdue row both bring the entry to another worker, who runs the
hooks that have no record yet: a hook runs at least once, and one whose worker dies again and again is reported.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

import orjson

from engine.concurrency import end_all, run_together
from engine.contracts.hooks import CircuitState, DeliveryKey, HookDetail, HookExecutionStatus, HookRun
from engine.errors import EngineError
from engine.events.hook_queue import HookQueueReader, QueuedRun, RedisHookQueue
from engine.hook_ports import ClaimedEntry, HookDeliveries, HookStore
from engine.observability.log import get_logger
from engine.ports import PayloadStore
from engine.settings import Settings
from hooks.recording import Ended, Feed, HookRecorder, Work
from hooks.requests import RequestDesk
from hooks.running import WORKER_LOST, Actions, context_of, record_of, run_hook, run_id_of

log = get_logger(__name__)

ENTRIES_A_SLOT: Final = 8
"""Entries under way for each slot, those that wait for another try among them."""
CLAIMS_MAX: Final = 4
"""An entry whose workers died so often is not tried again: its hooks are reported as failed."""
OVERDUE_MAX: Final = 500
OVERDUE_AGAIN_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.5


class SessionEvents(Protocol):
    """What came with external events. Implemented by `engine.postgres.dynamic`."""

    async def event_payloads(self, tenant: str, execution_id: UUID, event_ids: Sequence[str]) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class HookSources:
    """Where a hook worker finds what an entry names."""

    store: HookStore
    deliveries: HookDeliveries
    payloads: PayloadStore
    sessions: SessionEvents


class HookWorker:
    def __init__(
        self,
        queue: RedisHookQueue,
        reader: HookQueueReader,
        sources: HookSources,
        actions: Actions,
        feed: Feed,
        settings: Settings,
        worker_id: str | None = None,
    ) -> None:
        self._queue = queue
        self._reader = reader
        self._sources = sources
        self._deliveries = sources.deliveries
        self._actions = actions
        self._worker_id = worker_id or uuid4().hex
        self._enabled = settings.hooks_enabled
        self._lease_seconds = settings.hooks_lease_seconds
        self._circuit_seconds = settings.hooks_circuit_seconds
        self._slots = asyncio.Semaphore(settings.hooks_slots)
        self._slots_max = settings.hooks_slots
        self._active: dict[QueuedRun, asyncio.Task[None]] = {}
        self._resting = 0
        self._room = asyncio.Event()
        self._opened_at: dict[UUID, float] = {}
        """Hooks whose circuit has opened, perhaps after they were read for an entry."""
        self._trials: Counter[UUID] = Counter()
        self._recorder = HookRecorder(sources.deliveries, reader, feed, self._switched_off, self._finished)
        self._requests = RequestDesk(
            sources.store, queue, actions, self._recorder, self._slots, enabled=settings.hooks_enabled
        )

    async def run(self) -> None:
        """Until cancelled; what is under way then gets a moment to end, and the rest goes to others."""
        recording = asyncio.create_task(self._recorder.run(), name="hook-recorder")
        try:
            # A recorder that has ended would let this worker run hooks that nobody ever records. It goes on while the
            # worker stops, so it is not one of the jobs itself.
            await run_together([self._read, self._look_after, lambda: asyncio.shield(recording)])
        finally:
            # Whoever ends this may cancel again and again: stopping takes its time all the same.
            stopping = asyncio.ensure_future(self._stop(recording))
            while not stopping.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([stopping])

    async def _stop(self, recording: "asyncio.Task[None]") -> None:
        tasks = list(self._active.values())
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        tenants = {queued.tenant for queued in self._active}
        await end_all(tasks)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                if not recording.done():
                    await self._recorder.flush()
                for tenant in sorted(tenants):
                    await self._deliveries.release(tenant, self._worker_id)
                await self._reader.leave()
        except (EngineError, TimeoutError) as error:
            # Their leases end by themselves.
            log.warning("hooks.stopped_early", error=str(error))
        await end_all([recording])

    # Taking up -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                await self._read_once()
            except EngineError as error:
                log.warning("hooks.reading_interrupted", error=error.message)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _read_once(self) -> None:
        """As many as there are free slots: what is read early would be overtaken by nothing."""
        busy = len(self._active) - self._resting
        free = min(self._slots_max - busy, self._slots_max * ENTRIES_A_SLOT - len(self._active))
        if free <= 0:
            self._room.clear()
            await self._room.wait()
            return
        await self._take_up(await self._reader.take(free))

    async def _take_up(self, taken: Iterable[QueuedRun]) -> None:
        by_tenant: dict[str, list[QueuedRun]] = {}
        for queued in taken:
            if queued in self._active:
                continue
            if queued.request is not None:
                self._start(queued, self._requests.carry_out(queued))
            else:
                by_tenant.setdefault(queued.tenant, []).append(queued)
        for tenant, entries in by_tenant.items():
            await self._claim(tenant, entries)

    async def _claim(self, tenant: str, taken: Sequence[QueuedRun]) -> None:
        keys = [queued.key for queued in taken if queued.key is not None]
        claimed = await self._deliveries.claim(tenant, keys, self._worker_id, self._lease_seconds) if keys else ()
        mine = {item.key: item for item in claimed}
        # The others are done, or another worker's: their row in PostgreSQL brings them back if need be.
        others = [queued for queued in taken if queued.key is None or queued.key not in mine]
        if others:
            await self._reader.acknowledge(others)
        if not mine:
            return
        read_at = time.monotonic()
        hooks = await self._hooks(tenant, claimed)
        again = [run_id_of(tenant, c.key, hook_id) for c in claimed if c.claims > 1 for hook_id in c.entry.hooks]
        recorded = await self._deliveries.recorded(tenant, again) if again else frozenset()
        for queued in taken:
            item = mine.pop(queued.key, None) if queued.key is not None else None
            if item is not None:
                self._start(queued, self._carry_out(queued, item, hooks, recorded, read_at))

    async def _hooks(self, tenant: str, claimed: Sequence[ClaimedEntry]) -> dict[UUID, HookDetail]:
        """As they are now: a hook that was changed, disabled or deleted meanwhile does not run as it was."""
        if not self._enabled:
            return {}
        wanted = sorted({hook_id for item in claimed for hook_id in item.entry.hooks})
        return {hook.hook_id: hook for hook in await self._sources.store.runnable(tenant, wanted)}

    def _start(self, queued: QueuedRun, work: Any) -> None:
        task = asyncio.create_task(work, name=f"hook-entry-{queued.entry_id}")
        self._active[queued] = task
        task.add_done_callback(lambda task: self._ended(queued, task))

    def _ended(self, queued: QueuedRun, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            # Left as it is: its lease ends, and somebody tries again, a few times.
            log.error("hook.entry_failed", tenant=queued.tenant, error=repr(task.exception()))
            self._finished(queued)

    def _finished(self, queued: QueuedRun) -> None:
        self._active.pop(queued, None)
        self._room.set()

    # Carrying out --------------------------------------------------------------------------------------------

    async def _carry_out(
        self,
        queued: QueuedRun,
        claimed: ClaimedEntry,
        hooks: Mapping[UUID, HookDetail],
        recorded: frozenset[UUID],
        read_at: float,
    ) -> None:
        entry, tenant, work = claimed.entry, queued.tenant, Work(queued)
        result, values = await self._facts_of(tenant, claimed)
        skipped = []
        for hook_id in entry.hooks:
            hook, run_id = hooks.get(hook_id), run_id_of(tenant, claimed.key, hook_id)
            if hook is None or run_id in recorded:
                continue
            if claimed.claims > CLAIMS_MAX:
                await self._recorder.put(Ended(work, _lost(hook, run_id, claimed)))
            elif self._is_off(hook, read_at):
                skipped.append(hook_id)
            else:
                context = context_of(tenant, entry, hook, result, values)
                context = context.model_copy(update={"run_key": str(run_id)})
                outcome, runs = await self._run(hook, context)
                execution_id = UUID(entry.execution_id)
                run = record_of(
                    hook, run_id, outcome, runs, execution_id=execution_id, trace_id=entry.trace_id,
                    subject=entry.subject, trigger=entry.trigger,
                )  # fmt: skip
                await self._recorder.put(Ended(work, run))
        if skipped:
            log.info("hook.skipped", tenant=tenant, hook_ids=[str(hook_id) for hook_id in skipped])
            await self._deliveries.skipped(tenant, skipped)
        await self._recorder.put(Ended(work))

    async def _run(self, hook: HookDetail, context: Any) -> Any:
        self._trials[hook.hook_id] += 1
        try:
            return await run_hook(self._actions, hook, context, self._slots, self._rest)
        finally:
            self._trials[hook.hook_id] -= 1
            if not self._trials[hook.hook_id]:
                del self._trials[hook.hook_id]

    async def _rest(self, delay_seconds: float) -> None:
        """While an entry waits for another try, this worker takes up others."""
        self._resting += 1
        self._room.set()
        try:
            await asyncio.sleep(delay_seconds)
        finally:
            self._resting -= 1

    def _is_off(self, hook: HookDetail, read_at: float) -> bool:
        """What was read after the opening says itself whether it is still off: somebody may have enabled it."""
        opened_at = self._opened_at.get(hook.hook_id)
        if opened_at is not None and read_at <= opened_at and time.monotonic() < opened_at + self._circuit_seconds:
            return True
        state = hook.circuit.state
        # One trial at a time shows whether it works again.
        return state is CircuitState.OPEN or (state is CircuitState.HALF_OPEN and self._trials[hook.hook_id] > 0)

    def _switched_off(self, _tenant: str, hook_id: UUID) -> None:
        now = time.monotonic()
        self._opened_at = {hook: at for hook, at in self._opened_at.items() if at + self._circuit_seconds > now}
        self._opened_at[hook_id] = now

    async def _facts_of(self, tenant: str, claimed: ClaimedEntry) -> tuple[Any, dict[str, Any]]:
        """A result that is stored apart; what came with a session event."""
        payload, execution_id = claimed.entry.payload, claimed.key.execution_id
        result: Any = payload.get("result")
        values: dict[str, Any] = {}
        try:
            if payload.get("result_ref"):
                result = orjson.loads(await self._sources.payloads.payload(tenant, execution_id, payload["result_ref"]))
            if payload.get("event_id"):
                found = await self._sources.sessions.event_payloads(tenant, execution_id, [payload["event_id"]])
                session = found.get(payload["event_id"])
                values = session if isinstance(session, dict) else {"payload": session}
        except EngineError as error:
            if error.transient:
                raise
            log.warning("hook.facts_gone", tenant=tenant, execution_id=str(execution_id), error=error.message)
        return result, values

    # Looking after -------------------------------------------------------------------------------------------

    async def _look_after(self) -> None:
        taken_over_at = 0.0
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                await self._renew()
                await self._queue.put_again(await self._deliveries.overdue(OVERDUE_MAX, OVERDUE_AGAIN_SECONDS))
                if time.monotonic() - taken_over_at >= self._lease_seconds:
                    taken_over_at = time.monotonic()
                    await self._take_up(await self._reader.take_over(round(self._lease_seconds * 1000)))
            except EngineError as error:
                log.warning("hooks.looking_after_interrupted", error=error.message)

    async def _renew(self) -> None:
        active = list(self._active)
        if not active:
            return
        for tenant in sorted({queued.tenant for queued in active}):
            keys: list[DeliveryKey] = [q.key for q in active if q.tenant == tenant and q.key is not None]
            if keys:
                await self._deliveries.renew(tenant, keys, self._worker_id, self._lease_seconds)
        await self._reader.keep(active)


def _lost(hook: HookDetail, run_id: UUID, claimed: ClaimedEntry) -> HookRun:
    return HookRun(
        execution_id=run_id,
        hook_id=hook.hook_id,
        hook_name=hook.name,
        workflow_execution_id=claimed.key.execution_id,
        trace_id=claimed.entry.trace_id,
        status=HookExecutionStatus.FAILED,
        error_message=f"{WORKER_LOST}: {CLAIMS_MAX} hook workers ended while they had it",
        duration_ms=0,
        attempts=claimed.claims - 1,
        trigger=claimed.entry.trigger,
        event_matched=claimed.entry.subject,
    )
