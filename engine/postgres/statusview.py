"""The status of one execution, made of the row that `execution_status` answers."""

from collections import Counter
from typing import Any, Final
from uuid import UUID

import asyncpg

from engine.contracts.capacity import PRIORITIES, RoleAllotment
from engine.contracts.execution import AgentStatus, ExecutionStatus, TaskState
from engine.contracts.kernel import Metrics
from engine.contracts.views import AgentProgress, ExecutionView, PerformanceMetrics, QueuePlace

QUEUED_PHASE: Final = "queued"


def execution_view(execution_id: UUID, row: asyncpg.Record) -> ExecutionView:
    status = ExecutionStatus(row["status"])
    task_states = _task_states(row)
    counts = _task_counts(row, task_states)
    agents = _agents(row, status)
    # Not validated again: of ten thousand task states that would cost as much as reading them.
    return ExecutionView.model_construct(
        workflow_id=row["workflow_id"],
        execution_id=execution_id,
        status=status,
        current_phase=QUEUED_PHASE if row["waiting"] else row["current_phase"],
        agents=agents,
        task_states=task_states,
        task_counts=counts,
        performance_metrics=_performance(row, counts, len(agents)),
        awaiting=_metrics(row["performance_metrics"]).awaiting,
        error_details=row["error_details"],
        epoch=row["epoch"],
        latest_checkpoint_id=row["latest_checkpoint_id"],
        trace_id=row["trace_id"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        queue=_queue_place(row),
        allotment=_allotment(row["roles"]),
    )


def _queue_place(row: asyncpg.Record) -> QueuePlace | None:
    if not row["waiting"]:
        return None
    return QueuePlace(priority=PRIORITIES[row["priority"]], queued_at=row["queued_at"], ahead=row["ahead"])


def _allotment(roles: dict[str, dict[str, Any]] | None) -> dict[str, RoleAllotment]:
    """Of the roles as they were stored; none when they were not asked for."""
    return {
        name: RoleAllotment(wanted=role.get("wanted") or role["count"], allotted=role["count"])
        for name, role in (roles or {}).items()
    }


def _task_states(row: asyncpg.Record) -> dict[str, TaskState]:
    """In the plan's order; tasks without a row are pending. Empty when tasks were not asked for."""
    if row["plan_task_ids"] is None:
        return {}
    by_name = {state.value: state for state in TaskState}
    stored = dict(zip(row["task_ids"] or (), row["task_states"] or (), strict=True))
    return {task_id: by_name[stored.get(task_id, "pending")] for task_id in row["plan_task_ids"]}


def _task_counts(row: asyncpg.Record, task_states: dict[str, TaskState]) -> dict[str, int]:
    """Every state, those of no task included."""
    if task_states:
        counted = Counter(task_states.values())
        return {state.value: counted.get(state, 0) for state in TaskState}
    stored: dict[str, int] = dict(zip(row["count_states"] or (), row["counts"] or (), strict=True))
    counts = {state.value: stored.get(state.value, 0) for state in TaskState}
    counts[TaskState.PENDING.value] += row["tasks_total"] - sum(counts.values())
    return counts


def _agents(row: asyncpg.Record, status: ExecutionStatus) -> tuple[AgentProgress, ...]:
    running = {
        agent_id: (task_id, progress)
        for agent_id, task_id, progress in zip(
            row["running_agents"] or (), row["running_tasks"] or (), row["running_progress"] or (), strict=True
        )
    }
    agents = []
    for agent_id, role, stored in zip(
        row["agent_ids"] or (), row["agent_roles"] or (), row["agent_statuses"] or (), strict=True
    ):
        task_id, progress = running.get(agent_id, (None, 0.0))
        agents.append(
            AgentProgress(
                agent_id=agent_id,
                role=role,
                status=_agent_status(stored, task_id, status),
                current_task=task_id,
                progress=round(progress, 6),
            )
        )
    return tuple(agents)


def _agent_status(stored: str, task_id: str | None, status: ExecutionStatus) -> AgentStatus:
    if stored == AgentStatus.FAILED.value:
        return AgentStatus.FAILED
    if task_id is not None:
        return AgentStatus.RUNNING
    return AgentStatus.COMPLETED if status is ExecutionStatus.COMPLETED else AgentStatus.ASSIGNED


def _performance(row: asyncpg.Record, counts: dict[str, int], agents: int) -> PerformanceMetrics:
    metrics = _metrics(row["performance_metrics"])
    runtime_seconds = max(0.0, ((row["completed_at"] or row["now"]) - row["started_at"]).total_seconds())
    unpaused_ms = runtime_seconds * 1000 - metrics.paused_ms
    overhead = 100 * metrics.idle_ms / unpaused_ms if unpaused_ms > 0 else 0.0
    return PerformanceMetrics(
        total_runtime_seconds=int(runtime_seconds),
        agents_allocated=agents,
        tasks_completed=counts[TaskState.COMPLETED.value],
        tasks_failed=counts[TaskState.FAILED.value],
        coordination_overhead=round(min(100.0, max(0.0, overhead)), 2),
    )


def _metrics(stored: dict[str, Any]) -> Metrics:
    return Metrics.model_validate({name: stored[name] for name in Metrics.model_fields if name in stored})
