"""Ids of the tasks that patterns ask for."""

from workflows.kernel.state import RunState

STEM_LENGTH_MAX = 200
"""Of the id that it is about: with what is added, an id stays within its limit."""


def free_task_id(state: RunState, about: str, what: str, n: int) -> str:
    """An id that says what it is for, as `draft-review-2`; of an element, `draft-7-review-2` of `draft[7]`."""
    stem = about.replace("[", "-").replace("]", "")[:STEM_LENGTH_MAX]
    found = f"{stem}-{what}-{n}"
    extra = 1
    while found in state.index:
        extra += 1
        found = f"{stem}-{what}-{n}-{extra}"
    return found
