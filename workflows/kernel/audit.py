"""The facts that a tick commits, in causal order, with the payloads that clients see."""

from typing import Any

from engine.contracts.dynamic import Arrival, Triggered
from engine.contracts.events import AuditEvent, AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import (
    AgentBinding,
    Attempt,
    Checkpoint,
    Done,
    Failed,
    Rewind,
    Spawned,
    Submission,
    TaskResult,
    TerminalError,
)
from workflows.kernel.state import RunState


class AuditTrail:
    """Collects one tick's facts."""

    def __init__(self, state: RunState, now_ms: int) -> None:
        self.state = state
        self.now_ms = now_ms
        self.events: list[AuditEvent] = []

    def add(self, kind: AuditEventType, at_ms: int | None = None, **payload: Any) -> None:
        self.events.append(
            AuditEvent.trusted(type=kind, at_ms=self.now_ms if at_ms is None else at_ms, payload=payload)
        )

    def status_changed(self, previous: ExecutionStatus, new: ExecutionStatus) -> None:
        self.add(AuditEventType.STATUS_CHANGED, previous_status=previous.value, new_status=new.value)

    def execution_started(self) -> None:
        launch = self.state.launch
        roles = launch.plan.roles.values()
        constrained: dict[str, Any] = {}
        if any(role.wanted is not None for role in roles):
            constrained["agents_wanted"] = sum(role.wanted or role.count for role in roles)
        self.add(
            AuditEventType.EXECUTION_STARTED,
            orchestration_pattern=launch.pattern,
            workflow_name=launch.workflow_name,
            tasks_total=len(self.state.tasks),
            agents_total=len(self.state.agents),
            **constrained,
        )

    def bound(self, binding: AgentBinding) -> None:
        self.add(AuditEventType.AGENT_BOUND, agent_id=binding.agent_id, role=binding.role, host_id=binding.host_id)

    def host_lost(self, agent_id: str, host_id: str | None, reason: str = "") -> None:
        known: dict[str, Any] = {"reason": reason} if reason else {}
        self.add(AuditEventType.AGENT_DISCONNECTED, agent_id=agent_id, host_id=host_id, **known)

    def host_suspect(self, agent_id: str, host_id: str | None) -> None:
        self.add(AuditEventType.AGENT_SUSPECT, agent_id=agent_id, host_id=host_id)

    def host_recovered(self, agent_id: str, host_id: str | None) -> None:
        self.add(AuditEventType.AGENT_RECOVERED, agent_id=agent_id, host_id=host_id)

    def assigned(self, attempt: Attempt) -> None:
        specs = self.state.specs
        task = specs[self.state.index[attempt.task_id]]
        self.add(
            AuditEventType.TASK_ASSIGNED,
            task_id=attempt.task_id,
            agent_id=attempt.agent_id,
            attempt=attempt.attempt,
            dependencies=[specs[d].id for d in task.deps],
            estimated_duration_seconds=task.estimate_ms / 1000,
        )

    def started(self, task_id: str, agent_id: str, attempt: int, at_ms: int) -> None:
        self.add(AuditEventType.TASK_STARTED, at_ms, task_id=task_id, agent_id=agent_id, attempt=attempt)

    def completed(self, item: Done, result: TaskResult) -> None:
        payload: dict[str, Any] = {
            "task_id": item.task_id,
            "agent_id": item.agent_id,
            "attempt": item.attempt,
            "status": "success",
            "duration_seconds": max(item.at_ms - item.started_at_ms, 0) / 1000,
        }
        payload |= _where(result)
        self.add(AuditEventType.TASK_COMPLETED, item.at_ms, **payload)

    def submitted(self, item: Submission) -> None:
        self.add(
            AuditEventType.TASK_SUBMITTED,
            item.at_ms,
            task_id=item.task_id,
            agent_id=item.agent_id,
            attempt=item.attempt,
            **({"result": item.result} if item.result_ref is None else {"result_ref": item.result_ref}),
        )

    def settled(self, item: Submission, result: TaskResult | None = None) -> None:
        """The pattern is content: with the attempt's result, or with one of its own."""
        # The attempt's own end is told already where it has failed: this is the task's.
        attempt = 0 if item.failed else item.attempt
        payload: dict[str, Any] = {"task_id": item.task_id, "attempt": attempt, "status": "success"}
        if item.agent_id and not item.failed:
            payload["agent_id"] = item.agent_id
            payload["duration_seconds"] = max(item.at_ms - item.started_at_ms, 0) / 1000
        if result is not None:
            payload |= _where(result)
        else:
            payload |= {"result": item.result} if item.result_ref is None else {"result_ref": item.result_ref}
        self.add(AuditEventType.TASK_COMPLETED, **payload)

    def rejected(self, item: Submission, code: str, message: str) -> None:
        """The pattern is not content with what an attempt brought."""
        self.add(
            AuditEventType.TASK_COMPLETED,
            task_id=item.task_id,
            agent_id=item.agent_id or None,
            attempt=item.attempt,
            status="failed",
            error={"code": code, "message": message},
            duration_seconds=max(item.at_ms - item.started_at_ms, 0) / 1000,
        )

    def attempt_failed(self, item: Failed, started_at_ms: int | None) -> None:
        duration_ms = 0 if started_at_ms is None else max(item.at_ms - started_at_ms, 0)
        self.add(
            AuditEventType.TASK_COMPLETED,
            item.at_ms,
            task_id=item.task_id,
            agent_id=item.agent_id or None,
            attempt=item.attempt,
            status="failed",
            error={"code": item.code, "message": item.message},
            duration_seconds=duration_ms / 1000,
        )

    def failed(self, item: Failed, started_at_ms: int | None) -> None:
        """An attempt that failed; and when it runs again."""
        self.attempt_failed(item, started_at_ms)
        if item.retry_at_ms is None:
            self.given_up(item)
        else:
            self.add(
                AuditEventType.RETRY_SCHEDULED,
                task_id=item.task_id,
                attempt=item.attempt,
                delay_seconds=max(item.retry_at_ms - self.now_ms, 0) / 1000,
            )

    def given_up(self, item: Failed) -> None:
        where: dict[str, Any] = {"task_id": item.task_id, "agent_id": item.agent_id or None, "attempt": item.attempt}
        self.add(AuditEventType.ERROR_OCCURRED, error_type=item.code, error_message=item.message, **where)

    def returned(self, attempt: Attempt, reason: str) -> None:
        self.add(
            AuditEventType.TASK_RETURNED,
            task_id=attempt.task_id,
            agent_id=attempt.agent_id,
            attempt=attempt.attempt,
            reason=reason,
        )

    def task_closed(self, how: str, task_id: str) -> None:
        kind = AuditEventType.TASK_SKIPPED if how == "skipped" else AuditEventType.TASK_CANCELLED
        self.add(kind, task_id=task_id)

    def passed_over(self, task_id: str, reason: str) -> None:
        self.add(AuditEventType.TASK_SKIPPED, task_id=task_id, reason=reason)

    def expanded(self, task_id: str, size: int) -> None:
        self.add(AuditEventType.TASK_EXPANDED, task_id=task_id, elements=size)

    def gathered(self, task_id: str, size: int) -> None:
        self.add(AuditEventType.TASK_COMPLETED, task_id=task_id, attempt=0, status="success", elements=size)

    def reused(self, result: TaskResult) -> None:
        payload: dict[str, Any] = {"task_id": result.task_id, "attempt": 0, "status": "success", "reused": True}
        self.add(AuditEventType.TASK_COMPLETED, **payload, **_where(result))

    def spawned(self, item: Spawned) -> None:
        for task in item.tasks:
            self.add(AuditEventType.TASK_SPAWNED, task_id=task.id, spawned_by=item.task_id)

    def external_received(self, item: Arrival) -> None:
        self.add(AuditEventType.EXTERNAL_EVENT_RECEIVED, event_id=item.event_id, event_type=item.type)

    def external_dropped(self, item: Arrival) -> None:
        self.add(AuditEventType.EXTERNAL_EVENT_DROPPED, event_id=item.event_id, event_type=item.type)

    def triggered(self, item: Triggered) -> None:
        self.add(AuditEventType.TASK_TRIGGERED, task_id=item.task_id, event_id=item.event_id)

    def resumed_from(self, item: Rewind) -> None:
        self.add(
            AuditEventType.RESUMED_FROM_CHECKPOINT,
            checkpoint_id=item.checkpoint_id,
            repeated_tasks=list(item.tasks),
        )

    def checkpoint(self, item: Checkpoint) -> None:
        self.add(
            AuditEventType.CHECKPOINT_CREATED,
            checkpoint_id=item.checkpoint_id,
            reason=item.reason,
            tasks_completed=len(item.completed),
            in_flight=[attempt.model_dump(exclude={"after", "input", "overlay"}) for attempt in item.in_flight],
        )

    def error(self, error: TerminalError) -> None:
        payload: dict[str, Any] = {"error_type": error.error_code, "error_message": error.error_message}
        if error.failed_task is not None:
            payload["task_id"] = error.failed_task
        self.add(AuditEventType.ERROR_OCCURRED, **payload)


def _where(result: TaskResult) -> dict[str, Any]:
    """The result itself, or where it is stored."""
    return {"result": result.result} if result.result_ref is None else {"result_ref": result.result_ref}
