"""A log of changes that can be taken back.

The kernel decides by changing the state and recording how to undo it. When the journal holds something else than
what was proposed, the changes are rolled back and the stored deltas applied instead. This costs far less than
copying the state of a large execution at every tick, and lets deciding and applying share one code path.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Any, Protocol


class Restorable(Protocol):
    """Knows its own state."""

    def saved(self) -> tuple[Any, ...]: ...

    def restore(self, saved: tuple[Any, ...]) -> None: ...


class UndoLog:
    """Changes in order. Not reusable after `rollback`.

    A step is a function and its arguments, not a closure: there are dozens of steps a task, and hardly ever a rollback.
    """

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[Any, ...]] = []

    def set(self, target: Any, name: str, value: Any) -> None:
        """Set an attribute."""
        old = getattr(target, name)
        if old is value:
            return
        setattr(target, name, value)
        self._steps.append((setattr, target, name, old))

    def keep(self, target: Restorable) -> None:
        """Remember all of it; what follows may then be set directly."""
        self._steps.append((target.restore, target.saved()))

    def put(self, mapping: dict[Any, Any], key: Any, value: Any) -> None:
        """Set a key. Undone, a new key is gone again and an old one has its old value, in its old place."""
        if key in mapping:
            self._steps.append((mapping.__setitem__, key, mapping[key]))
        else:
            self._steps.append((mapping.__delitem__, key))
        mapping[key] = value

    def drop(self, mapping: dict[Any, Any], key: Any) -> None:
        """Delete a key if it is there. Undone, it stands last: such mappings' order has no meaning."""
        if key in mapping:
            self._steps.append((mapping.__setitem__, key, mapping.pop(key)))

    def insort(self, items: list[Any], item: Any) -> None:
        """Insert into a sorted list of unique items."""
        insort(items, item)
        self._steps.append((_unsort, items, item))

    def unsort(self, items: list[Any], item: Any) -> None:
        """Remove from a sorted list of unique items, if it is there."""
        if _unsort(items, item):
            self._steps.append((insort, items, item))

    def on_rollback(self, step: Callable[[], None]) -> None:
        self._steps.append((step,))

    def rollback(self) -> None:
        """Take everything back, last change first."""
        while self._steps:
            step, *arguments = self._steps.pop()
            step(*arguments)


def _unsort(items: list[Any], item: Any) -> bool:
    at = bisect_left(items, item)
    found = at < len(items) and bool(items[at] == item)
    if found:
        del items[at]
    return found
