"""Decides what is undone, in which order, and what follows from each outcome.

Undoing takes the place of closing: the execution stays open until everything that can be undone is. What a step depends
on is undone after it, never before; among independent steps the one that was completed last comes first.
"""

from collections.abc import Iterable
from typing import Any, Final

from engine.contracts.compensation import (
    Compensated,
    Compensating,
    CompensationCall,
    CompensationStatus,
    LeftCompensation,
    Uncompensated,
    Undone,
    UndoStep,
)
from engine.contracts.definition import RetryPolicy
from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Errand, ErrandOutcome, TerminalError, Undoing
from engine.contracts.limits import ERROR_MESSAGE_LENGTH_MAX
from workflows.kernel.audit import AuditTrail
from workflows.kernel.policy import Policy
from workflows.kernel.state import Phase, RunState
from workflows.kernel.transitions import Transitions
from workflows.kernel.undoing import UNFINISHED, UndoRun, UndoState

COMPENSATE: Final = "compensate"
NAMES_MAX: Final = 1_000
"""Tasks that `error_details` names."""

_ONCE: Final = RetryPolicy(max_attempts=1)


class Rollback:
    """One tick's view of compensation."""

    def __init__(self, change: Transitions, trail: AuditTrail, policy: Policy) -> None:
        self.state: RunState = change.state
        self._change = change
        self._trail = trail
        self._policy = policy

    # Instead of closing --------------------------------------------------------------------------------------

    def due(self) -> list[UndoStep]:
        """What was done or may have been, in the order in which it is to be undone. Ask before the tasks are closed."""
        state = self.state
        doubts_failures = self._policy.doubts_failures(state)
        found: list[tuple[int, int, int, str, bool]] = []
        depths = _depths(state) if state.registered else []
        for task_id, finished in state.registered.items():
            i = state.index.get(task_id, -1)
            phase = state.tasks[i].phase if i >= 0 else Phase.CANCELLED
            open_ended = phase.in_flight or (doubts_failures and (phase is Phase.FAILED or phase is Phase.DELAYED))
            if finished == UNFINISHED and not open_ended:
                continue
            # What has not completed comes after all that has.
            rank = finished if finished > 0 else state.tick + 1
            found.append((-rank, -(depths[i] if i >= 0 else 0), -i, task_id, finished > 0))
        return [UndoStep(task_id=task_id, certain=certain) for *_, task_id, certain in sorted(found)]

    def begin(self, steps: list[UndoStep], status: ExecutionStatus, error: TerminalError | None) -> bool:
        """Whether undoing begins; the tasks are closed already."""
        state = self.state
        if not (steps and state.plan.rolls_back and self._policy.rolls_back(state)):
            return False
        for key in sorted(state.errands):
            self._change.end_errand(key)  # neither the pattern nor a hook is asked any more
        item = Undoing(
            status=status,
            error=error or _cancelled(),
            steps=tuple(steps),
            side_by_side=self._policy.undoes_side_by_side(state),
        )
        self._change.begin_undoing(item)
        self._trail.add(
            AuditEventType.COMPENSATION_STARTED,
            failed_task_id=item.error.failed_task,
            compensation_tasks=[step.task_id for step in steps],
            reason=item.error.error_code,
        )
        return True

    def explain(self, steps: list[UndoStep], error: TerminalError | None) -> TerminalError | None:
        """The error of an execution that closes without undoing: what it leaves behind as it is."""
        if not steps:
            return error
        skipped: CompensationStatus = "past_pivot" if self.state.plan.rolls_back else "skipped"
        error = error or _cancelled()
        left = [step.task_id for step in steps]
        return error.model_copy(
            update={"compensation_status": skipped, "details": {**error.details, "left": left[:NAMES_MAX]}}
        )

    # While undoing -------------------------------------------------------------------------------------------

    def carry_on(self, outcomes: Iterable[ErrandOutcome]) -> TerminalError | None:
        """Take outcomes in and begin what is next. Returns the final error when nothing more can be done."""
        undoing = self._undoing()
        for outcome in outcomes:
            errand = self.state.errands.get(outcome.key)
            if errand is not None and errand.kind == COMPENSATE:
                self._change.end_errand(outcome.key)
                self._take(undoing.runs[errand.task_id], outcome)
        if not self.state.paused:
            for task_id in self._startable(undoing):
                self._begin_try(undoing.runs[task_id])
        if any(run.status in ("running", "delayed") for run in undoing.runs.values()) or self._held_back(undoing):
            return None
        return self._result(undoing)

    def _held_back(self, undoing: UndoState) -> bool:
        """By a pause alone."""
        return self.state.paused and bool(self._startable(undoing))

    def _take(self, run: UndoRun, outcome: ErrandOutcome) -> None:
        task_id, now_ms = run.step.task_id, self._change.at_ms
        if outcome.ok:
            how: Undone = "never_happened" if outcome.value == "never_happened" else "compensated"
            self._change.compensated(Compensated(task_id=task_id, attempt=run.attempts, outcome=how))
            self._trail.add(
                AuditEventType.COMPENSATION_COMPLETED,
                task_id=task_id,
                attempt=run.attempts,
                outcome=how,
                compensation_action=self._action(task_id),
            )
            return
        policy = self._retry_policy(task_id)
        again = outcome.value != "final" and run.attempts < policy.max_attempts
        retry_at_ms = now_ms + int(policy.delay_seconds(run.attempts) * 1000) if again else None
        item = Uncompensated(
            task_id=task_id,
            attempt=run.attempts,
            code=outcome.code[:100] or "COMPENSATION_FAILED",
            message=outcome.message[:ERROR_MESSAGE_LENGTH_MAX],
            retry_at_ms=retry_at_ms,
        )
        self._change.uncompensated(item)
        told: dict[str, Any] = {
            "task_id": task_id,
            "attempt": item.attempt,
            "error": {"code": item.code, "message": item.message},
        }
        if retry_at_ms is None:
            self._trail.add(AuditEventType.COMPENSATION_FAILED, compensation_action=self._action(task_id), **told)
        else:
            delay = (retry_at_ms - now_ms) / 1000
            self._trail.add(AuditEventType.COMPENSATION_RETRY_SCHEDULED, delay_seconds=delay, **told)

    def _startable(self, undoing: UndoState) -> list[str]:
        """Steps to begin now. One after the other, unless the definition wants independent ones side by side."""
        under_way = [run for run in undoing.runs.values() if run.status in ("running", "delayed")]
        due = [run for run in under_way if run.status == "delayed" and run.due_ms <= self._change.at_ms]
        room = undoing.room()
        if under_way and not undoing.item.side_by_side:
            return [run.step.task_id for run in due][:room]
        found = [run.step.task_id for run in due]
        blocked = _blocked(self.state, undoing) if len(undoing.runs) > 1 and self._needs_order(undoing) else set()
        found += [
            task_id for task_id, run in undoing.runs.items() if run.status == "waiting" and task_id not in blocked
        ]
        return found[:room]

    @staticmethod
    def _needs_order(undoing: UndoState) -> bool:
        """One after the other the list is in order, until a step in it fails."""
        return undoing.item.side_by_side or any(run.status == "failed" for run in undoing.runs.values())

    def _begin_try(self, run: UndoRun) -> None:
        task_id, attempt = run.step.task_id, run.attempts + 1
        i = self.state.index.get(task_id)
        agent_id = None if i is None else self.state.tasks[i].agent_id
        call = CompensationCall(attempt=attempt, certain=run.step.certain, agent_id=agent_id or "")
        self._change.compensate(Compensating(task_id=task_id, attempt=attempt))
        self._change.begin_errand(
            Errand(
                key=f"{COMPENSATE}/{task_id}/{attempt}",
                kind=COMPENSATE,
                task_id=task_id,
                input=call.model_dump(mode="json"),
            )
        )

    def _result(self, undoing: UndoState) -> TerminalError:
        left = [run for run in undoing.runs.values() if run.status != "undone"]
        undone = [task_id for task_id, run in undoing.runs.items() if run.status == "undone"]
        blockers = _blockers(self.state, undoing) if left else {}
        positions = {task_id: n for n, task_id in enumerate(undoing.runs, 1)}
        for run in left:
            task_id = run.step.task_id
            self._change.leave(
                LeftCompensation(
                    task_id=task_id,
                    position=positions[task_id],
                    failed=run.status == "failed",
                    blocked_by=blockers.get(task_id, ()),
                    certain=run.step.certain,
                    attempts=run.attempts,
                    code=run.code,
                    message=run.message,
                    epoch=self.state.epoch,
                    retry=self._retry_policy(task_id),
                )
            )
        error = undoing.item.error
        status: CompensationStatus = "partial" if left else "completed"
        details = {**error.details, "compensated": undone[:NAMES_MAX]}
        if left:
            details["left"] = [run.step.task_id for run in left][:NAMES_MAX]
        return error.model_copy(update={"compensation_status": status, "details": details})

    def _undoing(self) -> UndoState:
        undoing = self.state.undoing
        if undoing is None:
            raise ValueError("nothing is being undone")
        return undoing

    def _action(self, task_id: str) -> str | None:
        i = self.state.index.get(task_id)
        return None if i is None else self.state.specs[i].compensation

    def _retry_policy(self, task_id: str) -> RetryPolicy:
        """Of a task that is no more, because going back to a checkpoint dropped it, nothing is known."""
        i = self.state.index.get(task_id)
        return _ONCE if i is None else self.state.specs[i].retry


