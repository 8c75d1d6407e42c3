"""A small world around the real pure parts of an execution, in which every step can be the last one before a crash.

Real are the workflow's loop with its kernel (`workflows.execution`, `workflows.kernel`), the tick's activity
(`activities.ticks`), what the bridge holds and hands over (`engine.events.bridge`, `deliveries`, `lingering`). Models,
as small as their promises allow, are the journal in PostgreSQL (compare-and-set, all or nothing), Temporal's history
(what local activities brought is lost when their workflow task fails; a signal refuses a closing command), the streams
in Redis (a power cut loses what was not synced), the agents, and which process owns the partition.

Coroutines run by hand: each `await` of the models is a place where the scheduler may do anything else first.
"""

import copy
from dataclasses import dataclass, field
from typing import Any, cast

from activities.ticks import TickActivities
from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch
from engine.contracts.kernel import (
    BindRequest,
    BindResult,
    Delta,
    Done,
    ExecutionInput,
    Failed,
    TickProposal,
    delta_text,
)
from engine.contracts.streams import entry_order
from engine.events.bridge import Bridge
from engine.events.deliveries import Deliveries, Held
from engine.events.lingering import Lingering, Seat
from engine.ports import Committed
from tests.unit.workflows.loss_temporal import CLOCK, Pause, binding
from workflows.kernel.state import RunState
from workflows.kernel.transitions import apply_delta

ANSWER_TICKS_MAX = 2
SIGNALS_MAX = 2
HISTORY_ITEMS_MAX = 12
COVER_CHECK_SECONDS = 0.5
EntryId = str
Attempted = tuple[str, int, int]
"""(task, epoch, attempt)."""


# PostgreSQL ----------------------------------------------------------------------------------------------------


class Journal:
    """Compare-and-set on the tick's number. Beside it the state that the stored deltas make."""

    def __init__(self, launch: ExecutionInput) -> None:
        self.texts: list[str] = []
        self.deltas: list[Delta] = []
        self.base_tick = 0
        self.fold = RunState(launch)
        self.states = [self.fold.snapshot()]

    @property
    def closed(self) -> bool:
        return self.fold.closed

    @property
    def consumed(self) -> dict[EntryId, int]:
        return {entry_id: delta.tick for delta in self.deltas for entry_id in delta.consumed}

    async def commit(self, proposal: TickProposal) -> Committed:
        await Pause("before the commit")
        own = proposal.tick == len(self.texts) + 1
        if own and not self.closed:
            self._store(proposal)
        assert proposal.tick <= len(self.texts), "a tick that does not follow the last one, or follows the closing one"
        self.base_tick = proposal.base_tick
        first = proposal.tick - 1
        last = first + (1 if own else ANSWER_TICKS_MAX)
        committed = Committed(
            ticks=tuple(self.deltas[first:last]),
            own=own,
            more=last < len(self.texts),
            control=None,
            last_sequence=len(self.texts),
            stored_texts=tuple(self.texts[first:last]),
            now_ms=CLOCK.now_ms,
            status=self.fold.status,
        )
        await Pause("after the commit")
        return committed

    def _store(self, proposal: TickProposal) -> None:
        text = proposal.delta_text or delta_text(proposal.delta)
        delta = Delta.model_validate_json(text)
        again = self.consumed.keys() & set(delta.consumed)
        assert not again, f"consumed a second time: {sorted(again)}"
        apply_delta(self.fold, delta)
        self.texts.append(text)
        self.deltas.append(delta)
        self.states.append(self.fold.snapshot())


# Redis ---------------------------------------------------------------------------------------------------------


