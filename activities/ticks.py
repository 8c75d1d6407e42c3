"""The activities of a tick: commit, then tell the hosts, then wait a moment for what comes back."""

from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from engine.contracts import activity_names
from engine.contracts.kernel import Checkpoint, CheckpointRequest, Control, TickOutcome, TickProposal
from engine.errors import EngineError
from engine.events.dispatch import Dispatcher
from engine.events.lingering import Lingering
from engine.ports import Acknowledged, Committed, ExecutionStore, Journal, Nudger


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
        nudger: Nudger,
        acknowledged: Acknowledged,
    ) -> None:
        self._journal = journal
        self._executions = executions
        self._dispatcher = dispatcher
        self._lingering = lingering
        self._nudger = nudger
        self._acknowledged = acknowledged

    @activity.defn(name=activity_names.COMMIT_TICK)
    async def commit_tick(self, proposal: TickProposal) -> TickOutcome:
        """Idempotent by (execution, tick): a repetition answers what is stored and redoes its stream writes."""
        try:
            committed = await self._journal.commit(proposal)
            if not committed.ticks:
                # Closed from outside while this run went on: there is nothing left that it could do.
                raise ApplicationError("the execution is closed", type="EXECUTION_CLOSED", non_retryable=True)
            with self._lingering.open(proposal.tenant, proposal.execution_id) as seat:
                await self._dispatcher.write(proposal, committed.ticks, own=committed.own)
                await self._tell(proposal, committed)
                patient = committed.own and committed.control is None
                batches = await seat.collect(proposal.linger_ms / 1000 if patient else 0.0)
        except EngineError as error:
            raise as_application_error(error) from error
        return TickOutcome(
            ticks=committed.ticks,
            control=committed.control,
            events=tuple(batches),
            more=committed.more,
            now_ms=committed.now_ms,
        )

    async def _tell(self, proposal: TickProposal, committed: Committed) -> None:
        consumed = proposal.acknowledge if committed.own else [e for t in committed.ticks for e in t.consumed]
        if consumed:
            self._acknowledged(proposal.tenant, proposal.execution_id, list(consumed))
        await self._nudger.nudge(proposal.tenant, proposal.execution_id, {"sequence": committed.last_sequence})

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