def _cancelled() -> TerminalError:
    return TerminalError(error_code="CANCELLED", error_message="cancelled by request")


def _depths(state: RunState) -> list[int]:
    """For each task the length of the longest chain of dependencies before it."""
    waiting = [len(spec.deps) for spec in state.specs]
    depths = [0] * len(waiting)
    front = [i for i, n in enumerate(waiting) if not n]
    while front:
        i = front.pop()
        for j in state.dependents[i]:
            depths[j] = max(depths[j], depths[i] + 1)
            waiting[j] -= 1
            if not waiting[j]:
                front.append(j)
    return depths


def _before(state: RunState, i: int) -> list[int]:
    """What is undone after this task: its dependencies. A list's elements stand between those and the list itself."""
    owner = state.parent.get(i)
    if owner is not None:
        return list(state.specs[owner].deps)
    group = state.groups.get(i)
    return [*state.specs[i].deps, *(group.elements if group is not None else ())]


def _after(state: RunState, i: int) -> list[int]:
    """What is undone before this task."""
    owner = state.parent.get(i)
    if owner is not None:
        return [owner]
    found = list(state.dependents[i])
    for j in state.dependents[i]:
        if j in state.groups:
            found.extend(state.groups[j].elements)
    return found


def _nearest(state: RunState, start: int, wanted: set[int]) -> list[int]:
    """Of what depends on a task, at whatever distance, those of `wanted` that are met first."""
    found: list[int] = []
    seen = {start}
    front = [start]
    while front:
        for j in _after(state, front.pop()):
            if j not in seen:
                seen.add(j)
                (found if j in wanted else front).append(j)
    return sorted(found)


def _not_undone(state: RunState, undoing: UndoState) -> set[int]:
    return {state.index[t] for t, run in undoing.runs.items() if run.status != "undone" and t in state.index}


def _blockers(state: RunState, undoing: UndoState) -> dict[str, tuple[str, ...]]:
    """For each step that is not undone, those that must be undone before it."""
    open_steps = _not_undone(state, undoing)
    return {
        state.specs[i].id: tuple(state.specs[j].id for j in _nearest(state, i, open_steps)) for i in sorted(open_steps)
    }


def _blocked(state: RunState, undoing: UndoState) -> set[str]:
    """Steps on which others depend that are not undone."""
    open_steps = _not_undone(state, undoing)
    below: set[int] = set()
    front = sorted(open_steps)
    while front:
        for dependency in _before(state, front.pop()):
            if dependency not in below:
                below.add(dependency)
                front.append(dependency)
    return {state.specs[i].id for i in below & open_steps}
