"""What all kinds of changes of a state share: the undo log, the record of the delta, and getting tasks ready."""

from typing import Any

from workflows.kernel.state import Phase, RunState
from workflows.kernel.undo import UndoLog


class Moves:
    """Changes a state within one tick; base of the kinds of transitions."""

    def __init__(self, state: RunState, at_ms: int) -> None:
        self.state = state
        self.at_ms = at_ms
        self.undo = UndoLog()
        self.recorded: dict[str, Any] = {}
        self.idle: list[int] = []
        """Tasks all of whose dependencies were skipped: they are to be skipped too."""
        self.gatherable: list[int] = []
        """`for_each` tasks whose last element is over."""
        self._busy: list[tuple[int, int]] = []
        self._settle_idle = False
        self.undo.set(state, "tick", state.tick + 1)

    def _record(self, field: str, item: Any) -> None:
        self.recorded.setdefault(field, []).append(item)

    def _release(self, i: int) -> None:
        """A task is done: what waited for it alone goes on."""
        state, undo = self.state, self.undo
        for j in state.dependents[i]:
            run = state.tasks[j]
            undo.set(run, "remaining", run.remaining - 1)
            if run.remaining == 0:
                if run.phase is Phase.PENDING:
                    self._unblock(j)
                elif run.riding:
                    self._alight(j)

    def _unblock(self, j: int) -> None:
        """Nothing is left to wait for among its dependencies."""
        if j in self.state.gated:
            self._gate(j)
        else:
            self._make_ready(j)

    def _gate(self, j: int) -> None:
        state, undo = self.state, self.undo
        run = state.tasks[j]
        phase, due_ms = state.gated_phase(j, self.at_ms)
        undo.set(run, "due_ms", due_ms)
        if phase is Phase.READY:
            self._make_ready(j)
            return
        undo.set(run, "phase", phase)
        if phase is Phase.HELD:
            undo.put(state.held, j, None)
        elif phase is Phase.GUARDED:
            undo.put(state.guarded, j, None)
        else:
            undo.put(state.awaiting, j, 0)
            undo.set(state, "sweep_due", True)

    def _stop_waiting(self, i: int) -> None:
        self.undo.drop(self.state.held, i)
        self.undo.drop(self.state.guarded, i)
        self.undo.drop(self.state.awaiting, i)

    def _make_ready(self, i: int) -> None:
        self.undo.set(self.state.tasks[i], "phase", Phase.READY)
        self.undo.insort(self._ready_list(i), (self.state.specs[i].slack_ms, i))

    def _leave_ready(self, i: int) -> None:
        self.undo.unsort(self._ready_list(i), (self.state.specs[i].slack_ms, i))

    def _ready_list(self, i: int) -> list[tuple[int, int]]:
        task = self.state.specs[i]
        return self.state.ready_alone if task.alone else self.state.ready[task.role]

    def doubt(self, task_id: str) -> None:
        """An attempt has ended that may have done what it was to do."""
        raise NotImplementedError

    def _register(self, i: int) -> None:
        """It is about to be done, and can be undone from here on."""
        raise NotImplementedError

    def _alight(self, j: int) -> None:
        """What it went after is done: it is its agent's work now, as any other."""
        raise NotImplementedError

    def _leave_flight(self, i: int, phase: Phase) -> None:
        """Take the task to this phase, from wherever it stands."""
        raise NotImplementedError
