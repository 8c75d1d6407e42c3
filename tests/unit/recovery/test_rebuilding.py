"""One pass over the log: what each kind of event means for what clients read."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.views import ExecutionEvent
from engine.recovery.rebuilding import RebuiltExecution, rebuilt

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def log(*entries: tuple[str, dict[str, Any]], epoch: int = 1) -> RebuiltExecution:
    return rebuilt(
        ExecutionEvent(sequence=n, epoch=epoch, event_type=kind, timestamp=BEGAN + timedelta(seconds=n),
                       recorded_at=BEGAN, payload=payload, trace_id=uuid4())
        for n, (kind, payload) in enumerate(entries, 1)
    )  # fmt: skip


def at(sequence: int) -> datetime:
    return BEGAN + timedelta(seconds=sequence)


ATTEMPT = {"task_id": "a", "agent_id": "w-1", "attempt": 1}


def test_an_event_that_is_missing_is_noticed() -> None:
    events = [ExecutionEvent(sequence=n, epoch=1, event_type="x", timestamp=BEGAN, recorded_at=BEGAN, payload={},
                             trace_id=uuid4()) for n in (1, 3)]  # fmt: skip
    with pytest.raises(ValueError, match="event 3 follows event 1"):
        rebuilt(events)


def test_a_task_that_completes() -> None:
    made = log(
        ("agent.task_assigned", ATTEMPT), ("agent.task_started", ATTEMPT),
        ("task.completed", {**ATTEMPT, "status": "success", "result_ref": "sha256:1"}),
    ).tasks["a"]  # fmt: skip
    assert (made.state, made.attempt, made.agent_id) == (TaskState.COMPLETED, 1, "w-1")
    assert (made.started_at, made.completed_at, made.result_ref) == (at(2), at(3), "sha256:1")


def test_a_retry_begins_anew_and_keeps_the_error() -> None:
    failed = {**ATTEMPT, "status": "failed", "error": {"code": "X", "message": "m"}}
    made = log(("agent.task_assigned", ATTEMPT), ("task.completed", failed),
               ("task.retry_scheduled", {"task_id": "a", "attempt": 1})).tasks["a"]  # fmt: skip
    assert (made.state, made.attempt, made.agent_id, made.completed_at) == (TaskState.PENDING, 1, None, None)
    assert made.error == {"code": "X", "message": "m", "retryable": True, "attempt": 1, "agent_id": "w-1"}


def test_returned_skipped_cancelled_expanded_and_undone() -> None:
    tasks = log(
        ("task.returned", {**ATTEMPT, "reason": "paused"}), ("task.skipped", {"task_id": "b"}),
        ("task.cancelled", {"task_id": "c"}), ("task.expanded", {"task_id": "d", "elements": 2}),
        ("saga.compensation_completed", {"task_id": "e"}), ("saga.compensation_failed", {"task_id": "f"}),
        ("task.retry_scheduled", {"task_id": "g", "attempt": 2}),
    ).tasks  # fmt: skip
    assert [tasks[name].state for name in "abcdefg"] == [
        TaskState.PENDING, TaskState.SKIPPED, TaskState.CANCELLED, TaskState.RUNNING, TaskState.COMPENSATED,
        TaskState.COMPENSATING, TaskState.PENDING,
    ]  # fmt: skip


def test_what_was_not_finished_when_it_was_cancelled_from_outside_is_cancelled() -> None:
    made = log(("agent.task_assigned", ATTEMPT), ("task.skipped", {"task_id": "b"}),
               ("workflow.status_changed", {"new_status": "cancelled"}))  # fmt: skip
    assert made.status is ExecutionStatus.CANCELLED
    assert (made.tasks["a"].state, made.tasks["b"].state) == (TaskState.CANCELLED, TaskState.SKIPPED)


def test_a_rewind_takes_tasks_back_with_their_errors() -> None:
    failed = {**ATTEMPT, "status": "failed", "error": {"code": "X", "message": "m"}}
    made = log(("task.completed", failed), ("workflow.checkpoint_created", {"checkpoint_id": "c"}),
               ("workflow.resumed_from_checkpoint", {"repeated_tasks": ["a"]}), epoch=2)  # fmt: skip
    assert (made.epoch, made.checkpoints) == (2, ["c"])
    assert (made.tasks["a"].state, made.tasks["a"].attempt, made.tasks["a"].error) == (TaskState.PENDING, 0, None)


def test_agents_are_bound_and_lost() -> None:
    bound = {"agent_id": "w-1", "role": "worker", "host_id": "h"}
    made = log(("agent.bound", bound), ("agent.disconnected", {"agent_id": "w-1"}),
               ("agent.disconnected", {"agent_id": "other"}))  # fmt: skip
    assert made.agents == {"w-1": ("worker", "h", "failed")}