@dataclass
class Streams:
    """The partition's stream with its group, the hosts' streams, and the tick whose writes are done."""

    entries: dict[EntryId, tuple[AgentEvent, ...]] = field(default_factory=dict)
    pending: dict[EntryId, None] = field(default_factory=dict)
    delivered: EntryId = "0-0"
    to_hosts: dict[str, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    tick: int = 0


class Redis:
    """What is on disk, and what is not yet. Ids follow the clock and are never used again."""

    def __init__(self) -> None:
        self.now = Streams()
        self.on_disk = Streams()
        self.acknowledged: set[EntryId] = set()
        self._ids = 0

    def sync(self) -> None:
        self.on_disk = copy.deepcopy(self.now)

    def power_cut(self) -> None:
        self.now = copy.deepcopy(self.on_disk)

    def report(self, *events: AgentEvent) -> None:
        self._ids += 1
        self.now.entries[f"{self._ids}-0"] = events

    def acknowledge(self, entry_ids: list[EntryId], *, late: bool = False) -> None:
        if not late:
            self.acknowledged.update(entry_ids)
        for entry_id in entry_ids:
            self.now.pending.pop(entry_id, None)
            self.now.entries.pop(entry_id, None)

    def write_tick(self, tick: int, documents: dict[str, dict[str, Any]], acknowledge: list[EntryId]) -> None:
        if tick > self.now.tick:
            for host_id, document in documents.items():
                self._ids += 1
                self.now.to_hosts.setdefault(host_id, []).append((self._ids, document))
            self.now.tick = tick
        self.acknowledge(acknowledge)

    def unread(self) -> list[EntryId]:
        last = entry_order(self.now.delivered)
        return [entry_id for entry_id in self.now.entries if entry_order(entry_id) > last]


class ModelDispatcher:
    """As `engine.events.dispatch`: for each stored tick what the hosts are told, once, and its acknowledgements."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def write(self, proposal: TickProposal, committed: Committed) -> None:
        for delta in committed.ticks:
            mine = committed.own and delta is committed.ticks[0]
            documents: dict[str, dict[str, Any]] = {}
            for attempt in (*delta.assigned, *delta.resent):
                documents.setdefault(attempt.host_id, {}).setdefault("assign", []).append(attempt)
            over: list[Done | Failed] = [*delta.done, *delta.failed]
            for ended in over:
                self._tell(documents, proposal, "consumed", ended.agent_id, (ended.task_id, 1, ended.attempt))
            for stopped in proposal.cancel if mine else ():
                self._tell(documents, proposal, "cancel", stopped.agent_id, (stopped.task_id, 1, stopped.attempt))
            acknowledge = list(proposal.acknowledge) if mine else list(delta.consumed)
            await Pause("before the stream writes")
            self._redis.write_tick(delta.tick, documents, acknowledge)
        await Pause("after the stream writes")

    def _tell(
        self, documents: dict[str, dict[str, Any]], proposal: TickProposal, what: str, agent_id: str, one: Attempted
    ) -> None:
        host_id = proposal.hosts.get(agent_id)
        if host_id is not None:
            documents.setdefault(host_id, {}).setdefault(what, []).append(one)


class ModelBinder:
    """Finds the one host that is there from the beginning."""

    async def bind(self, request: BindRequest) -> BindResult:
        await Pause("before the hosts are looked up")
        agent_ids = [f"{role}-{n}" for role, need in sorted(request.roles.items()) for n in range(1, need.count + 1)]
        return BindResult(bindings=tuple(binding(agent_id, "host-1") for agent_id in agent_ids))


# Agents --------------------------------------------------------------------------------------------------------


class Host:
    """Does each attempt at most once, keeps its report until it is consumed, and forgets everything when it dies."""

    def __init__(self, host_id: str, redis: Redis) -> None:
        self.host_id = host_id
        self.read_up_to = 0
        self.running: dict[Attempted, AgentEvent] = {}
        self.kept: dict[Attempted, AgentEvent] = {}
        self.had: set[Attempted] = set()
        self._redis = redis

    def waiting(self) -> list[tuple[int, dict[str, Any]]]:
        return [entry for entry in self._redis.now.to_hosts.get(self.host_id, []) if entry[0] > self.read_up_to]

    def read(self) -> None:
        """The next entry of its stream."""
        self.read_up_to, document = self.waiting()[0]
        for one in document.get("consumed", ()):
            self.kept.pop(one, None)
        for one in document.get("cancel", ()):
            self.had.add(one)
            self.kept.pop(one, None)
            self.running.pop(one, None)
        for attempt in document.get("assign", ()):
            key = (attempt.task_id, 1, attempt.attempt)
            if key in self.kept:
                self._redis.report(self.kept[key])
            elif key in self.running:
                self._redis.report(self._event(attempt, AgentEventType.TASK_STARTED))
            elif key not in self.had:
                self.had.add(key)
                self.running[key] = self._event(attempt, AgentEventType.TASK_COMPLETED)

    def begin(self, key: Attempted) -> None:
        """Say that it has started."""
        self._redis.report(self.running[key].model_copy(update={"type": AgentEventType.TASK_STARTED}))

    def end(self, *keys: Attempted) -> None:
        """Report the ends of these in one entry."""
        ended = []
        for key in keys:
            event = self.running.pop(key).model_copy(update={"at_ms": CLOCK.now_ms})
            self.kept[key] = event
            ended.append(event)
        self._redis.report(*ended)

    def repeat(self) -> None:
        for event in self.kept.values():
            self._redis.report(event)

    def _event(self, attempt: Any, kind: AgentEventType) -> AgentEvent:
        return AgentEvent(
            type=kind, at_ms=CLOCK.now_ms, task_id=attempt.task_id, agent_id=attempt.agent_id, attempt=attempt.attempt,
            started_at_ms=CLOCK.now_ms,
        )  # fmt: skip


# The engine's processes ----------------------------------------------------------------------------------------


class Later:
    """Stands in for a timer of the event loop."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ModelSeat(Seat):
    async def collect(self, wait_seconds: float) -> list[InboxBatch]:
        if wait_seconds > 0:
            await Pause("lingering")
        return await super().collect(0.0)


class ModelLingering(Lingering):
    """Seats expire when the scheduler says so."""

    def __init__(self) -> None:
        super().__init__()
        self.expiring: list[tuple[tuple[str, str], Seat, Later]] = []

    def _leave(self, key: tuple[str, str], seat: Seat) -> None:
        if not seat.uncovered:
            del self._seats[key]
            return
        later = Later()
        seat.expiry = cast(Any, later)
        self.expiring.append((key, seat, later))

    def expire(self) -> None:
        due, self.expiring = self.expiring, []
        for key, seat, later in due:
            if not later.cancelled:
                self._give_up(key, seat)


class Leases:
    """Which partitions this process reads, with their fences."""

    partitions = 1

    def __init__(self) -> None:
        self.fences: dict[int, int] = {}


@dataclass
class Outgoing:
    """A signal on its way; `bridge` is None when its sender is gone."""

    bridge: "ModelBridge | None"
    deliveries: Deliveries
    taken: list[Held]
    batches: list[InboxBatch]


class ModelBridge(Bridge):
    """The real bridge without its connections: reading and sending are the scheduler's steps."""

    def __init__(self, redis: Redis, lingering: Lingering, network: list[Outgoing], launch: ExecutionInput) -> None:
        absent = cast(Any, None)
        self.leases = Leases()
        super().__init__(absent, absent, cast(Any, self.leases), absent, absent, absent, lingering, absent)
        self._streams_now = redis
        self._network = network
        self._launch = launch
        self._taken_over = 0

    @property
    def held(self) -> list[Deliveries]:
        return list(self._deliveries.values())

    def own(self, fence: int | None) -> None:
        self.leases.fences = {} if fence is None else {0: fence}

    def read(self, count: int = 1) -> None:
        """What earlier owners left first, then what is new."""
        now, fence = self._streams_now.now, self.leases.fences[0]
        if self._taken_over != fence:
            self._taken_over = fence
            for entry_id in [e for e in now.pending if e in now.entries]:
                self._take_in(entry_id, fence)
        for entry_id in self._streams_now.unread()[:count]:
            now.pending[entry_id] = None
            now.delivered = entry_id
            self._take_in(entry_id, fence)

    def _take_in(self, entry_id: EntryId, fence: int) -> None:
        events = self._streams_now.now.entries[entry_id]
        batch = InboxBatch(entry_id=entry_id, partition=0, fence=fence, low="0-0", events=events)
        self._hold(self._launch.tenant, self._launch.execution_id, batch, 100, 0.1)

    def _send_soon(self, deliveries: Deliveries) -> None:
        taken = self._due(deliveries)
        if not taken:
            self._forget_when_empty(deliveries)
            return
        deliveries.sending = True
        self._network.append(Outgoing(self, deliveries, taken, [self._stamped(deliveries, held) for held in taken]))

    def answered(self, signal: Outgoing, *, arrived: bool) -> None:
        """As `_send` ends."""
        if arrived:
            self._sent(signal.deliveries, signal.taken, signal.batches)
        else:
            signal.deliveries.retry_at = CLOCK.monotonic() + 0.5
        signal.deliveries.sending = False
        self._send_soon(signal.deliveries)

    def late(self, signal: Outgoing) -> None:
        """As `_not_found` when the execution is closed."""
        entry_ids = [held.batch.entry_id for held in signal.taken]
        self._streams_now.acknowledge(entry_ids, late=True)
        self._cover(signal.deliveries, entry_ids)
        signal.deliveries.sending = False
        self._send_soon(signal.deliveries)

    def sweep(self) -> None:
        """As `_sweep` and `_look_for_covered`."""
        now = CLOCK.monotonic()
        for deliveries in self.held:
            old = [e for e, held in deliveries.held.items()
                   if held.delivered_at is not None and now - held.delivered_at > COVER_CHECK_SECONDS]  # fmt: skip
            gone = [entry_id for entry_id in old if entry_id not in self._streams_now.now.pending]
            if gone:
                self._cover(deliveries, gone)
        for deliveries in self.held:
            if self.leases.fences:
                self._send_soon(deliveries)
            elif not deliveries.sending:
                self._cover(deliveries, list(deliveries.held))


class HastyActivities(TickActivities):
    """Planted: what a tick is to consume is acknowledged before it is committed."""

    redis: Redis

    async def _commit(self, proposal: TickProposal) -> tuple[Committed, list[InboxBatch]]:
        self.redis.acknowledge(list(proposal.acknowledge))
        return await super()._commit(proposal)
