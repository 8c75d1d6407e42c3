"""What patterns need beyond a graph: a memory, tasks whose end they judge, and errands that activities run.

All of it is in the delta, so that a stored tick is applied without the pattern's code, and a later version of a pattern
replays what an earlier one decided.
"""

from typing import Any, Final

from engine.contracts.kernel import Errand, Settled, Submission
from workflows.kernel.moves import Moves
from workflows.kernel.state import Phase, RunState

KERNEL_ERRANDS: Final = frozenset({"compensate", "hooks"})
"""Kinds that the kernel itself sends and takes in; all others are the pattern's."""


OF_THE_END: Final = frozenset({"/hooks/ending", "/hooks/post_workflow"})
"""On the board, about the end that an execution was coming to."""


class CoordinationTransitions(Moves):
    """One method for each kind of change that a pattern makes."""

    def submit(self, item: Submission) -> None:
        """An attempt has ended; what that means is judged by the pattern."""
        state, undo = self.state, self.undo
        i = state.index[item.task_id]
        if item.failed:
            self._busy.append((state.tasks[i].assigned_at_ms, self.at_ms))
        else:
            self._note_work(i, item.started_at_ms, item.at_ms)
        self._leave_flight(i, Phase.SUBMITTED)
        undo.put(state.submitted, i, item)
        self._record("submitted", item)
        if not item.failed:
            self.doubt(item.task_id)  # done, whatever the pattern makes of it

    def take(self, item: Submission) -> None:
        """A task that no agent has becomes the pattern's own."""
        state, undo = self.state, self.undo
        i = state.index[item.task_id]
        run = state.tasks[i]
        if run.phase is Phase.READY:
            self._leave_ready(i)
        undo.set(run, "phase", Phase.SUBMITTED)
        undo.put(state.submitted, i, item)
        self._record("taken", item)
        self._register(i)
        self.doubt(item.task_id)  # the pattern may have it done in other ways

    def settle(self, item: Settled) -> None:
        state, undo = self.state, self.undo
        i = state.index[item.task_id]
        run = state.tasks[i]
        if item.verdict == "again":
            undo.drop(state.submitted, i)
            undo.set(run, "agent_id", None)
            undo.set(run, "failures", 0)
            undo.set(run, "losses", 0)
            self._make_ready(i)
        else:
            self._leave_flight(i, Phase.COMPLETED)
            undo.set(state, "completed", state.completed + 1)
            self._release(i)
        self._record("settled", item)

    def post(self, key: str, value: Any) -> None:
        """Put on the board; None takes off it. What changes nothing is not recorded."""
        board = self.state.board
        if board.get(key) == value and (value is not None or key not in board):
            return
        if value is None:
            self.undo.drop(board, key)
        else:
            self.undo.put(board, key, value)
        self.recorded.setdefault("posted", {})[key] = value

    def post_item(self, item: tuple[str, Any]) -> None:
        self.post(*item)

    def begin_errand(self, errand: Errand) -> None:
        self.undo.put(self.state.errands, errand.key, errand)
        self._record("errands", errand)

    def end_errand(self, key: str) -> None:
        """One that has only just begun has never been: a stored tick ends errands before it begins others."""
        self.undo.drop(self.state.errands, key)
        begun = [errand for errand in self.recorded.get("errands", ()) if errand.key != key]
        if len(begun) == len(self.recorded.get("errands", ())):
            self._record("returned_errands", key)
        elif begun:
            self.recorded["errands"] = begun
        else:
            del self.recorded["errands"]

    def _note_work(self, i: int, started_at_ms: int, at_ms: int) -> None:
        """An agent was at work."""
        raise NotImplementedError


def forget_repeated(state: RunState) -> None:
    """On going back: what the board holds of tasks that run again is no more, nor is anything that was begun.

    Replaces, and changes nothing in place, since the caller restores the former objects to take it back.
    """
    state.submitted, state.errands = {}, {}
    if state.board:
        kept = {task_id for task_id, i in state.index.items() if state.tasks[i].phase is Phase.COMPLETED}
        state.board = {key: value for key, value in state.board.items() if _stays(key, kept)}


def _stays(key: str, kept: set[str]) -> bool:
    """What was said about the end was said about another end."""
    return key not in OF_THE_END if key.startswith("/") else key.partition("/")[0] in kept
