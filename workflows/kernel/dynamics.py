"""One tick's part in changing the graph: what outcomes, external events and elapsed waits bring about."""

from engine.contracts.dynamic import (
    Arrival,
    EvaluationRequest,
    Expanded,
    ExternalEvent,
    GraphWrites,
    Looked,
    SpawnedBody,
    TaskOutcome,
)
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import TaskResult
from engine.contracts.limits import EVALUATIONS_MAX, EXTERNAL_EVENTS_WAITING_MAX, TASKS_DYNAMIC_MAX
from workflows.kernel.audit import AuditTrail
from workflows.kernel.awaiting import overdue, sweep
from workflows.kernel.fold import Fold
from workflows.kernel.inbox import Inbox
from workflows.kernel.state import Phase, RunState
from workflows.kernel.transitions import Transitions

TRIGGER_TIMEOUT = "TRIGGER_TIMEOUT"
FOR_EACH_TOO_LONG = "FOR_EACH_TOO_LONG"
ELEMENTS_FAILED = "ELEMENTS_FAILED"


def must_evaluate(state: RunState) -> bool:
    """Whether an activity has something to find out before the next tick."""
    return (
        state.status is ExecutionStatus.EXECUTING
        and bool(state.held or (state.awaiting and state.kept))
        and evaluation_request(state) is not None
    )


def evaluation_request(state: RunState) -> EvaluationRequest | None:
    """What an activity must find out before the next tick; None when there is nothing."""
    tasks = tuple(state.specs[i].id for i in sorted(state.held)[:EVALUATIONS_MAX])
    matches = tuple(sweep(state, {}).undecided) if state.awaiting and state.kept else ()
    if not tasks and not matches:
        return None
    return EvaluationRequest(
        tenant=state.launch.tenant,
        execution_id=state.launch.execution_id,
        epoch=state.epoch,
        room=TASKS_DYNAMIC_MAX - state.added,
        tasks=tasks,
        matches=matches,
    )


class Dynamics:
    """Works on the graph between the reading of the inbox and the assignment of what is ready."""

    def __init__(self, change: Transitions, trail: AuditTrail, fold: Fold) -> None:
        self.change = change
        self.state: RunState = change.state
        self.trail = trail
        self.fold = fold
        self.received: list[ExternalEvent] = []

    def carry_out(self, inbox: Inbox) -> None:
        """In the order in which a stored delta is applied."""
        for event in inbox.external:
            self._receive(event)
        if self.state.awaiting:
            self._match(inbox)
            self._expire_waits()
        self._forget_oldest()
        for outcome in inbox.outcomes:
            self._settle(outcome, inbox)
        self.gather()
        self._pass_idle()

    def writes(self) -> GraphWrites | None:
        state = self.state
        reusable = ()
        if state.gated:
            done = self.change.recorded.get("done", ())
            reusable = tuple(item.task_id for item in done if state.specs[state.index[item.task_id]].reuse)
        bodies: list[SpawnedBody] = self.fold.bodies
        if not (reusable or bodies or self.received):
            return None
        return GraphWrites(bodies=tuple(bodies), received=tuple(self.received), reusable=reusable)

    # External events -----------------------------------------------------------------------------------------

    def _receive(self, event: ExternalEvent) -> None:
        state = self.state
        if event.event_id in state.remembered:
            return
        arrival = Arrival(event_id=event.event_id, type=event.type, at_ms=event.at_ms, number=state.arrivals + 1)
        self.change.receive(arrival)
        self.received.append(event)
        self.trail.external_received(arrival)

    def _match(self, inbox: Inbox) -> None:
        state = self.state
        if state.kept and (state.sweep_due or inbox.matches):
            verdicts = {(m.task_id, m.trigger, m.event_id): m.matched for m in inbox.matches}
            found = sweep(state, verdicts)
            for task_id, number in found.looked.items():
                self.change.look(Looked(task_id=task_id, number=number))
            for item in found.triggered:
                self.change.trigger(item)
                self.trail.triggered(item)
            self.change.undo.set(state, "sweep_due", bool(found.undecided))

    def _forget_oldest(self) -> None:
        kept = self.state.kept
        excess = len(kept) - EXTERNAL_EVENTS_WAITING_MAX
        if excess <= 0:
            return
        for arrival in sorted(kept.values(), key=lambda a: a.number)[:excess]:
            self.change.forget(arrival.event_id)
            self.trail.external_dropped(arrival)

    def _expire_waits(self) -> None:
        state = self.state
        if state.paused:
            return
        for i, what in list(overdue(state, self.change.at_ms)):
            spec = state.specs[i]
            if what == "fail":
                names = ", ".join(dict.fromkeys(trigger.event for trigger in spec.triggers))
                self.fold.fail_waiting(i, TRIGGER_TIMEOUT, f"no event came in time: {names}")
            elif what == "skip":
                self._pass_over(i, "trigger_timeout")
            else:
                self.change.stop_awaiting(spec.id)

    # Outcomes ------------------------------------------------------------------------------------------------

    def _settle(self, outcome: TaskOutcome, inbox: Inbox) -> None:
        state, change = self.state, self.change
        i = state.index.get(outcome.task_id)
        if i is None or i not in state.held or inbox.outcomes_epoch != state.epoch:
            return  # it was found out for a state of affairs that is no more
        if outcome.decision == "run" and state.asks_hooks(i):
            change.guard(outcome.task_id)
        elif outcome.decision == "run":
            change.admit(outcome.task_id)
        elif outcome.decision == "skip":
            self._pass_over(i, "when")
        elif outcome.decision == "fail":
            self.fold.fail_waiting(i, outcome.code, outcome.message)
        elif outcome.decision == "reuse":
            self._reuse(i, outcome)
        elif state.added + outcome.size > TASKS_DYNAMIC_MAX:
            self.fold.fail_waiting(i, FOR_EACH_TOO_LONG, too_long(outcome.size, state.added))
        else:
            change.expand(Expanded(task_id=outcome.task_id, size=outcome.size, items_ref=outcome.items_ref))
            self.trail.expanded(outcome.task_id, outcome.size)

    def _reuse(self, i: int, outcome: TaskOutcome) -> None:
        result = TaskResult(
            task_id=outcome.task_id,
            attempt=self.state.tasks[i].attempt,
            result=outcome.result,
            result_ref=outcome.result_ref,
        )
        self.change.reuse(outcome.task_id)
        self.fold.results.append(result)
        self.trail.reused(result)

    def _pass_over(self, i: int, reason: str) -> None:
        task_id = self.state.specs[i].id
        self.change.pass_over(task_id)
        self.trail.passed_over(task_id, reason)

    def _pass_idle(self) -> None:
        while self.change.idle:
            i = self.change.idle.pop()
            if self.state.tasks[i].phase is Phase.PENDING:
                self._pass_over(i, "dependencies")

    def gather(self) -> None:
        """End the `for_each` tasks whose last element is over."""
        for i in self.change.gatherable:
            if self.state.tasks[i].phase is not Phase.EXPANDED:
                continue
            task_id = self.state.specs[i].id
            group = self.state.groups.get(i)
            if group is None or not group.failed:
                self.change.gather(task_id)
                self.trail.gathered(task_id, 0 if group is None else group.size)
            else:
                why = f"{group.failed} of {group.size} elements failed"
                self.fold.fail_waiting(i, ELEMENTS_FAILED, why)
        self.change.gatherable.clear()


def too_long(size: int, added: int) -> str:
    """Why a list is not taken."""
    before = f", and {added} were added before" if added else ""
    return f"for_each gave {size} elements: an execution may add {TASKS_DYNAMIC_MAX} tasks{before}"
