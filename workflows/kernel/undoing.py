"""The part of the state that belongs to compensation: what is registered, and how far undoing has come."""

from typing import Any, Final, Literal

from engine.contracts.compensation import UndoStep
from engine.contracts.kernel import Undoing

UNFINISHED: Final = 0
"""Registered, and no attempt has ended in a way that leaves open what it did."""

DOUBTFUL: Final = -1
"""It has not completed, but may have been done."""

SIDE_BY_SIDE_MAX: Final = 50
"""Steps that are undone at once."""

UndoStatus = Literal["waiting", "running", "delayed", "undone", "failed"]


class UndoRun:
    """The run-time side of one step that is to be undone."""

    __slots__ = ("attempts", "code", "due_ms", "message", "outcome", "status", "step")

    def __init__(self, step: UndoStep) -> None:
        self.step = step
        self.status: UndoStatus = "waiting"
        self.attempts = 0
        self.due_ms = 0
        """DELAYED: when to try again."""
        self.code = ""
        self.message = ""
        self.outcome = ""

    @property
    def over(self) -> bool:
        return self.status in ("undone", "failed")

    def saved(self) -> tuple[Any, ...]:
        """What `restore` takes it back to."""
        return (self.status, self.attempts, self.due_ms, self.code, self.message, self.outcome)

    def restore(self, saved: tuple[Any, ...]) -> None:
        self.status, self.attempts, self.due_ms, self.code, self.message, self.outcome = saved


class UndoState:
    """Undoing, from the moment in which the execution would have closed until it does."""

    def __init__(self, item: Undoing) -> None:
        self.item = item
        self.runs = {step.task_id: UndoRun(step) for step in item.steps}

    def room(self) -> int:
        """Steps that may be begun now."""
        places = SIDE_BY_SIDE_MAX if self.item.side_by_side else 1
        return max(places - len(self.running()), 0)

    def next_due_ms(self) -> int | None:
        """While there is no room, what is due waits for an outcome, not for a time."""
        if not self.room():
            return None
        return min((run.due_ms for run in self.runs.values() if run.status == "delayed"), default=None)

    def running(self) -> list[str]:
        return [task_id for task_id, run in self.runs.items() if run.status == "running"]

    def snapshot(self) -> dict[str, Any]:
        return {
            "item": self.item.model_dump(mode="json", exclude_defaults=True),
            "runs": [list(run.saved()) for run in self.runs.values()],
        }

    @classmethod
    def from_snapshot(cls, data: dict[str, Any]) -> "UndoState":
        state = cls(Undoing.model_validate(data["item"]))
        for run, saved in zip(state.runs.values(), data["runs"], strict=True):
            run.restore(tuple(saved))
        return state
