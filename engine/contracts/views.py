"""What the API answers about definitions and executions. Field names are the specification's (section 4.1)."""

from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import Field

from engine.contracts.capacity import RoleAllotment
from engine.contracts.execution import AgentStatus, ExecutionStatus, Priority, TaskState
from engine.contracts.model import Model
from engine.contracts.plan import EstimatedResources

Item = TypeVar("Item")


class Page(Model, Generic[Item]):
    """One page of a listing. The token is opaque, `[A-Za-z0-9_-]+`, and null on the last page."""

    items: tuple[Item, ...]
    next_page_token: str | None = None


class ValidationReport(Model):
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    optimizations: tuple[str, ...] = ()


class WorkflowCreated(Model):
    """Result of `workflow.create`."""

    workflow_id: UUID
    status: str = "validated"
    validation_report: ValidationReport
    estimated_resources: EstimatedResources


class WorkflowSummary(Model):
    workflow_id: UUID
    name: str
    version: str
    orchestration_pattern: str
    task_count: int
    created_at: datetime
    updated_at: datetime
    created_by: str


class WorkflowDetail(WorkflowSummary):
    definition: dict[str, Any]
    estimated_resources: EstimatedResources


class AllocatedAgent(Model):
    agent_id: str
    role: str
    status: str


class QueuePlace(Model):
    """Where an execution stands that waits for capacity."""

    priority: Priority
    queued_at: datetime
    ahead: int = Field(description="the tenant's own executions that are before it; others' are not shown")


class ExecutionStarted(Model):
    """Result of `workflow.execute`."""

    execution_id: UUID
    workflow_id: UUID
    status: ExecutionStatus
    allocated_agents: tuple[AllocatedAgent, ...]
    execution_url: str
    estimated_completion: datetime
    queued: bool = Field(False, description="it waits for capacity")
    allotment: dict[str, RoleAllotment] = Field(default_factory=dict, description="agents of each role")


class AgentProgress(Model):
    agent_id: str
    role: str
    status: AgentStatus
    current_task: str | None = None
    progress: float = 0.0


class PerformanceMetrics(Model):
    total_runtime_seconds: int
    agents_allocated: int
    tasks_completed: int
    tasks_failed: int
    coordination_overhead: float = Field(description="percentage of the runtime in which no task ran")


class TaskProgress(Model):
    task_id: str
    state: TaskState
    attempt: int
    agent_id: str | None = None
    progress: float = 0.0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    result: Any = None
    result_ref: str | None = Field(None, description="where a large result is stored, instead of `result`")
    error: dict[str, Any] | None = None


class TaskResultView(Model):
    """Answer of `execution.result`: what a completed task answered, however large it is."""

    task_id: str
    state: TaskState
    attempt: int
    result: Any = None


class ExecutionView(Model):
    """Result of `workflow.status`, from the read model."""

    workflow_id: UUID
    execution_id: UUID
    status: ExecutionStatus
    current_phase: str | None = None
    agents: tuple[AgentProgress, ...] = ()
    task_states: dict[str, TaskState] = Field(default_factory=dict)
    task_counts: dict[str, int] = Field(default_factory=dict)
    performance_metrics: PerformanceMetrics
    awaiting: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="tasks that wait for external events, and for which; the first 50"
    )
    error_details: dict[str, Any] | None = None
    epoch: int = 1
    latest_checkpoint_id: UUID | None = None
    trace_id: UUID
    started_at: datetime
    completed_at: datetime | None = None
    queue: QueuePlace | None = Field(None, description="while it waits for capacity")
    allotment: dict[str, RoleAllotment] = Field(default_factory=dict, description="agents of each role")


class ExecutionSummary(Model):
    execution_id: UUID
    workflow_id: UUID
    workflow_name: str
    orchestration_pattern: str
    status: ExecutionStatus
    started_at: datetime
    completed_at: datetime | None = None
    tasks_total: int
    tasks_completed: int
    tasks_failed: int


class ExecutionPaused(Model):
    """Result of `workflow.pause`."""

    execution_id: UUID
    status: ExecutionStatus
    checkpoint_id: UUID
    checkpoint_timestamp: datetime
    resume_url: str


class ExecutionResumed(Model):
    """Result of `workflow.resume`."""

    execution_id: UUID
    status: ExecutionStatus
    resumed_at: datetime
    recovered_tasks: int = Field(description="completed tasks whose results are kept and do not run again")
    repeated_side_effects: tuple[str, ...] = Field(
        (), description="tasks done after the checkpoint that will run again"
    )


class ExecutionCancelled(Model):
    execution_id: UUID
    status: ExecutionStatus


class ExecutionEvent(Model):
    """One item of the execution's audit log."""

    sequence: int
    epoch: int
    event_type: str
    timestamp: datetime
    recorded_at: datetime
    payload: dict[str, Any]
    trace_id: UUID


class EventSent(Model):
    """Answer of `execution.send_event`."""

    event_id: str


class CheckpointView(Model):
    checkpoint_id: UUID
    execution_id: UUID
    reason: str
    epoch: int
    completed_tasks: tuple[str, ...]
    in_flight: tuple[dict[str, Any], ...]
    recovery_instructions: dict[str, Any]
    created_at: datetime


class OperationRecord(Model):
    """Who did what from where to what, with which outcome."""

    actor: str
    roles: tuple[str, ...]
    address: str
    operation: str
    subject_type: str
    subject_id: str | None = None
    outcome: str = Field(description='"ok" or the error\'s stable code')
    request_id: str
    details: dict[str, Any] = Field(default_factory=dict)
