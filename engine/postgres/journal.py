"""The tick journal: what makes each step of an execution happen once."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Control, Delta, TickProposal, delta_text
from engine.contracts.views import ExecutionEvent
from engine.errors import InvalidParametersError, InvalidTransitionError, NotFoundError
from engine.ports import Committed
from engine.postgres.compensations import leave_compensations
from engine.postgres.documents import raw_document, reported_document, storable_text
from engine.postgres.growth import changes_graph, growth_arguments
from engine.postgres.hooks import delivery_arguments
from engine.postgres.literals import documents, numbers, plain, texts
from engine.postgres.pool import Connection, Database, check_tenant
from engine.postgres.readmodel import TaskChange, changes_nothing, checkpoint_documents, task_changes

ANSWER_TICKS_MAX: Final = 200
ANSWER_BYTES_MAX: Final = 1024 * 1024
"""Of stored deltas in one answer; the first one always comes, whatever its size."""
LOAD_TICKS_MAX: Final = 1000
PHASE_LENGTH_MAX: Final = 255

Value = TypeVar("Value")


class PostgresJournal:
    """Implements `engine.ports.Journal`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def commit(self, proposal: TickProposal) -> Committed:
        """Raises NotFoundError, InvalidTransitionError (a gap in the ticks), UnavailableError."""
        check_tenant(proposal.tenant)
        text = proposal.delta_text or delta_text(proposal.delta)
        facts = [raw_document(event.payload) for event in proposal.audit]
        arguments = _commit_arguments(proposal, text, facts)
        async with self._database.connection() as connection:
            if changes_graph(proposal) or proposal.delta.left:
                row = await self._commit_with_more(connection, proposal, arguments)
            elif proposal.hook_entries:
                query = self._database.queries["journal.commit_tick_and_deliver"]
                row = await connection.fetchrow(query, *arguments, *delivery_arguments(proposal)[3:])
            else:
                row = await connection.fetchrow(self._database.queries["journal.commit_tick"], *arguments)
        return _committed(proposal, text, facts, row)

    async def _commit_with_more(
        self, connection: Connection, proposal: TickProposal, arguments: list[Any]
    ) -> asyncpg.Record | None:
        """Few ticks change the graph or leave compensations: they need a transaction of further statements."""
        queries = self._database.queries
        async with connection.transaction():
            row = await connection.fetchrow(queries["journal.commit_tick"], *arguments)
            if row is not None and row["outcome"] == "own":
                if changes_graph(proposal):
                    await connection.execute(queries["journal.write_growth"], *growth_arguments(proposal))
                if proposal.delta.left:
                    execution_id = _uuid(proposal.execution_id)
                    await leave_compensations(connection, queries, proposal.tenant, execution_id, proposal.delta.left)
                if proposal.hook_entries:
                    await connection.execute(queries["hooks.deliver"], *delivery_arguments(proposal))
        return row

    async def load_stream_writes(self, tenant: str, execution_id: UUID, ticks: Sequence[int]) -> Sequence[Delta]:
        """The stored deltas of these ticks, in order; ticks that are not stored are left out."""
        if len(ticks) > LOAD_TICKS_MAX:
            raise InvalidParametersError(f"at most {LOAD_TICKS_MAX} ticks at once")
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._database.queries["journal.deltas"], tenant, execution_id, list(ticks))
        return [parse_delta(row["delta"]) for row in rows]


def parse_delta(text: str) -> Delta:
    return Delta.model_validate_json(text)


def _commit_arguments(proposal: TickProposal, text: str, facts: Sequence[bytes]) -> list[Any]:
    delta = proposal.delta
    return [
        proposal.tenant,
        _uuid(proposal.execution_id),
        proposal.tick,
        proposal.base_tick,
        proposal.epoch,
        text,
        changes_nothing(delta),
        delta.status.value if delta.status else None,
        storable_text(proposal.current_phase)[:PHASE_LENGTH_MAX] if proposal.current_phase is not None else None,
        raw_document(proposal.metrics.model_dump()),
        reported_document(delta.error.model_dump(mode="json")) if delta.error else None,
        delta.control_seen,
        plain([event.type.value for event in proposal.audit]),
        numbers([event.at_ms for event in proposal.audit]),
        documents(facts),
        *_task_columns(task_changes(proposal)),
        [binding.agent_id for binding in delta.bound],
        [binding.role for binding in delta.bound],
        [binding.host_id for binding in delta.bound],
        list(delta.gone),
        *_checkpoint_arguments(proposal),
        ANSWER_TICKS_MAX,
        ANSWER_BYTES_MAX,
    ]


def _task_columns(changes: Sequence[TaskChange]) -> list[str]:
    """Nothing at all for a column of NULLs: unnest fills up shorter arrays with them."""
    return [
        texts([change.task_id for change in changes]),
        plain([change.state.value for change in changes]),
        plain(["t" if change.reset else "f" for change in changes]),
        numbers(_sparse([change.attempt for change in changes])),
        texts(_sparse([change.agent_id for change in changes])),
        numbers(_sparse([change.assigned_ms for change in changes])),
        numbers(_sparse([change.started_ms for change in changes])),
        numbers(_sparse([change.completed_ms for change in changes])),
        documents(_sparse([change.result for change in changes])),
        texts(_sparse([change.result_ref for change in changes])),
        documents(_sparse([change.error for change in changes])),
    ]


def _sparse(column: list[Value | None]) -> list[Value | None]:
    return [] if column.count(None) == len(column) else column


def _checkpoint_arguments(proposal: TickProposal) -> list[Any]:
    checkpoint = proposal.delta.checkpoint
    if checkpoint is None:
        return [None, None, None, None]
    snapshot, instructions = checkpoint_documents(proposal)
    return [_uuid(checkpoint.checkpoint_id), checkpoint.reason, raw_document(snapshot), raw_document(instructions)]


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidParametersError("not a UUID") from error


def _committed(proposal: TickProposal, text: str, facts: Sequence[bytes], row: asyncpg.Record | None) -> Committed:
    outcome = row["outcome"] if row is not None else "missing"
    if row is None or outcome == "missing":
        raise NotFoundError("no such execution")
    if outcome == "gap":
        raise InvalidTransitionError(
            f"tick {proposal.tick} does not follow tick {row['last_tick']}", last_tick=row["last_tick"]
        )
    own = outcome == "own"
    texts = (text,) if own else tuple(row["ticks"])
    control = None
    if row["control_request_id"] is not None:
        checkpoint_id = row["control_checkpoint_id"]
        control = Control(
            request_id=row["control_request_id"],
            action=row["control_action"],
            checkpoint_id=str(checkpoint_id) if checkpoint_id else None,
            reason=row["control_reason"],
        )
    ticks = (proposal.delta,) if own else tuple(parse_delta(stored) for stored in texts)
    return Committed(
        ticks=ticks,
        own=own,
        more=bool(ticks) and ticks[-1].tick < row["last_tick"],
        control=control,
        last_sequence=row["last_sequence"],
        stored_texts=texts,
        now_ms=row["now_ms"],
        status=ExecutionStatus(row["status"]),
        facts=tuple(facts) if own else (),
        earlier=_earlier(proposal, row["earlier"]) if own and row["earlier"] else (),
    )


def _earlier(proposal: TickProposal, items: Sequence[dict[str, Any]]) -> tuple[ExecutionEvent, ...]:
    return tuple(ExecutionEvent.model_validate({**item, "trace_id": proposal.trace_id}) for item in items)
