"""One tick: from the state and the inbox to a delta and what goes with it.

The order is fixed, and `apply_delta` follows it: what has come in, what was asked from outside, what is due, what to
start, whether the execution is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.contracts.circuits import CircuitCheck
from engine.contracts.dynamic import GraphWrites
from engine.contracts.events import AuditEvent
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import (
    Attempt,
    Checkpoint,
    Control,
    Delta,
    ErrandOutcome,
    Failed,
    Metrics,
    TaskResult,
    TerminalError,
)
from workflows.kernel.audit import AuditTrail
from workflows.kernel.awaiting import awaited_events
from workflows.kernel.chains import RIDERS_MAX, goes_after, rest_of_chain, riders, sent_ahead
from workflows.kernel.circuits import Circuits, is_held, type_of
from workflows.kernel.desk import Desk, note_key, overlay_key
from workflows.kernel.dynamics import Dynamics
from workflows.kernel.fold import TASK_TIMEOUT, Fold, derived_id
from workflows.kernel.growth import dropped_by_rewind
from workflows.kernel.guards import Guards, input_key
from workflows.kernel.inbox import Inbox, admit
from workflows.kernel.policy import Policy
from workflows.kernel.rollback import Rollback
from workflows.kernel.state import Phase, RunState
from workflows.kernel.transitions import Transitions

RESENDS_MAX = 1
"""Assignments repeated to a silent agent before it counts as lost."""

ASSIGNMENTS_PER_TICK_MAX = 2_000
"""Keeps a commit well under half a second."""

PHASE_NAMES_MAX = 3
AWAITING_SHOWN_MAX = 50


@dataclass
class Decision:
    """What a tick proposes. `change` can take it back."""

    change: Transitions
    delta: Delta
    acknowledge: list[str]
    results: list[TaskResult]
    cancel: list[Attempt]
    hosts: dict[str, str]
    audit: list[AuditEvent]
    metrics: Metrics
    current_phase: str | None
    hosts_came: bool
    """A host was registered that may serve agents which have none."""
    writes: GraphWrites | None = None
    """What a change of the graph stores beside the delta."""
    circuits: CircuitCheck | None = None
    agent_failures: dict[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Nothing to store: no field of the delta is set, and nothing to acknowledge."""
        return not self.change.recorded and not self.acknowledge


def decide(state: RunState, policy: Policy, inbox: Inbox, now_ms: int) -> Decision:
    """Propose the next tick. The state is changed; `Decision.change.undo.rollback()` takes that back."""
    return _Tick(state, policy, inbox, now_ms).decide()


