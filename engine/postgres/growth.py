"""What a tick writes when it changes the graph: added tasks, groups, external events, reusable results."""

from typing import Any
from uuid import UUID

from engine.contracts.dynamic import GraphWrites
from engine.contracts.kernel import TickProposal
from engine.postgres.documents import raw_document, storable_text


def changes_graph(proposal: TickProposal) -> bool:
    delta = proposal.delta
    return bool(
        proposal.writes is not None
        or delta.expanded
        or delta.spawned
        or delta.asked
        or delta.triggered
        or (delta.rewind is not None and proposal.growth)
    )


def growth_arguments(proposal: TickProposal) -> list[Any]:
    """Of `write_growth`."""
    delta, writes, rewind = proposal.delta, proposal.writes or GraphWrites(), proposal.delta.rewind
    blocks = [(blocked, body.task_id) for body in writes.bodies for blocked in body.blocks]
    return [
        proposal.tenant,
        UUID(proposal.execution_id),
        proposal.tick,
        rewind is not None,
        list(rewind.dropped) if rewind else [],
        list(rewind.tasks) if rewind else [],
        [body.task_id for body in writes.bodies],
        [body.spawned_by for body in writes.bodies],
        [raw_document(body.body) for body in writes.bodies],
        [blocked for blocked, _ in blocks],
        [blocker for _, blocker in blocks],
        [item.task_id for item in delta.expanded],
        [item.size for item in delta.expanded],
        [item.items_ref for item in delta.expanded],
        [storable_text(event.event_id) for event in writes.received],
        [event.type for event in writes.received],
        [event.at_ms for event in writes.received],
        [raw_document(event.payload) for event in writes.received],
        [storable_text(item.event_id) for item in delta.triggered],
        [item.task_id for item in delta.triggered],
        list(writes.reusable),
    ]
