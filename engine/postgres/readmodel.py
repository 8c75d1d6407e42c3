"""What one tick changes in the rows that the API reads: a delta, folded to at most one change a task.

One delta may say several things of a task (started and done; lost and assigned again). They are folded in the
order in which the kernel applies them, so that each row is written once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from engine.contracts.events import AuditEventType, TaskError
from engine.contracts.execution import TaskState
from engine.contracts.kernel import Delta, Failed, TaskResult, TickProposal
from engine.postgres.documents import raw_document

_NO_CHANGE_FIELDS: Final = {"tick", "at_ms", "low", "fence"}


@dataclass(slots=True)
class TaskChange:
    """`reset` begins the row anew (only the last error stays); else None keeps what is stored."""

    task_id: str
    state: TaskState = TaskState.PENDING
    reset: bool = False
    attempt: int | None = None
    agent_id: str | None = None
    assigned_ms: int | None = None
    started_ms: int | None = None
    completed_ms: int | None = None
    result: bytes | None = None
    result_ref: str | None = None
    error: bytes | None = None


@dataclass(slots=True)
class _Fold:
    changes: dict[str, TaskChange] = field(default_factory=dict)

    def keep(self, task_id: str, state: TaskState) -> TaskChange:
        """The change of a task whose row goes on."""
        change = self.changes.get(task_id)
        if change is None:
            change = self.changes[task_id] = TaskChange(task_id)
        change.state = state
        return change

    def begin(self, task_id: str, state: TaskState, attempt: int) -> TaskChange:
        """The change of a task whose row begins anew."""
        before = self.changes.get(task_id)
        change = TaskChange(task_id, state, reset=True, attempt=attempt, error=before.error if before else None)
        self.changes[task_id] = change
        return change


def task_changes(proposal: TickProposal) -> list[TaskChange]:
    """The folded changes, one a task."""
    delta = proposal.delta
    fold = _Fold()
    if delta.rewind is not None:
        for task_id in delta.rewind.tasks:
            fold.begin(task_id, TaskState.PENDING, 0)
    for started in delta.started:
        change = fold.keep(started.task_id, TaskState.RUNNING)
        change.attempt, change.started_ms = started.attempt, started.at_ms
    results = {(result.task_id, result.attempt): result for result in proposal.results}
    _fold_done(fold, delta, results)
    for submitted in delta.submitted:
        change = fold.keep(submitted.task_id, TaskState.RUNNING)
        change.attempt, change.agent_id = submitted.attempt, submitted.agent_id
        change.started_ms = submitted.started_at_ms
        if not submitted.failed:
            _give_result(change, results.get((submitted.task_id, submitted.attempt)))
    starts = _starts(proposal) if delta.failed else {}
    for failed in delta.failed:
        _fold_failed(fold, failed, starts.get((failed.task_id, failed.attempt)))
    for returned in delta.returned:
        fold.begin(returned.task_id, TaskState.PENDING, returned.attempt)
    for task_id in delta.retried:
        fold.keep(task_id, TaskState.PENDING)
    for expanded in delta.expanded:
        fold.keep(expanded.task_id, TaskState.RUNNING).started_ms = delta.at_ms
    reused = {result.task_id: result for result in proposal.results} if delta.reused else {}
    for task_id in delta.reused:
        change = fold.keep(task_id, TaskState.COMPLETED)
        change.completed_ms = delta.at_ms
        _give_result(change, reused.get(task_id))
    for task_id in delta.gathered:
        fold.keep(task_id, TaskState.COMPLETED).completed_ms = delta.at_ms
    for task_id in delta.passed:
        fold.keep(task_id, TaskState.SKIPPED).completed_ms = delta.at_ms
    for taken in delta.taken:
        fold.keep(taken.task_id, TaskState.RUNNING).started_ms = taken.at_ms
    if delta.settled:
        _fold_settled(fold, delta, {result.task_id: result for result in proposal.results})
    for task_id in delta.skipped:
        fold.keep(task_id, TaskState.SKIPPED).completed_ms = delta.at_ms
    for task_id in delta.cancelled:
        fold.keep(task_id, TaskState.CANCELLED).completed_ms = delta.at_ms
    for undoing in delta.compensating:
        fold.keep(undoing.task_id, TaskState.COMPENSATING)
    for undone in delta.compensated:
        fold.keep(undone.task_id, TaskState.COMPENSATED)
    for assigned in delta.assigned:
        change = fold.begin(assigned.task_id, TaskState.RUNNING, assigned.attempt)
        change.agent_id, change.assigned_ms = assigned.agent_id, delta.at_ms
    for resent in delta.resent:
        change = fold.keep(resent.task_id, TaskState.RUNNING)
        change.attempt, change.agent_id = resent.attempt, resent.agent_id
    return list(fold.changes.values())


def _fold_done(fold: _Fold, delta: Delta, results: Mapping[tuple[str, int], TaskResult]) -> None:
    for done in delta.done:
        change = fold.keep(done.task_id, TaskState.COMPLETED)
        change.attempt, change.agent_id = done.attempt, done.agent_id
        change.started_ms, change.completed_ms = done.started_at_ms, done.at_ms
        change.error = None
        _give_result(change, results.get((done.task_id, done.attempt)))


def _fold_settled(fold: _Fold, delta: Delta, results: Mapping[str, TaskResult]) -> None:
    """By task: of one that is settled, the last result counts."""
    for settled in delta.settled:
        if settled.verdict == "again":
            fold.keep(settled.task_id, TaskState.PENDING)
            continue
        change = fold.keep(settled.task_id, TaskState.COMPLETED)
        change.completed_ms = delta.at_ms
        _give_result(change, results.get(settled.task_id))


def _give_result(change: TaskChange, result: TaskResult | None) -> None:
    if result is not None:
        change.result_ref = result.result_ref
        if result.result_ref is None:
            change.result = raw_document(result.result)


def _starts(proposal: TickProposal) -> dict[tuple[str, int], int]:
    """When attempts began whose start and failure came in one report: the delta has no start of theirs."""
    return {
        (event.payload["task_id"], event.payload["attempt"]): event.at_ms
        for event in proposal.audit
        if event.type is AuditEventType.TASK_STARTED
    }


def _fold_failed(fold: _Fold, failed: Failed, started_ms: int | None) -> None:
    if failed.retry_at_ms is not None:
        change = fold.begin(failed.task_id, TaskState.PENDING, failed.attempt)
    else:
        change = fold.keep(failed.task_id, TaskState.FAILED)
        change.attempt, change.agent_id, change.completed_ms = failed.attempt, failed.agent_id or None, failed.at_ms
        change.started_ms = started_ms if change.started_ms is None else change.started_ms
    error = TaskError(code=failed.code, message=failed.message, retryable=failed.retry_at_ms is not None)
    change.error = raw_document({**error.model_dump(), "attempt": failed.attempt, "agent_id": failed.agent_id})


def changes_nothing(delta: Delta) -> bool:
    """Whether losing this tick would lose nothing."""
    return not delta.model_fields_set - _NO_CHANGE_FIELDS or not delta.model_dump(
        exclude_defaults=True, exclude=_NO_CHANGE_FIELDS
    )


def checkpoint_documents(proposal: TickProposal) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state_snapshot, recovery_instructions) of the delta's checkpoint."""
    checkpoint = proposal.delta.checkpoint
    if checkpoint is None:
        raise ValueError("the delta has no checkpoint")
    in_flight = [attempt.model_dump(exclude={"after"}) for attempt in checkpoint.in_flight]
    snapshot = {
        "tick": proposal.tick,
        "epoch": proposal.epoch,
        "completed": list(checkpoint.completed),
        "in_flight": in_flight,
    }
    instructions = {
        "keep": "results of completed tasks",
        "run_again": [attempt.task_id for attempt in checkpoint.in_flight],
    }
    return snapshot, instructions
