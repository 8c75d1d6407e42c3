"""Events: what agents report, what the audit log of an execution holds, what watchers are told.

The wire format that agents in any language write stands in `docs/agent-protocol.md`; decoding it is
`engine.events.wire`'s job. Times are whole milliseconds since the epoch, UTC.
"""

from enum import StrEnum
from typing import Any

from pydantic import Field

from engine.contracts.model import Model


class AgentEventType(StrEnum):
    """What an agent may report of a task."""

    TASK_STARTED = "agent.task_started"
    TASK_PROGRESS = "agent.task_progress"
    TASK_COMPLETED = "agent.task_completed"
    TASK_FAILED = "agent.task_failed"
    TASK_RETURNED = "agent.task_returned"
    """Not started and given back, because the execution is paused or the agent is stopping."""
    DISCONNECTED = "agent.disconnected"
    """A host process is gone; `host_id` names it. Written by the engine's own registry, or by a host that stops."""
    REGISTERED = "agent.registered"
    """A host process that can serve the execution has come; written by the registry."""
    SUSPECT = "agent.suspect"
    """A host process has been silent for longer than it usually is; written by the registry."""
    RECOVERED = "agent.recovered"
    """It has been heard again; written by the registry."""
    SPEED = "agent.speed"
    """A host process works at another speed than was thought (`speed`); written by the registry."""
    CIRCUIT_CLOSED = "circuit_breaker.closed"
    """The breaker of `service`, for which the execution waits, is closed; written by whoever closes it."""


class TaskError(Model):
    code: str = Field(max_length=100)
    message: str = ""
    retryable: bool = True


class AgentEvent(Model):
    """One report about one attempt, or about a host."""

    type: AgentEventType
    at_ms: int
    task_id: str = ""
    agent_id: str = ""
    epoch: int = 1
    attempt: int = 0
    started_at_ms: int | None = Field(None, description="on completed and failed: when the attempt started")
    result: Any = None
    result_ref: str | None = Field(None, description="where a large result is stored, instead of `result`")
    error: TaskError | None = None
    spawn: tuple[dict[str, Any], ...] | None = Field(None, description="on completed: tasks to add to the graph")
    host_id: str = ""
    reason: str = Field("", description="on disconnected: why the host is gone, where that is known")
    speed: float = Field(1.0, gt=0, le=1, description="of a host: 1.0 is that of most of its type")
    service: str = Field("", description="on a breaker's closing: which")


class InboxBatch(Model):
    """The events of one stream entry, on their way to a workflow."""

    entry_id: str = Field(description='the stream\'s own id, "<ms>-<sequence>"; orders the entries of a partition')
    partition: int
    fence: int = Field(description="epoch of the partition's owner; batches of an older owner are dropped")
    low: str = Field(description="no entry of this execution below this id is unacknowledged")
    events: tuple[AgentEvent, ...]


class AuditEventType(StrEnum):
    """Facts of one execution, in the audit log and on the streams."""

    EXECUTION_STARTED = "workflow.execution_started"
    STATUS_CHANGED = "workflow.status_changed"
    CHECKPOINT_CREATED = "workflow.checkpoint_created"
    TASK_ASSIGNED = "agent.task_assigned"
    TASK_STARTED = "agent.task_started"
    TASK_COMPLETED = "task.completed"
    TASK_SUBMITTED = "task.submitted"
    """An attempt has brought a result, and the pattern judges it."""
    TASK_RETURNED = "task.returned"
    TASK_SKIPPED = "task.skipped"
    TASK_CANCELLED = "task.cancelled"
    TASK_EXPANDED = "task.expanded"
    TASK_SPAWNED = "task.spawned"
    TASK_TRIGGERED = "task.triggered"
    EXTERNAL_EVENT_RECEIVED = "external.event_received"
    EXTERNAL_EVENT_DROPPED = "external.event_dropped"
    RETRY_SCHEDULED = "task.retry_scheduled"
    AGENT_BOUND = "agent.bound"
    AGENT_DISCONNECTED = "agent.disconnected"
    AGENT_SUSPECT = "agent.suspect"
    """Its host is silent for longer than it usually is: it gets nothing new until it is heard again."""
    AGENT_RECOVERED = "agent.recovered"
    LATE_RESULT_REFUSED = "task.late_result_refused"
    RESUMED_FROM_CHECKPOINT = "workflow.resumed_from_checkpoint"
    VOTE_PROPOSED = "vote.proposed"
    VOTE_CAST = "vote.cast"
    VOTE_REFUSED = "vote.refused"
    """It came late, or was no vote."""
    VOTE_COUNTED = "vote.counted"
    MESSAGE_SENT = "message.sent"
    MESSAGE_REFUSED = "message.refused"
    CONVERSATION_ENDED = "conversation.ended"
    REVIEW_GIVEN = "review.given"
    REVIEW_REFUSED = "review.refused"
    """What the supervising agent answered makes no sense."""
    HANDOFF_ACCEPTED = "handoff.accepted"
    HANDOFF_REJECTED = "handoff.rejected"
    HANDOFF_ROLLED_BACK = "handoff.rolled_back"
    COMPENSATION_STARTED = "saga.compensation_started"
    COMPENSATION_COMPLETED = "saga.compensation_completed"
    COMPENSATION_RETRY_SCHEDULED = "saga.compensation_retry_scheduled"
    COMPENSATION_FAILED = "saga.compensation_failed"
    """It keeps failing: somebody must look at it."""
    COMPENSATION_RETRIED = "saga.compensation_retried"
    """An operator has it tried again."""
    FORWARD_RECOVERY = "saga.forward_recovery"
    """A step that was given up is done again instead of undoing what was before it."""
    ESCALATION_RAISED = "escalation.raised"
    """A failure goes to the next level up."""
    ESCALATION_DECIDED = "escalation.decided"
    """What the superior made of it, and whether that was allowed."""
    DELEGATION_DECIDED = "delegation.decided"
    """Whom a lead gave a task, and whether that was allowed."""
    CIRCUIT_OPENED = "circuit_breaker.opened"
    """Of an agent type: its tasks wait, go elsewhere or fail, as the definition says."""
    CIRCUIT_HALF_OPEN = "circuit_breaker.half_open"
    CIRCUIT_CLOSED = "circuit_breaker.closed"
    ERROR_OCCURRED = "error.occurred"
    HOOK_TRIGGERED = "hook.triggered"
    """An event that an asynchronous hook matches; the hook is queued."""
    HOOK_EXECUTED = "hook.executed"
    HOOK_VETOED = "hook.vetoed"
    """A blocking hook did not let something happen."""
    HOOK_SWITCHED_OFF = "hook.switched_off"
    """Its circuit opened after repeated failures."""


class AuditEvent(Model):
    """A fact that a tick commits. `sequence` and `recorded_at` are given by the database."""

    type: AuditEventType
    at_ms: int
    payload: dict[str, Any] = Field(default_factory=dict)
