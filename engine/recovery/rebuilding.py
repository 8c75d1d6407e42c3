"""What clients read of an execution, made again from its events alone.

The read model is written by the same transactions that append to the audit log. This is the other way to it: one pass
over the log, in order. It shows that the log leaves nothing out, and says what the rows must be should they ever be
doubted. A test compares the two.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.views import ExecutionEvent

_UNFINISHED: Final = frozenset({TaskState.PENDING, TaskState.RUNNING})


@dataclass(slots=True)
class RebuiltTask:
    state: TaskState = TaskState.PENDING
    attempt: int = 0
    agent_id: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    result: Any = None
    result_ref: str | None = None
    error: dict[str, Any] | None = None

    def begin(self, state: TaskState, attempt: int) -> None:
        """Anew: only the last error stays."""
        error = self.error
        self.__init__(state, attempt)  # type: ignore[misc]  # all fields as they are at first
        self.error = error


@dataclass(slots=True)
class RebuiltExecution:
    status: ExecutionStatus = ExecutionStatus.PLANNING
    epoch: int = 1
    last_sequence: int = 0
    tasks: dict[str, RebuiltTask] = field(default_factory=dict)
    """Those of which the log says something: the others are pending."""
    agents: dict[str, tuple[str, str | None, str]] = field(default_factory=dict)
    """Agent -> role, host, and whether that is there (`assigned`) or lost (`failed`)."""
    checkpoints: list[str] = field(default_factory=list)

    def task(self, task_id: str) -> RebuiltTask:
        return self.tasks.setdefault(task_id, RebuiltTask())


def rebuilt(events: Iterable[ExecutionEvent]) -> RebuiltExecution:
    """From all events of an execution, in order. Raises ValueError when one is missing."""
    execution = RebuiltExecution()
    for event in events:
        if event.sequence != execution.last_sequence + 1:
            raise ValueError(f"event {event.sequence} follows event {execution.last_sequence}")
        execution.last_sequence = event.sequence
        execution.epoch = max(execution.epoch, event.epoch)
        apply = _RULES.get(event.event_type)
        if apply is not None:
            apply(execution, event, event.payload)
    return execution


Payload = Mapping[str, Any]
Rule = Callable[[RebuiltExecution, ExecutionEvent, Payload], None]


def _status(execution: RebuiltExecution, event: ExecutionEvent, payload: Payload) -> None:
    execution.status = ExecutionStatus(payload["new_status"])
    if execution.status is ExecutionStatus.CANCELLED:
        # By a tick each of them is told of; from outside, all that was not finished is meant.
        for task in execution.tasks.values():
            if task.state in _UNFINISHED:
                task.state, task.completed_at = TaskState.CANCELLED, event.timestamp


def _bound(execution: RebuiltExecution, _: ExecutionEvent, payload: Payload) -> None:
    execution.agents[payload["agent_id"]] = (payload["role"], payload.get("host_id"), "assigned")


def _lost(execution: RebuiltExecution, _: ExecutionEvent, payload: Payload) -> None:
    agent_id = payload.get("agent_id")
    if agent_id in execution.agents:
        role, host_id, _status = execution.agents[agent_id]
        execution.agents[agent_id] = (role, host_id, "failed")


def _assigned(execution: RebuiltExecution, _: ExecutionEvent, payload: Payload) -> None:
    task = execution.task(payload["task_id"])
    task.begin(TaskState.RUNNING, payload["attempt"])
    task.agent_id = payload["agent_id"]


def _started(execution: RebuiltExecution, event: ExecutionEvent, payload: Payload) -> None:
    task = execution.task(payload["task_id"])
    task.state, task.attempt, task.started_at = TaskState.RUNNING, payload["attempt"], event.timestamp


def _ended(execution: RebuiltExecution, event: ExecutionEvent, payload: Payload) -> None:
    task = execution.task(payload["task_id"])
    task.attempt = payload.get("attempt") or task.attempt
    task.agent_id = payload.get("agent_id") or task.agent_id
    task.completed_at = event.timestamp
    if payload.get("status") == "success":
        task.state, task.error = TaskState.COMPLETED, None
        task.result, task.result_ref = payload.get("result"), payload.get("result_ref")
        return
    error = payload.get("error") or {}
    task.state = TaskState.FAILED
    task.error = {
        "code": error.get("code"),
        "message": error.get("message"),
        "retryable": False,
        "attempt": payload.get("attempt"),
        "agent_id": payload.get("agent_id") or "",
    }


def _retried(execution: RebuiltExecution, _: ExecutionEvent, payload: Payload) -> None:
    task = execution.task(payload["task_id"])
    task.begin(TaskState.PENDING, payload["attempt"])
    if task.error is not None:
        task.error["retryable"] = True


def _returned(execution: RebuiltExecution, _: ExecutionEvent, payload: Payload) -> None:
    execution.task(payload["task_id"]).begin(TaskState.PENDING, payload["attempt"])


def _expanded(execution: RebuiltExecution, event: ExecutionEvent, payload: Payload) -> None:
    task = execution.task(payload["task_id"])
    task.state, task.started_at = TaskState.RUNNING, event.timestamp


def _closed(state: TaskState) -> Rule:
    def apply(execution: RebuiltExecution, event: ExecutionEvent, payload: Payload) -> None:
        task = execution.task(payload["task_id"])
        task.state, task.completed_at = state, event.timestamp

    return apply


def _rewound(execution: RebuiltExecution, _: ExecutionEvent, payload: Payload) -> None:
    for task_id in payload.get("repeated_tasks", ()):
        task = execution.task(task_id)
        task.begin(TaskState.PENDING, 0)
        task.error = None


def _checkpoint(execution: RebuiltExecution, _: ExecutionEvent, payload: Payload) -> None:
    execution.checkpoints.append(payload["checkpoint_id"])


def _undoing(state: TaskState) -> Rule:
    def apply(execution: RebuiltExecution, _: ExecutionEvent, payload: Payload) -> None:
        execution.task(payload["task_id"]).state = state

    return apply


_RULES: Final[Mapping[str, Rule]] = {
    AuditEventType.STATUS_CHANGED: _status,
    AuditEventType.AGENT_BOUND: _bound,
    AuditEventType.AGENT_DISCONNECTED: _lost,
    AuditEventType.TASK_ASSIGNED: _assigned,
    AuditEventType.TASK_STARTED: _started,
    AuditEventType.TASK_COMPLETED: _ended,
    AuditEventType.RETRY_SCHEDULED: _retried,
    AuditEventType.TASK_RETURNED: _returned,
    AuditEventType.TASK_EXPANDED: _expanded,
    AuditEventType.TASK_SKIPPED: _closed(TaskState.SKIPPED),
    AuditEventType.TASK_CANCELLED: _closed(TaskState.CANCELLED),
    AuditEventType.RESUMED_FROM_CHECKPOINT: _rewound,
    AuditEventType.CHECKPOINT_CREATED: _checkpoint,
    AuditEventType.COMPENSATION_RETRY_SCHEDULED: _undoing(TaskState.COMPENSATING),
    AuditEventType.COMPENSATION_FAILED: _undoing(TaskState.COMPENSATING),
    AuditEventType.COMPENSATION_COMPLETED: _undoing(TaskState.COMPENSATED),
}
