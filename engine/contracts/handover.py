"""Handing a tick to its local activity as an object, instead of writing it down and reading it back.

A local activity runs in the process of the workflow that started it, and Temporal records its result, not its
argument. So the argument need not become bytes. The workflow keeps the object while it waits for the answer; the table
here holds it weakly, so that nothing is left behind when a workflow is evicted.
"""

from collections.abc import Sequence
from itertools import count
from typing import Final, Protocol
from weakref import WeakValueDictionary

from engine.contracts.circuits import CircuitRule, CircuitView
from engine.contracts.events import InboxBatch
from engine.contracts.kernel import AgentBinding, BindRequest, TickProposal


class FollowUp(Protocol):
    """Decides the ticks that follow from results that come at once. Implemented by `workflows.kernel.burst`."""

    bind_request: BindRequest | None
    """For the first burst of an execution, which begins with what the answer to this allows."""

    @property
    def proposal(self) -> TickProposal:
        """The first tick. Raises ValueError where `open` makes it."""
        ...

    def begin(self) -> int:
        """Called by each attempt of the activity; its number."""
        ...

    @property
    def circuit_rule(self) -> CircuitRule | None:
        """Of the agent types' breakers; None: they are not asked."""
        ...

    def open(self, bindings: Sequence[AgentBinding], now_ms: int, circuits: Sequence[CircuitView] = ()) -> TickProposal:
        """The very first tick of an execution."""
        ...

    def follow_up(self, attempt: int, batches: Sequence[InboxBatch], now_ms: int) -> TickProposal | None:
        """The next tick; None when the workflow has to decide it."""
        ...


class HandedTick:
    """A tick on its way to its local activity. Keep a reference until the activity has answered."""

    __slots__ = ("__weakref__", "burst", "token")

    def __init__(self, burst: FollowUp) -> None:
        self.burst = burst
        self.token = next(_TOKENS)
        _HANDED[self.token] = self


_TOKENS: Final = count(1)
_HANDED: Final[WeakValueDictionary[int, HandedTick]] = WeakValueDictionary()


def taken(token: int) -> HandedTick:
    """The object behind the token. Raises LookupError when whoever handed it over is gone."""
    handed = _HANDED.get(token)
    if handed is None:
        raise LookupError("the workflow that proposed this tick is not in this process any more")
    return handed
