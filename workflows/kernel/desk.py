"""Where a pattern sits within a tick: what has come in for it, and all that it may do.

The order in which a pattern does things within one tick does not matter for the state that results, because a stored
tick is applied kind by kind. What does matter is that it decides from the state and its board alone.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.contracts.dynamic import SpawnedBody
from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import (
    Errand,
    ErrandOutcome,
    KernelTask,
    Settled,
    Spawned,
    Submission,
    TaskResult,
    TerminalError,
)
from engine.contracts.limits import NOTE_BYTES_MAX, TASKS_DYNAMIC_MAX
from workflows.kernel.audit import AuditTrail
from workflows.kernel.coordination import KERNEL_ERRANDS
from workflows.kernel.fold import Fold
from workflows.kernel.spawning import SPAWN_REFUSED, SpawnRefusedError, plan_spawn
from workflows.kernel.state import Phase, RunState
from workflows.kernel.transitions import Transitions

if TYPE_CHECKING:
    from engine.contracts.definition import RetryPolicy

REJECTED = "REJECTED"


class NoRoomError(Exception):
    """What the pattern wants does not fit the limits; the message says which. Give the task up with it."""


class Desk:
    """One tick's view for a policy. `state` is to be read only."""

    def __init__(
        self,
        change: Transitions,
        trail: AuditTrail,
        fold: Fold,
        gather: Callable[[], None],
        outcomes: Iterable[ErrandOutcome] = (),
    ) -> None:
        """`gather` ends the `for_each` tasks whose last element the pattern has settled."""
        self.state: RunState = change.state
        self.now_ms = change.at_ms
        self.submitted: Sequence[int] = tuple(fold.submitted)
        """Tasks whose attempts ended in this tick, in the order of the reports. All that are not settled stand in
        `state.submitted`."""
        self.outcomes: dict[str, tuple[Errand, ErrandOutcome]] = {}
        """What came of this pattern's errands in this tick."""
        self.ending: tuple[ExecutionStatus, TerminalError | None] | None = None
        self._change = change
        self._trail = trail
        self._fold = fold
        self._gather = gather
        for outcome in outcomes:
            errand = self.state.errands.get(outcome.key)
            if errand is not None and errand.kind not in KERNEL_ERRANDS:
                change.end_errand(outcome.key)
                self.outcomes[outcome.key] = (errand, outcome)

    @property
    def config(self) -> Mapping[str, Any]:
        return self.state.launch.pattern_config

    # Memory --------------------------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        return self.state.board.get(key, default)

    def post(self, key: str, value: Any) -> None:
        """`value` is plain JSON and never changed afterwards: post a new one instead. None deletes."""
        self._change.post(key, value)

    def note(self, i: int, note: Any) -> None:
        """What goes with the task's next attempts as `context`. Raises NoRoomError above `NOTE_BYTES_MAX`."""
        _check_size(note)
        self.post(note_key(self.state.specs[i].id), note)

    def lay_over(self, i: int, values: dict[str, Any]) -> None:
        """From its next attempt on, these stand in the task's input in place of what the definition says."""
        self.post(overlay_key(self.state.specs[i].id), values)

    # Ready tasks ---------------------------------------------------------------------------------------------

    def ready(self) -> list[int]:
        """Tasks of the graph that could start now and are no business of an agent's yet, by urgency."""
        state = self.state
        found = [item for role in sorted(state.ready) for item in state.ready[role]]
        return [i for _, i in sorted([*found, *state.ready_alone])]

    def take(self, i: int) -> None:
        """A ready task becomes the pattern's own: it is settled, failed or dropped later, like a submitted one."""
        self._change.take(Submission(task_id=self.state.specs[i].id, at_ms=self.now_ms))

    # Judging -------------------------------------------------------------------------------------------------

    def accept(self, i: int) -> None:
        """Completed, with the result that its attempt brought; failed, when the tasks that it adds cannot be added."""
        submission = self.state.submitted[i]
        if submission.spawn:
            try:
                self.spawn(i, submission.spawn)
            except SpawnRefusedError as error:
                self.fail(i, SPAWN_REFUSED, str(error))
                return
        self._change.settle(Settled(task_id=submission.task_id, verdict="accept"))
        # Only now does it go into the read model: until here the row was one of a task that runs.
        self._fold.results.append(
            TaskResult(
                task_id=submission.task_id,
                attempt=submission.attempt,
                result=submission.result,
                result_ref=submission.result_ref,
            )
        )
        self._trail.settled(submission)
        self._gather()

    def resolve(self, i: int, result: Any = None, result_ref: str | None = None) -> None:
        """Completed, with this result, or with the one that is stored there."""
        submission = self.state.submitted[i]
        stored = TaskResult(
            task_id=submission.task_id, attempt=submission.attempt, result=result, result_ref=result_ref
        )
        self._change.settle(Settled(task_id=submission.task_id, verdict="resolve"))
        self._fold.results.append(stored)
        self._trail.settled(submission, stored)
        self._gather()

    def again(self, i: int, note: Any = None, why: str | None = None) -> None:
        """Another attempt, with this context. `why` says what was wrong with the last one; None: nothing was."""
        submission = self.state.submitted[i]
        if note is not None:
            self.note(i, note)
        if why is not None and not submission.failed and submission.attempt:
            self._trail.rejected(submission, REJECTED, why)
        self._change.settle(Settled(task_id=submission.task_id, verdict="again"))

    def fail(self, i: int, code: str, message: str) -> None:
        """Given up, with what the definition says follows from that."""
        self._fold.fail_waiting(i, code, message)
        self._gather()

    def fail_branch(self, i: int, code: str, message: str) -> None:
        """Given up with what depends on it; the rest goes on, whatever the definition says."""
        self._fold.branch_only.add(self.state.specs[i].id)
        self._fold.fail_waiting(i, code, message)
        self._gather()

    def drop(self, i: int) -> None:
        """Not needed any more, wherever it stands: cancelled, and nothing follows from that."""
        state = self.state
        if i in state.in_flight:
            self._fold.cancel.append(state.attempt(i))
        self._change.cancel(state.specs[i].id)
        self._trail.task_closed("cancelled", state.specs[i].id)

    # Asking --------------------------------------------------------------------------------------------------

    def ask(
        self,
        about: int,
        task_id: str,
        *,
        agent: str | None = None,
        role: str | None = None,
        action: str,
        input: dict[str, Any] | None = None,
        note: Any = None,
        timeout_ms: int | None = None,
        retry: "RetryPolicy | None" = None,
        alike: bool | str = False,
        concerning: bool = False,
        within: bool = False,
    ) -> None:
        """A task of the pattern's own, for one agent or for any of a role. Its end is submitted to the pattern.

        `about` is the task for whose sake it is: it goes when that runs again from a checkpoint. `alike`: its agent
        gets that task's input, under what stands in `input`, and its dependencies' results. `concerning`: it gets those
        results, and finds what that task is under `task` in its input. `within`: as `alike`, but the action is its own,
        and the task may be an element of a list or an added one. Raises NoRoomError.
        """
        state = self.state
        if state.added >= TASKS_DYNAMIC_MAX:
            raise NoRoomError(f"an execution may add {TASKS_DYNAMIC_MAX} tasks")
        if note is not None:
            _check_size(note)
        spec = state.specs[about]
        role = state.agents[agent].role if agent is not None else role or spec.role
        asked = KernelTask(
            id=task_id,
            role=role,
            slack_ms=spec.slack_ms,
            estimate_ms=spec.estimate_ms,
            timeout_ms=timeout_ms or spec.timeout_ms,
            retry=retry or spec.retry,
            agent=agent,
            asked=True,
        )
        body = {
            "id": task_id,
            "agent": role,
            "action": action,
            "input": input or {},
            "timeout_seconds": max(asked.timeout_ms // 1000, 1),
        }
        if alike:
            body["about"] = alike if isinstance(alike, str) else spec.id
        if concerning:
            body["concerning"] = spec.id
        if within:
            body["within"] = spec.id
        self._fold.bodies.append(SpawnedBody(task_id=task_id, spawned_by=spec.id, body=body))
        item = Spawned(task_id=spec.id, tasks=(asked,))
        self._change.ask(item)
        self._trail.spawned(item)
        if note is not None:
            self.note(state.index[task_id], note)

    def spawn(self, about: int, documents: Sequence[dict[str, Any]]) -> None:
        """Tasks as an agent's result adds them, for the sake of this one. They are tasks of the graph from now on; one
        that depends on `about` starts when that is settled. Raises SpawnRefusedError, and then has added nothing."""
        item, bodies = plan_spawn(self.state, about, documents)
        self._fold.bodies.extend(bodies)
        self._change.ask(item)
        self._trail.spawned(item)

    def send(self, key: str, kind: str, *, about: int | None = None, input: Any = None) -> None:
        """An errand: an activity whose outcome comes back in `outcomes`. Raises ValueError when the key is taken."""
        if key in self.state.errands:
            raise ValueError(f"the errand {key} is under way")
        task_id = "" if about is None else self.state.specs[about].id
        self._change.begin_errand(Errand(key=key, kind=kind, task_id=task_id, input=input))

    def take_event(self, event_id: str) -> None:
        """An external event that is kept (`state.kept`) has done its work: nobody else gets it."""
        self._change.forget(event_id)

    # The execution -------------------------------------------------------------------------------------------

    def say(self, kind: AuditEventType, at_ms: int | None = None, **payload: Any) -> None:
        """A fact for the audit log."""
        self._trail.add(kind, at_ms, **payload)

    def end(self, status: ExecutionStatus, error: TerminalError | None = None) -> None:
        """The execution is over; what is left of it is cancelled."""
        self.ending = (status, error)

    # Questions -----------------------------------------------------------------------------------------------

    def asked_about(self, prefix: str) -> list[int]:
        """Open tasks of the pattern's own whose ids begin so."""
        state = self.state
        first = len(state.plan.tasks)
        own = (i for i in range(first, len(state.specs)) if state.specs[i].asked and self.is_open(i))
        return [i for i in own if state.specs[i].id.startswith(prefix)]

    def is_open(self, i: int) -> bool:
        return not self.state.tasks[i].phase.over

    def is_submitted(self, i: int) -> bool:
        return self.state.tasks[i].phase is Phase.SUBMITTED


def overlay_key(task_id: str) -> str:
    """Where on the board stands what is laid over the input of a task's attempts."""
    return f"{task_id}/overlay"


def _check_size(note: Any) -> None:
    size_bytes = len(json.dumps(note, ensure_ascii=False).encode("utf-8", "replace"))
    if size_bytes > NOTE_BYTES_MAX:
        raise NoRoomError(f"{size_bytes} bytes of context: {NOTE_BYTES_MAX} may go with a task")


def note_key(task_id: str) -> str:
    """Where on the board stands what goes with a task's attempts."""
    return f"{task_id}/note"
