"""The only code that changes a `RunState`: one method for each kind of change in a `Delta`.

Deciding calls these methods and so records the delta; applying a stored delta calls them again. Both therefore
reach the same state, which a property test shows.
"""

from typing import Any

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import (
    AgentBinding,
    Attempt,
    Checkpoint,
    Delta,
    Done,
    Failed,
    Paced,
    Started,
    Suspected,
    TerminalError,
)
from engine.contracts.streams import entry_order
from workflows.kernel.awaiting import EventTransitions
from workflows.kernel.compensation import CompensationTransitions
from workflows.kernel.coordination import CoordinationTransitions
from workflows.kernel.growth import GraphTransitions
from workflows.kernel.state import PACE_WEIGHT, Phase, RunState

NEVER_MS = 2**53 - 1
"""Due time of what waits for something else; the largest number that every reader of JSON takes as it is."""

RESEND_AFTER_MS = 15_000
"""An assignment that its agent has not confirmed for so long is sent again."""


_DONE = (Phase.COMPLETED, Phase.SUBMITTED)
"""An agent has done its part, and is remembered."""


class Transitions(EventTransitions, GraphTransitions, CoordinationTransitions, CompensationTransitions):
    """Changes a state within one tick, remembers how to undo that, and collects the delta's fields."""

    # Inbox -------------------------------------------------------------------------------------------------

    def consume(self, entry_ids: list[str], low: str, fence: int) -> None:
        state = self.state
        low_key = max(entry_order(low), state.low)
        kept = [e for e in (*state.consumed, *entry_ids) if entry_order(e) >= low_key]
        self.undo.set(state, "consumed", dict.fromkeys(kept))
        self.undo.set(state, "low", low_key)
        self.undo.set(state, "fence", max(fence, state.fence))
        self.recorded.update(consumed=entry_ids, low=f"{low_key[0]}-{low_key[1]}", fence=state.fence)

    # Agents ------------------------------------------------------------------------------------------------

    def bind(self, binding: AgentBinding) -> None:
        agent = self.state.agents[binding.agent_id]
        self.undo.set(agent, "host_id", binding.host_id)
        self.undo.set(agent, "slots", binding.slots)
        self.undo.set(agent, "chains", binding.chains)
        self._trust(binding.agent_id)
        self.undo.set(agent, "speed", binding.speed)
        self._record("bound", binding)

    def lose(self, agent_id: str) -> None:
        self.undo.set(self.state.agents[agent_id], "host_id", None)
        self._trust(agent_id)
        self._record("gone", agent_id)

    def suspect(self, item: Suspected) -> None:
        self.undo.set(self.state.agents[item.agent_id], "suspect", True)
        self.undo.put(self.state.suspects, item.agent_id, item.until_ms)
        self._record("suspected", item)

    def recover(self, agent_id: str) -> None:
        self._trust(agent_id)
        self._record("recovered", agent_id)

    def _trust(self, agent_id: str) -> None:
        if agent_id in self.state.suspects:
            self.undo.set(self.state.agents[agent_id], "suspect", False)
            self.undo.drop(self.state.suspects, agent_id)

    def pace(self, item: Paced) -> None:
        self.undo.set(self.state.agents[item.agent_id], "speed", item.speed)
        self._record("paced", item)

    # Tasks -------------------------------------------------------------------------------------------------

    def start(self, item: Started) -> None:
        i = self.state.index[item.task_id]
        run = self.state.tasks[i]
        self.undo.set(run, "phase", Phase.RUNNING)
        self.undo.set(run, "due_ms", item.at_ms + self.state.specs[i].timeout_ms)
        self._record("started", item)

    def complete(self, item: Done) -> None:
        state, undo = self.state, self.undo
        i = state.index[item.task_id]
        self._leave_flight(i, Phase.COMPLETED)
        undo.set(state, "completed", state.completed + 1)
        self._note_work(i, item.started_at_ms, item.at_ms)
        self._release(i)
        self._record("done", item)

    def _note_work(self, i: int, started_at_ms: int, at_ms: int) -> None:
        state = self.state
        self._busy.append((started_at_ms, at_ms))
        role = state.specs[i].role
        duration_ms, known = max(at_ms - started_at_ms, 0), state.pace_ms.get(role)
        pace_ms = duration_ms if known is None else known + PACE_WEIGHT * (duration_ms - known)
        self.undo.put(state.pace_ms, role, float(pace_ms))
        if state.tracks_agents:
            agent = state.agents[state.tasks[i].agent_id or ""]
            known = agent.pace_ms
            pace_ms = duration_ms if known is None else known + PACE_WEIGHT * (duration_ms - known)
            self.undo.set(agent, "pace_ms", float(pace_ms))

    def fail(self, item: Failed) -> None:
        """End an attempt without a result: retry at once, retry later, or give the task up."""
        state, undo = self.state, self.undo
        i = state.index[item.task_id]
        run = state.tasks[i]
        counter = "failures" if item.blamed else "losses"
        undo.set(run, counter, getattr(run, counter) + 1)
        if run.phase is Phase.READY:
            self._leave_ready(i)
        if item.retry_at_ms is None:
            self._leave_flight(i, Phase.FAILED)
            undo.set(state, "failed", state.failed + 1)
        elif item.retry_at_ms <= self.at_ms:
            self._leave_flight(i, Phase.READY)
        else:
            self._leave_flight(i, Phase.DELAYED)
            undo.set(run, "due_ms", item.retry_at_ms)
            undo.put(state.delayed, i, None)
        self._record("failed", item)

    def give_back(self, attempt: Attempt) -> None:
        """The attempt is taken back; the task is ready again, without blame."""
        self._leave_flight(self.state.index[attempt.task_id], Phase.READY)
        self._record("returned", attempt)

    def retry(self, task_id: str) -> None:
        i = self.state.index[task_id]
        self.undo.drop(self.state.delayed, i)
        self._make_ready(i)
        self._record("retried", task_id)

    def skip(self, task_id: str) -> None:
        self._close_task(self.state.index[task_id], Phase.SKIPPED)
        self._record("skipped", task_id)

    def cancel(self, task_id: str) -> None:
        self._close_task(self.state.index[task_id], Phase.CANCELLED)
        self._record("cancelled", task_id)

    def assign(self, attempt: Attempt) -> None:
        state, undo = self.state, self.undo
        i = state.index[attempt.task_id]
        run = state.tasks[i]
        riding = bool(attempt.after)
        if not riding:
            self._leave_ready(i)
        undo.keep(run)
        run.phase, run.riding = Phase.ASSIGNED, riding
        run.attempt, run.agent_id = attempt.attempt, attempt.agent_id
        run.assigned_at_ms, run.resends = self.at_ms, 0
        run.due_ms = NEVER_MS if riding else self.at_ms + RESEND_AFTER_MS
        undo.put(state.in_flight, i, None)
        if riding:
            undo.set(state, "riders", state.riders + 1)
        else:
            agent = state.agents[attempt.agent_id]
            undo.set(agent, "load", agent.load + 1)
            if state.tracks_agents:
                undo.set(state, "turns", state.turns + 1)
                undo.set(agent, "turn", state.turns)
        self._record("assigned", attempt)
        self._register(i)

    def resend(self, attempt: Attempt) -> None:
        run = self.state.tasks[self.state.index[attempt.task_id]]
        if not run.riding:
            self.undo.set(run, "resends", run.resends + 1)
            self.undo.set(run, "due_ms", self.at_ms + RESEND_AFTER_MS)
        self._record("resent", attempt)

    def _alight(self, j: int) -> None:
        run = self.state.tasks[j]
        agent = self.state.agents[run.agent_id or ""]
        self.undo.set(run, "riding", False)
        if run.phase is Phase.ASSIGNED:  # a stored tick tells of its start before its predecessor's end
            self.undo.set(run, "due_ms", self.at_ms + RESEND_AFTER_MS)
        self.undo.set(agent, "load", agent.load + 1)
        self.undo.set(self.state, "riders", self.state.riders - 1)

    # The execution -----------------------------------------------------------------------------------------

    def checkpoint(self, item: Checkpoint) -> None:
        state = self.state
        self.undo.set(state, "latest_checkpoint", item.checkpoint_id)
        self.undo.set(state, "checkpointed", state.completed)
        self.undo.set(state, "checkpoint_due_ms", self.at_ms + state.launch.checkpoint_interval_ms)
        self.recorded["checkpoint"] = item

    def set_status(self, status: ExecutionStatus) -> None:
        state, undo = self.state, self.undo
        if status is ExecutionStatus.PAUSED:
            undo.set(state, "paused_at_ms", self.at_ms)
            undo.set(state, "grace_due_ms", self.at_ms + state.launch.pause_grace_ms)
        elif state.paused_at_ms is not None:
            paused_ms = max(self.at_ms - state.paused_at_ms, 0)
            undo.set(state, "paused_ms", state.paused_ms + paused_ms)
            undo.set(state, "deadline_ms", state.deadline_ms + paused_ms)
            undo.set(state, "covered_until_ms", max(state.covered_until_ms, self.at_ms))
            undo.set(state, "paused_at_ms", None)
            undo.set(state, "grace_due_ms", None)
        self._settle_idle = status is ExecutionStatus.PAUSED or status.closed
        undo.set(state, "status", status)
        self.recorded["status"] = status

    def end_grace(self) -> None:
        self.undo.set(self.state, "grace_due_ms", None)

    def set_error(self, error: TerminalError) -> None:
        self.recorded["error"] = error

    def see_control(self, request_id: str) -> None:
        self.undo.set(self.state, "control_seen", request_id)
        self.recorded["control_seen"] = request_id

    def delta(self) -> Delta:
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in self.recorded.items()}
        return Delta.model_construct(
            _fields_set={"tick", "at_ms", *fields},
            tick=self.state.tick,
            at_ms=self.at_ms,
            **{**_EMPTY, **fields},
        )

    # Parts -------------------------------------------------------------------------------------------------

    def _leave_flight(self, i: int, phase: Phase) -> None:
        state, undo = self.state, self.undo
        run = state.tasks[i]
        undo.drop(state.in_flight, i)
        if state.gated:
            self._stop_waiting(i)
        if state.submitted:
            undo.drop(state.submitted, i)
        if run.riding:
            undo.set(run, "riding", False)
            undo.set(state, "riders", state.riders - 1)
        elif run.agent_id is not None and run.phase.in_flight:
            agent = state.agents[run.agent_id]
            undo.set(agent, "load", agent.load - 1)
            if phase not in _DONE:
                self._busy.append((run.assigned_at_ms, self.at_ms))
        undo.set(run, "agent_id", run.agent_id if phase in _DONE else None)
        if phase is Phase.READY and not run.remaining:
            self._make_ready(i)
            return
        undo.set(run, "phase", Phase.PENDING if phase is Phase.READY else phase)
        if phase is Phase.COMPLETED and state.registered:
            self._finish_registered(i)
        if phase.over:
            undo.set(state, "open_tasks", state.open_tasks - 1)
            if state.parent:
                self._element_over(i)

    def _close_task(self, i: int, phase: Phase) -> None:
        """Skip or cancel a task wherever it stands."""
        run = self.state.tasks[i]
        if run.phase is Phase.READY:
            self._leave_ready(i)
        elif run.phase is Phase.DELAYED:
            self.undo.drop(self.state.delayed, i)
        self._leave_flight(i, phase)

    def finish(self) -> None:
        """Close the tick's books: time in which no task ran is idle, whatever the order of the reports."""
        state = self.state
        idle_ms, covered_until_ms = state.idle_ms, state.covered_until_ms
        if self._settle_idle and not state.in_flight:
            self._busy.append((self.at_ms, self.at_ms))
        for started_at_ms, at_ms in sorted(self._busy):
            idle_ms += max(started_at_ms - covered_until_ms, 0)
            covered_until_ms = max(covered_until_ms, at_ms)
        self.undo.set(state, "idle_ms", idle_ms)
        self.undo.set(state, "covered_until_ms", covered_until_ms)


