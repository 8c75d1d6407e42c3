"""A task that is in its superiors' hands, and what has become of it so far. Stands on the board, as plain JSON."""

import re
from typing import Any, Final, Literal

from engine.contracts.limits import NAME_LENGTH_MAX
from engine.contracts.model import Model
from workflows.kernel.desk import Desk, note_key
from workflows.kernel.state import RunState

HISTORY_MAX: Final = 20
"""Decisions about one task that superiors are shown: the last ones."""

TEXT_LENGTH_MAX: Final = 300
"""Of reasons and messages in the history."""

_INDEX: Final = re.compile(r"\[(\d+)\]")


class Case(Model):
    """One task's. `rung` is the place in the chain of its superiors, the nearest first; it never goes down."""

    kind: Literal["escalation", "delegation"] = "escalation"
    asked: str | None = None
    """The pattern's own task that is out; None while nobody is asked."""
    team: str = ""
    """Whose lead is asked."""
    rung: int = 0
    used: int = 0
    """Decisions that were carried out on this rung."""
    answers: int = 0
    """Answers to what is asked now, those that made no sense."""
    code: str = ""
    message: str = ""
    history: tuple[dict[str, Any], ...] = ()

    def with_entry(self, **entry: Any) -> tuple[dict[str, Any], ...]:
        cut = {k: v[:TEXT_LENGTH_MAX] if isinstance(v, str) else v for k, v in entry.items() if v is not None}
        return (*self.history, cut)[-HISTORY_MAX:]


def case_key(task_id: str) -> str:
    return f"{task_id}/case"


def find_case(state: RunState, i: int) -> Case | None:
    found = state.board.get(case_key(state.specs[i].id))
    return None if found is None else Case.model_validate(found)


def keep_case(desk: Desk, i: int, case: Case) -> None:
    desk.post(case_key(desk.state.specs[i].id), case.model_dump(mode="json", exclude_defaults=True))


def subject_of(state: RunState, asked: int) -> tuple[int, Case] | None:
    """The task that an answer is about, and its case; None when nobody waits for that answer any more."""
    task_id = state.specs[asked].id
    i = state.index.get(state.board.get(about_key(task_id), ""))
    if i is None or i not in state.submitted:
        return None
    case = find_case(state, i)
    return (i, case) if case is not None and case.asked == task_id else None


def about_key(asked_id: str) -> str:
    """Where on the board stands which task an own task is about."""
    return f"{asked_id}/about"


def own_id(state: RunState, task_id: str, what: str) -> str:
    """For a task of the pattern's own: a name that is not taken."""
    stem = _INDEX.sub(r"-\1", task_id)[: NAME_LENGTH_MAX - 40] + f"-{what}"
    n = 1
    while f"{stem}-{n}" in state.index:
        n += 1
    return f"{stem}-{n}"


def level_name(level: int) -> str:
    return f"L{level}"


def forget_asked(desk: Desk, asked_id: str) -> None:
    """It is over: nothing about it need be carried along."""
    desk.post(about_key(asked_id), None)
    desk.post(note_key(asked_id), None)