class _Tick:
    def __init__(self, state: RunState, policy: Policy, inbox: Inbox, now_ms: int) -> None:
        self.state = state
        self.policy = policy
        self.inbox = inbox
        self.now_ms = now_ms
        self.change = Transitions(state, now_ms)
        self.trail = AuditTrail(state, now_ms)
        judges = (lambda i: policy.judges(state, i)) if policy.coordinates else None
        self.fold = Fold(self.change, self.trail, judges)
        if policy.coordinates:
            self.fold.judges_failure = lambda i: policy.judges_failure(state, i)
            self.fold.refuses_added = lambda i, bodies: policy.refuses_added(state, i, bodies)
        self.dynamics = Dynamics(self.change, self.trail, self.fold)
        self.guards = Guards(self.change, self.trail, self.fold)
        self.rollback = Rollback(self.change, self.trail, policy)
        self.circuits = Circuits(self.change, self.trail, self.fold)

    def decide(self) -> Decision:
        state, inbox = self.state, self.inbox
        admitted = admit(state, inbox.batches)
        if admitted.consumed or admitted.fence != state.fence:
            self.change.consume(admitted.consumed, admitted.low, admitted.fence)
        if not state.closed:
            self._resume_from_earlier()
            self._open()
            self.circuits.take_in(inbox.circuits, admitted.events)
            self.fold.bindings(inbox.bindings)
            self.fold.events(admitted.events)
            if state.undoing is None:
                self._go_on()
                self._undo(())
            else:
                self.guards.carry_out(inbox.errands)
                self._undo(inbox.errands)
                self._obey()
                if "status" in self.change.recorded:
                    self._undo(())  # resumed
        self.change.finish()
        return Decision(
            change=self.change,
            delta=self.change.delta(),
            acknowledge=admitted.acknowledge,
            results=self.fold.results,
            cancel=self.fold.cancel,
            hosts=self._hosts(),
            audit=self.trail.events,
            metrics=self._metrics(),
            current_phase=self._phase(),
            hosts_came=self.fold.hosts_came,
            writes=self.dynamics.writes(),
            circuits=self.circuits.check(),
            agent_failures=self._agent_failures(),
        )

    def _go_on(self) -> None:
        state, inbox = self.state, self.inbox
        self._expire()
        if state.gated or state.growth or inbox.external:
            self.dynamics.carry_out(inbox)
        self.guards.carry_out(inbox.errands)
        if self.circuits.any_known and not state.paused:
            self.circuits.fail_held()
        ending = self._coordinate() if self.policy.coordinates and not (self.guards.holds_all or state.ending) else None
        self._fail_branches()
        if self.guards.refusal is not None and not state.ending:
            self._close(ExecutionStatus.FAILED, self.guards.refusal)
        if ending is not None and not state.ending:
            self._close(*ending)
        elif self.guards.lets_end and not state.ending:
            self._close(ExecutionStatus.COMPLETED)
        self._obey()  # after what ends it: a tick changes the status once
        if state.launch.hooks is not None and not state.ending:
            self.guards.begin()
        self._assign()
        self._conclude()

    def _undo(self, outcomes: Sequence[ErrandOutcome]) -> None:
        """Instead of everything else, until what can be undone is."""
        undoing = self.state.undoing
        if undoing is None or self.state.closed:
            return
        error = self.rollback.carry_on(outcomes)
        if error is not None:
            self._settle(undoing.item.status, error)

    def _open(self) -> None:
        if self.state.status is ExecutionStatus.PLANNING:
            self.trail.execution_started()
            self._set_status(ExecutionStatus.EXECUTING)

    def _set_status(self, status: ExecutionStatus) -> None:
        self.trail.status_changed(self.state.status, status)
        self.change.set_status(status)

    # What was asked from outside -----------------------------------------------------------------------------

    def _resume_from_earlier(self) -> None:
        control, rewind = self.inbox.control, self.inbox.rewind
        if control is None or rewind is None or not self.state.paused or self.state.undoing is not None:
            return
        self._stop_in_flight()
        rewind = rewind.model_copy(update={"dropped": dropped_by_rewind(self.state, rewind.tasks)})
        self.change.rewind(rewind)
        self.trail.resumed_from(rewind)

    def _obey(self) -> None:
        control = self.inbox.control
        if control is None or control.request_id == self.state.control_seen:
            return
        self.change.see_control(control.request_id)
        if self.state.closed:
            return
        if control.action == "pause":
            self._checkpoint("pause", control)
            if not self.state.paused:
                self._set_status(ExecutionStatus.PAUSED)
        elif control.action == "checkpoint":
            self._checkpoint("requested", control)
        elif control.action == "resume" and self.state.paused:
            self._set_status(ExecutionStatus.EXECUTING)
        elif control.action == "cancel" and self.state.undoing is None:
            self._close(ExecutionStatus.CANCELLED)
        elif control.action == "cancel" and self.state.paused:
            self._set_status(ExecutionStatus.EXECUTING)  # undoing is not cancelled: it goes on

    def _checkpoint(self, reason: str, control: Control | None = None) -> None:
        state = self.state
        completed = tuple(t.id for t, run in zip(state.specs, state.tasks, strict=True)
                          if run.phase is Phase.COMPLETED)  # fmt: skip
        item = Checkpoint.model_validate(
            {
                "checkpoint_id": (control and control.checkpoint_id) or derived_id(state, "checkpoint"),
                "reason": reason,
                "completed": completed,
                "in_flight": tuple(self.state.attempt(i) for i in sorted(state.in_flight)),
            }
        )
        self.change.checkpoint(item)
        self.trail.checkpoint(item)

    # What is due ---------------------------------------------------------------------------------------------

    def _expire(self) -> None:
        state, now_ms = self.state, self.now_ms
        for i in sorted(state.delayed):
            if state.tasks[i].due_ms <= now_ms:
                self.change.retry(state.specs[i].id)
        if state.paused and state.grace_due_ms is not None and state.grace_due_ms <= now_ms:
            self._end_grace()
        self._expire_in_flight()
        for agent_id in sorted(agent_id for agent_id, until_ms in state.suspects.items() if until_ms <= now_ms):
            self.fold.recover(state.agents[agent_id])
        if state.paused:
            return
        if state.deadline_ms <= now_ms:
            seconds = state.launch.timeout_ms // 1000
            self._close(
                ExecutionStatus.FAILED,
                TerminalError(
                    error_code="EXECUTION_TIMEOUT",
                    error_message=f"not done after {seconds} s (execution_options.timeout)",
                ),
            )
        elif state.checkpoint_due_ms <= now_ms and state.completed > state.checkpointed:
            self._checkpoint("interval")

    def _end_grace(self) -> None:
        """The pause has lasted: what still runs is given up, and will run again."""
        self.change.end_grace()
        self.change.recorded["grace_over"] = True
        for i in sorted(self.state.in_flight):
            attempt = self.state.attempt(i)
            self.fold.cancel.append(attempt)
            self.change.doubt(attempt.task_id)
            self.change.give_back(attempt)
            self.trail.returned(attempt, "still running when the pause's grace was over")

    def _expire_in_flight(self) -> None:
        """Silent agents first: what they had is then no longer in flight, and neither times out nor is sent again."""
        state = self.state
        overdue = [i for i in sorted(state.in_flight) if state.tasks[i].due_ms <= self.now_ms]
        unconfirmed = [i for i in overdue if state.tasks[i].phase is Phase.ASSIGNED]
        silent = [i for i in unconfirmed if state.tasks[i].resends >= RESENDS_MAX and not self._is_busy(i)]
        for agent_id in sorted({state.tasks[i].agent_id or "" for i in silent}):
            self.fold.lose(state.agents[agent_id], "it confirmed no assignment")
        resent: set[int] = set()
        for i in overdue:
            run, task = state.tasks[i], state.specs[i]
            if run.phase is Phase.RUNNING:
                why = f"not done {task.timeout_ms / 1000:g} s after its start"
                self.fold.cancel.append(self.state.attempt(i))
                self.fold.fail(i, TASK_TIMEOUT, why, retryable=True)
            elif run.phase is Phase.ASSIGNED:
                self._resend(i, resent)

    def _resend(self, head: int, resent: set[int]) -> None:
        """With what rides behind it: the entry that brought them may be lost."""
        for i in (head, *riders(self.state, head)):
            if i not in resent:
                resent.add(i)
                host_id = self.state.agents[self.state.tasks[i].agent_id or ""].host_id or ""
                after = goes_after(self.state, i) if self.state.tasks[i].riding else ()
                note = self.state.board.get(note_key(self.state.specs[i].id))
                given = self.state.board.get(input_key(self.state.specs[i].id))
                overlay = self.state.board.get(overlay_key(self.state.specs[i].id))
                sent = {"host_id": host_id, "after": after, "note": note, "input": given, "overlay": overlay}
                self.change.resend(self.state.attempt(i).model_copy(update=sent))

    def _is_busy(self, i: int) -> bool:
        """Its agent runs other tasks of ours, so that this one may well be waiting there."""
        state, agent_id = self.state, self.state.tasks[i].agent_id
        return any(state.tasks[j].agent_id == agent_id and state.tasks[j].phase is Phase.RUNNING
                   for j in state.in_flight)  # fmt: skip

    # What the pattern makes of it ----------------------------------------------------------------------------

    def _coordinate(self) -> tuple[ExecutionStatus, TerminalError | None] | None:
        """How the pattern wants the execution to end, if it does."""
        desk = Desk(self.change, self.trail, self.fold, self.dynamics.gather, self.inbox.errands)
        self.policy.react(desk)
        return desk.ending

    # What follows --------------------------------------------------------------------------------------------

    def _fail_branches(self) -> None:
        """A task was given up: end the execution, or skip what depends on it."""
        failed = self.fold.first_failed
        if failed is None or self.state.ending:
            return
        for item in self.change.recorded.get("failed", ()):
            if item.retry_at_ms is None:
                i = self.state.index[item.task_id]
                rule = self.state.specs[i].on_failure or self.state.plan.on_failure
                if rule == "fail_fast" and item.task_id not in self.fold.branch_only:
                    self._close(ExecutionStatus.FAILED, _task_failed(item))
                    return
                self._skip_dependents(i)

    def _skip_dependents(self, i: int) -> None:
        waiting = list(self.state.dependents[i])
        while waiting:
            j = waiting.pop()
            if not self.state.tasks[j].phase.over:
                self.change.skip(self.state.specs[j].id)
                self.trail.task_closed("skipped", self.state.specs[j].id)
                waiting.extend(self.state.dependents[j])

    def _assign(self) -> None:
        state = self.state
        if state.status is not ExecutionStatus.EXECUTING or self.guards.holds_all or self.guards.ending:
            return
        if state.undoing is not None:
            return
        if self.circuits.any_known:
            self._assign_within_circuits()
            return
        news: list[int] = []
        for n, (i, agent_id) in enumerate(self.policy.assignments(state)):
            if n >= ASSIGNMENTS_PER_TICK_MAX:
                break
            self._send(self._attempt(i, agent_id))
            news.append(i)
            if self.policy.fuses_chains and i in state.followers and state.agents[agent_id].chains:
                for j, rider in rest_of_chain(state, i, agent_id):
                    self._send(rider)
                    news.append(j)
        if self.policy.looks_ahead:
            news.extend(state.index[item.task_id] for item in self.change.recorded.get("done", ()))
            for _, rider in sent_ahead(state, news, RIDERS_MAX - state.riders):
                self._send(rider)

    def _attempt(self, i: int, agent_id: str) -> Attempt:
        state = self.state
        return Attempt.trusted(
            task_id=state.specs[i].id,
            agent_id=agent_id,
            attempt=state.tasks[i].attempt + 1,
            host_id=state.agents[agent_id].host_id or "",
            note=state.board.get(note_key(state.specs[i].id)) if state.board else None,
            input=state.board.get(input_key(state.specs[i].id)) if state.board else None,
            overlay=state.board.get(overlay_key(state.specs[i].id)) if state.board else None,
        )

    def _assign_within_circuits(self) -> None:
        """As many as the breakers let through. Nothing goes out ahead of time: it would be no probe."""
        state, circuits = self.state, self.circuits
        room: dict[str, int | None] = {}
        sent: dict[str, int] = {}
        n = 0
        for i, agent_id in self.policy.assignments(state):
            agent_type = type_of(state, agent_id)
            left = room.setdefault(agent_type, circuits.room(agent_type))
            if n >= ASSIGNMENTS_PER_TICK_MAX or left == 0:
                continue
            self._send(self._attempt(i, agent_id))
            n += 1
            if left is not None:
                room[agent_type] = left - 1
                sent[agent_type] = sent.get(agent_type, 0) + 1
        for agent_type, probes in sorted(sent.items()):
            circuits.note_probes(agent_type, probes)
        circuits.note_left()
        for i in circuits.would_wait():
            agent = circuits.other_agent(i) if n < ASSIGNMENTS_PER_TICK_MAX else None
            if agent is not None:
                self._send(self._attempt(i, agent.agent_id))
                n += 1

    def _agent_failures(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for attempt, verdict, _ in self.fold.ended:
            if verdict == "failed":
                agent_type = type_of(self.state, attempt.agent_id)
                found[agent_type] = found.get(agent_type, 0) + 1
        return found

    def _send(self, attempt: Attempt) -> None:
        self.change.assign(attempt)
        self.trail.assigned(attempt)

    def _conclude(self) -> None:
        state = self.state
        if state.status is not ExecutionStatus.EXECUTING or state.undoing is not None:
            return
        if state.open_tasks == 0:
            if state.failed:
                self._close(ExecutionStatus.FAILED, self._branches_failed())
            else:
                self._close(ExecutionStatus.COMPLETED)
        elif self.inbox.allocation_error is not None and self._waits_for_host():
            code, message = self.inbox.allocation_error
            self._close(ExecutionStatus.FAILED, TerminalError(error_code=code, error_message=message))
        elif self._stalled():
            stuck = [t.id for t, run in zip(state.specs, state.tasks, strict=True) if not run.phase.over]
            self._close(
                ExecutionStatus.FAILED,
                TerminalError(
                    error_code="STALLED",
                    error_message=f"nothing runs, nothing is due, and {len(stuck)} tasks are left: "
                    + ", ".join(stuck[:10]),
                    details={"tasks": stuck[:1000]},
                ),
            )

    def _stalled(self) -> bool:
        """Nothing in flight, nothing due, nothing ready that a host could still come for, nothing awaited."""
        state = self.state
        coming = state.in_flight or state.delayed or state.held or state.awaiting or state.errands or state.guarded
        return not (coming or self._needs_host() or self.policy.next_due_ms(state) is not None)

    def _waits_for_host(self) -> bool:
        """Nothing else is under way, and no breaker holds what there is to do."""
        state = self.state
        return self._needs_host() and not (state.in_flight or state.delayed or is_held(state, self.now_ms))

    def _needs_host(self) -> bool:
        return bool(self.state.ready_alone or any(self.state.ready.values()))

    def _branches_failed(self) -> TerminalError:
        state = self.state
        failed = [t.id for t, run in zip(state.specs, state.tasks, strict=True) if run.phase is Phase.FAILED]
        return TerminalError(
            error_code="TASKS_FAILED",
            error_message=f"{len(failed)} tasks failed: " + ", ".join(failed[:10]),
            failed_task=failed[0],
            details={"tasks": failed[:1000]},
        )

    def _close(self, status: ExecutionStatus, error: TerminalError | None = None) -> None:
        """What is to be undone is undone first, and the execution closes after that."""
        if status is ExecutionStatus.COMPLETED and self.guards.holds_end:
            self.guards.await_end()
            return
        state = self.state
        undo = self.rollback.due() if state.registered and status is not ExecutionStatus.COMPLETED else []
        self._stop_in_flight()
        for task, run in zip(state.specs, state.tasks, strict=True):
            if not run.phase.over:
                self.change.cancel(task.id)
                self.trail.task_closed("cancelled", task.id)
        if not self.rollback.begin(undo, status, error):
            self._settle(status, self.rollback.explain(undo, error))
        elif state.paused:
            self._set_status(ExecutionStatus.EXECUTING)

    def _settle(self, status: ExecutionStatus, error: TerminalError | None) -> None:
        if error is not None:
            self.change.set_error(error)
            if status is not ExecutionStatus.CANCELLED:
                self.trail.error(error)
        self._set_status(status)

    def _stop_in_flight(self) -> None:
        self.fold.cancel.extend(self.state.attempt(i) for i in sorted(self.state.in_flight))
        if self.state.registered:
            for i in sorted(self.state.in_flight):
                self.change.doubt(self.state.specs[i].id)

    # What is told --------------------------------------------------------------------------------------------

    def _hosts(self) -> dict[str, str]:
        """Where to send what this tick has to say: to whom it concerns; on a change of status, to all."""
        state, recorded = self.state, self.change.recorded
        if "status" in recorded:
            concerned: set[str] = set(state.agents)
        else:
            ended = (*recorded.get("done", ()), *recorded.get("failed", ()), *recorded.get("submitted", ()))
            items = (*ended, *self.fold.cancel)
            concerned = {item.agent_id for item in items}
        found = {agent_id: state.agents[agent_id].host_id for agent_id in sorted(concerned) if agent_id in state.agents}
        return {agent_id: host_id for agent_id, host_id in found.items() if host_id is not None}

    def _metrics(self) -> Metrics:
        state = self.state
        return Metrics(
            tasks_completed=state.completed,
            tasks_failed=state.failed,
            tasks_running=len(state.in_flight),
            tasks_added=state.added,
            awaiting=awaited_events(state, AWAITING_SHOWN_MAX) if state.awaiting else {},
            idle_ms=state.idle_ms,
            paused_ms=state.paused_ms,
        )

    def _phase(self) -> str | None:
        state = self.state
        if state.undoing is not None and not state.closed:
            return f"compensating: {', '.join(state.undoing.running()[:PHASE_NAMES_MAX])}"[:200]
        names = [state.specs[i].id for i in sorted(state.in_flight)[:PHASE_NAMES_MAX]]
        if not names:
            return None
        more = len(state.in_flight) - len(names)
        return ", ".join(names)[:200] + (f" and {more} more" if more else "")


def _task_failed(item: Failed) -> TerminalError:
    return TerminalError(
        error_code="TASK_FAILED",
        error_message=item.message or f"task {item.task_id} failed with {item.code}",
        failed_task=item.task_id,
        details={"code": item.code, "attempts": item.attempt, "agent_id": item.agent_id},
    )