_EMPTY: dict[str, Any] = {
    name: field.get_default(call_default_factory=True)
    for name, field in Delta.model_fields.items()
    if name not in ("tick", "at_ms")
}


def apply_delta(state: RunState, delta: Delta) -> None:
    """Apply a stored tick. Raises ValueError when it is not the next one."""
    if delta.tick != state.tick + 1:
        raise ValueError(f"tick {delta.tick} cannot follow tick {state.tick}")
    change = Transitions(state, delta.at_ms)
    if delta.consumed or delta.fence or delta.low != "0-0":
        change.consume(list(delta.consumed), delta.low, delta.fence)
    if delta.rewind is not None:
        change.rewind(delta.rewind)
    steps: tuple[tuple[Any, Any], ...] = (
        (delta.bound, change.bind),
        (delta.started, change.start),
        (delta.done, change.complete),
        (delta.submitted, change.submit),
        (delta.spawned, change.spawn),
        (delta.received, change.receive),
        (delta.forgotten, change.forget),
        (delta.failed, change.fail),
        (delta.suspected, change.suspect),
        (delta.recovered, change.recover),
        (delta.paced, change.pace),
        (delta.gone, change.lose),
        (delta.returned, change.give_back),
        (delta.retried, change.retry),
        (delta.looked, change.look),
        (delta.triggered, change.trigger),
        (delta.waited, change.stop_awaiting),
        (delta.guarded, change.guard),
        (delta.admitted, change.admit),
        (delta.expanded, change.expand),
        (delta.reused, change.reuse),
        (delta.gathered, change.gather),
        (delta.passed, change.pass_over),
        (delta.doubted, change.doubt),
        (delta.returned_errands, change.end_errand),
        (delta.compensated, change.compensated),
        (delta.uncompensated, change.uncompensated),
        (delta.taken, change.take),
        (delta.settled, change.settle),
        (delta.asked, change.ask),
        (tuple(delta.posted.items()), change.post_item),
        (delta.errands, change.begin_errand),
        (delta.skipped, change.skip),
        (delta.cancelled, change.cancel),
        (delta.assigned, change.assign),
        (delta.resent, change.resend),
    )
    if delta.grace_over:
        change.end_grace()
    for items, step in steps:
        for item in items:
            step(item)
    if delta.undoing is not None:
        change.begin_undoing(delta.undoing)
    for begun in delta.compensating:
        change.compensate(begun)
    if delta.checkpoint is not None:
        change.checkpoint(delta.checkpoint)
    if delta.status is not None:
        change.set_status(delta.status)
    if delta.control_seen is not None:
        change.see_control(delta.control_seen)
    change.finish()
