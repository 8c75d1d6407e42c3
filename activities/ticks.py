"""The activities of a tick: commit, then tell the hosts, then wait a moment for what comes back."""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.circuits import CircuitGate
from engine.agents.speed import SpeedBook
from engine.contracts import activity_names
from engine.contracts.circuits import CircuitView
from engine.contracts.events import InboxBatch
from engine.contracts.handover import FollowUp, HandedTick
from engine.contracts.kernel import (
    Checkpoint,
    CheckpointRequest,
    Control,
    Done,
    Submission,
    TickOutcome,
    TickProposal,
)
from engine.errors import EngineError
from engine.events.dispatch import Dispatcher
from engine.events.lingering import Lingering
from engine.observability.log import get_logger
from engine.ports import Acknowledged, AgentBinder, Committed, ExecutionStore, Journal
from hooks.noticing import HookNotice

log = get_logger(__name__)

BURST_SECONDS_MAX = 0.4
"""Signals wait while ticks follow each other inside one local activity."""

BURST_BYTES_MAX = 512 * 1024
"""Of deltas: all of a burst go into one event of Temporal's history."""


def as_application_error(error: EngineError) -> ApplicationError:
    """Permanent errors end the workflow; transient ones are tried again by Temporal."""
    return ApplicationError(error.message, type=error.code, non_retryable=not error.transient)


class TickActivities:
    """Bound to the stores and streams of one worker process."""

    def __init__(
        self,
        journal: Journal,
        executions: ExecutionStore,
        dispatcher: Dispatcher,
        lingering: Lingering,
        acknowledged: Acknowledged,
        binder: AgentBinder,
        hooks: HookNotice | None = None,
        speeds: SpeedBook | None = None,
        circuits: CircuitGate | None = None,
    ) -> None:
        self._journal = journal
        self._executions = executions
        self._dispatcher = dispatcher
        self._lingering = lingering
        self._acknowledged = acknowledged
        self._binder = binder
        self._hooks = hooks
        self._speeds = speeds
        self._circuits = circuits

    @activity.defn(name=activity_names.BEGIN_EXECUTION)
    async def begin_execution(self, handed: HandedTick) -> TickOutcome:
        """Binds the agents whose hosts are there, then the first ticks: one local activity instead of two, which counts
        where executions are many and short."""
        burst = handed.burst
        if burst.bind_request is None:
            raise ApplicationError("there is nothing to begin with", type="MALFORMED", non_retryable=True)
        attempt = burst.begin()
        try:
            bound = await self._binder.bind(burst.bind_request)
            circuits = await self._look(burst)
            return await self._carry_on(burst, attempt, burst.open(bound.bindings, int(time.time() * 1000), circuits))
        except EngineError as error:
            raise as_application_error(error) from error

    @activity.defn(name=activity_names.COMMIT_TICK)
    async def commit_tick(self, handed: HandedTick) -> TickOutcome:
        """A tick, and those that follow from results that come at once. Idempotent by (execution, tick)."""
        burst = handed.burst
        attempt = burst.begin()
        try:
            return await self._carry_on(burst, attempt, burst.proposal)
        except EngineError as error:
            raise as_application_error(error) from error

    async def _carry_on(self, burst: FollowUp, attempt: int, first: TickProposal) -> TickOutcome:
        until = time.monotonic() + BURST_SECONDS_MAX
        if circuits := await self._news(first):
            return _not_as_assumed(first, circuits)
        committed, batches = await self._commit(first)
        stored = list(committed.stored_texts)
        more = committed.more
        at_ms = first.delta.at_ms
        while batches and not more and _goes_on(committed) and time.monotonic() < until:
            if sum(map(len, stored)) > BURST_BYTES_MAX:
                break
            # The database's clock may be behind this machine's: within a burst, too, time never goes back.
            at_ms = max(at_ms, committed.now_ms)
            proposal = burst.follow_up(attempt, batches, at_ms)
            if proposal is None:
                break
            if circuits := await self._news(proposal):
                break  # the workflow gets what this tick was to take in, and decides it anew
            try:
                committed, batches = await self._commit(proposal)
            except (EngineError, ApplicationError) as error:
                # The workflow proposes this tick again, and then hears what became of it.
                log.warning("tick.burst_ended", execution_id=proposal.execution_id, error=str(error))
                more, batches = True, []
                break
            stored += committed.stored_texts
            more = committed.more
        return _outcome(committed, stored, batches, more=more, circuits=circuits)

    async def _look(self, burst: FollowUp) -> tuple[CircuitView, ...]:
        if self._circuits is None or burst.bind_request is None or (rule := burst.circuit_rule) is None:
            return ()
        request = burst.bind_request
        types = [role.type for role in request.roles.values()]
        return await self._circuits.look(request.tenant, rule, types, request.execution_id)

    async def _news(self, proposal: TickProposal) -> tuple[CircuitView, ...]:
        """Circuit breakers that are not as it takes for granted: then it is not committed."""
        return () if self._circuits is None else await self._circuits.news(proposal)

    @activity.defn(name=activity_names.COMMIT_TICK_PATIENTLY)
    async def commit_tick_patiently(self, proposal: TickProposal) -> TickOutcome:
        """One tick, from whatever process."""
        try:
            if circuits := await self._news(proposal):
                return _not_as_assumed(proposal, circuits)
            committed, batches = await self._commit(proposal)
        except EngineError as error:
            raise as_application_error(error) from error
        return _outcome(committed, committed.stored_texts, batches, more=committed.more)

    async def _commit(self, proposal: TickProposal) -> tuple[Committed, list[InboxBatch]]:
        """A repetition answers what is stored and redoes its stream writes."""
        if self._hooks is not None:
            proposal = await self._hooks.notice(proposal)
        with self._lingering.open(proposal.tenant, proposal.execution_id) as seat:
            committed = await self._journal.commit(proposal)
            if not committed.ticks:
                # Closed from outside while this run went on: there is nothing left that it could do.
                raise ApplicationError("the execution is closed", type="EXECUTION_CLOSED", non_retryable=True)
            consumed = _consumed(proposal, committed)
            seat.covered(consumed)
            if self._speeds is not None and committed.own:
                _note_durations(self._speeds, proposal)
            if self._hooks is not None and committed.own and proposal.hook_entries:
                await asyncio.gather(self._hooks.queue(proposal), self._dispatcher.write(proposal, committed))
            else:
                await self._dispatcher.write(proposal, committed)
            if self._circuits is not None and committed.own:
                await self._circuits.count(proposal)
            if consumed:
                self._acknowledged(proposal.tenant, proposal.execution_id, consumed)
            return committed, await seat.collect(proposal.linger_ms / 1000 if _goes_on(committed) else 0.0)

    @activity.defn(name=activity_names.READ_CONTROL)
    async def read_control(self, request: CheckpointRequest) -> Control | None:
        try:
            return await self._executions.pending_control(request.tenant, UUID(request.execution_id))
        except EngineError as error:
            raise as_application_error(error) from error

    @activity.defn(name=activity_names.LOAD_CHECKPOINT)
    async def load_checkpoint(self, request: CheckpointRequest) -> Checkpoint:
        try:
            found = await self._executions.checkpoint(
                request.tenant, UUID(request.execution_id), UUID(request.checkpoint_id)
            )
        except EngineError as error:
            raise as_application_error(error) from error
        return Checkpoint(
            checkpoint_id=str(found.checkpoint_id), reason="requested", completed=tuple(found.completed_tasks)
        )


