"""Changes of the state that have to do with compensation. Part of `Transitions`."""

from engine.contracts.compensation import Compensated, Compensating, LeftCompensation, Uncompensated
from engine.contracts.kernel import Undoing
from workflows.kernel.moves import Moves
from workflows.kernel.undoing import DOUBTFUL, UNFINISHED, UndoState


class CompensationTransitions(Moves):
    """One method for each kind of change."""

    def doubt(self, task_id: str) -> None:
        """An attempt has ended, and nobody knows what it did: it may have to be undone."""
        if self.state.registered.get(task_id) == UNFINISHED:
            self.undo.put(self.state.registered, task_id, DOUBTFUL)
            self._record("doubted", task_id)

    def begin_undoing(self, item: Undoing) -> None:
        self.undo.set(self.state, "undoing", UndoState(item))
        self.recorded["undoing"] = item

    def compensate(self, item: Compensating) -> None:
        run = self._undoing.runs[item.task_id]
        self.undo.keep(run)
        run.status, run.attempts = "running", item.attempt
        self._record("compensating", item)

    def compensated(self, item: Compensated) -> None:
        run = self._undoing.runs[item.task_id]
        self.undo.keep(run)
        run.status, run.outcome = "undone", item.outcome
        self._record("compensated", item)

    def uncompensated(self, item: Uncompensated) -> None:
        run = self._undoing.runs[item.task_id]
        self.undo.keep(run)
        run.status = "failed" if item.retry_at_ms is None else "delayed"
        run.due_ms, run.code, run.message = item.retry_at_ms or 0, item.code, item.message
        self._record("uncompensated", item)

    def leave(self, item: LeftCompensation) -> None:
        """Nothing of the state: the read model keeps it for an operator."""
        self._record("left", item)

    @property
    def _undoing(self) -> UndoState:
        undoing = self.state.undoing
        if undoing is None:
            raise ValueError("nothing is being undone")
        return undoing

    def _register(self, i: int) -> None:
        """Before an agent hears of it. The delta says so for those who read the journal; what is applied is implied by
        the assignment."""
        state = self.state
        task_id = state.specs[i].id
        if state.specs[i].compensation is None or not state.plan.compensates or task_id in state.registered:
            return
        self.undo.put(state.registered, task_id, UNFINISHED)
        self._record("registered", task_id)

    def _finish_registered(self, i: int) -> None:
        """It is completed; the number of the tick is what orders undoing."""
        task_id = self.state.specs[i].id
        if task_id in self.state.registered:
            self.undo.put(self.state.registered, task_id, self.state.tick)
