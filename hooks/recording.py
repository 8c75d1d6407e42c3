"""What hook workers have done, written together: many runs cost one statement, and a slow disk slows nobody's hook.

Runs come before the end of their entry, and an entry is only gone when its runs are recorded. So a worker that dies in
between, or an outage that lasts too long, leaves an entry that somebody takes up, and finds what was recorded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID

from engine.contracts.hooks import HookRun
from engine.errors import EngineError
from engine.events.hook_queue import QueuedRun
from engine.hook_ports import HookDeliveries, RecordedRuns
from engine.observability.log import get_logger

log = get_logger(__name__)

WAITING_MAX: Final = 2_000
BATCH_MAX: Final = 200
TRIES_MAX: Final = 30
TRY_AGAIN_SECONDS: Final = 1.0


class Feed(Protocol):
    async def nudge(self, tenant: str, execution_id: str, message: dict[str, Any]) -> None: ...


class Acknowledge(Protocol):
    async def acknowledge(self, runs: Sequence[QueuedRun]) -> None: ...


@dataclass(eq=False, slots=True)
class Work:
    """One carrying out of an entry, whose runs and whose end may be written apart."""

    queued: QueuedRun
    unrecorded: bool = False
    """A run of it could not be recorded, so it is not done with."""

    @property
    def is_left(self) -> bool:
        """To its lease; runs that somebody waited for are answered, and never repeated."""
        return self.unrecorded and self.queued.key is not None


@dataclass(frozen=True, slots=True)
class Ended:
    """A run to record; without one, an entry that is done with."""

    work: Work
    run: HookRun | None = None

    @property
    def tenant(self) -> str:
        return self.work.queued.tenant


class HookRecorder:
    """One a hook worker. `switched_off` hears of hooks whose circuit has opened."""

    def __init__(
        self,
        deliveries: HookDeliveries,
        reader: Acknowledge,
        feed: Feed,
        switched_off: Callable[[str, UUID], None],
        finished: Callable[[QueuedRun], None],
    ) -> None:
        self._deliveries = deliveries
        self._reader = reader
        self._feed = feed
        self._switched_off = switched_off
        self._finished = finished
        self._waiting: asyncio.Queue[Ended] = asyncio.Queue(WAITING_MAX)

    async def put(self, ended: Ended) -> None:
        await self._waiting.put(ended)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH_MAX and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            await self._write(batch)
            for _ in batch:
                self._waiting.task_done()

    async def flush(self) -> None:
        """Until everything that was put is written."""
        await self._waiting.join()

    async def _write(self, batch: Sequence[Ended]) -> None:
        for (tenant, _), group in _grouped(batch).items():
            runs = [run for _, run in group]
            if not await self._patiently("record", partial(self._record, tenant, runs)):
                log.error("hooks.left_unrecorded", tenant=tenant, runs=[str(run.execution_id) for run in runs])
                for work, _ in group:
                    work.unrecorded = True
        ended = [item.work for item in batch if item.run is None]
        done = [work.queued for work in ended if not work.is_left]
        for tenant in sorted({queued.tenant for queued in done}):
            keys = [queued.key for queued in done if queued.tenant == tenant and queued.key is not None]
            if keys:
                await self._patiently("finish", partial(self._deliveries.finish, tenant, keys))
        if done:
            try:
                await self._reader.acknowledge(done)
            except EngineError as error:
                # They come again, and are found done.
                log.warning("hooks.not_acknowledged", entries=len(done), error=error.message)
        for work in ended:
            # What is left is not this worker's any more either: nobody renews its lease.
            self._finished(work.queued)

    async def _record(self, tenant: str, runs: Sequence[HookRun]) -> None:
        answer: RecordedRuns = await self._deliveries.record(tenant, runs)
        for hook_id in answer.switched_off:
            log.error("hook.switched_off", tenant=tenant, hook_id=str(hook_id))
            self._switched_off(tenant, hook_id)
        for run in runs:
            log.info(
                "hook.executed",
                tenant=tenant,
                hook_id=str(run.hook_id),
                hook_name=run.hook_name,
                trigger=run.trigger.value,
                execution_id=str(run.workflow_execution_id),
                status=run.status.value,
                duration_ms=run.duration_ms,
                trace_id=run.trace_id,
            )
        if runs[0].workflow_execution_id is not None and answer.recorded:
            message = {"sequence": answer.last_sequence}
            await self._feed.nudge(tenant, str(runs[0].workflow_execution_id), message)

    async def _patiently(self, what: str, call: Callable[[], Awaitable[None]]) -> bool:
        """False when an outage was sat out for too long: whoever takes the entries up next does it again. What can
        never be written is over: doing it again would not help."""
        for _ in range(TRIES_MAX):
            try:
                await call()
            except EngineError as error:
                log.warning("hooks.not_recorded", what=what, error=error.message)
                if not error.transient:
                    return True
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            else:
                return True
        return False


def _grouped(batch: Sequence[Ended]) -> dict[tuple[str, UUID | None], list[tuple[Work, HookRun]]]:
    """In one order, so that two recorders do not wait for each other."""
    groups: dict[tuple[str, UUID | None], list[tuple[Work, HookRun]]] = {}
    for item in batch:
        if item.run is not None:
            groups.setdefault((item.tenant, item.run.workflow_execution_id), []).append((item.work, item.run))
    return dict(sorted(groups.items(), key=lambda group: (group[0][0], str(group[0][1]))))