def _note_durations(speeds: SpeedBook, proposal: TickProposal) -> None:
    """How long the tasks took that this tick tells the end of, and at which hosts."""
    submitted = (item for item in proposal.delta.submitted if item.attempt and not item.failed)
    ended: list[Done | Submission] = [*proposal.delta.done, *submitted]
    for item in ended:
        host_id = proposal.hosts.get(item.agent_id)
        if host_id is not None:
            role = item.agent_id.rpartition("-")[0]
            duration_ms = max(item.at_ms - item.started_at_ms, 0)
            speeds.note(proposal.tenant, proposal.execution_id, role, host_id, duration_ms)


def _goes_on(committed: Committed) -> bool:
    """Nothing has come between: the tick was stored as proposed, and nobody asks for anything."""
    return committed.own and committed.control is None and not (committed.status and committed.status.closed)


def _outcome(
    committed: Committed,
    stored: Sequence[str],
    batches: Sequence[InboxBatch],
    *,
    more: bool,
    circuits: tuple[CircuitView, ...] = (),
) -> TickOutcome:
    return TickOutcome(
        ticks=tuple(stored),
        control=committed.control,
        events=tuple(batches),
        more=more,
        circuits=circuits,
        now_ms=committed.now_ms,
    )


def _not_as_assumed(proposal: TickProposal, circuits: tuple[CircuitView, ...]) -> TickOutcome:
    """Nothing is committed: the workflow decides the same tick anew."""
    return TickOutcome(ticks=(), circuits=circuits, now_ms=proposal.delta.at_ms)


def _consumed(proposal: TickProposal, committed: Committed) -> list[str]:
    """Entries that are done with: those of the proposal when it was stored, else those of the stored ticks."""
    if committed.own:
        return list(proposal.acknowledge)
    return [entry_id for delta in committed.ticks for entry_id in delta.consumed]
