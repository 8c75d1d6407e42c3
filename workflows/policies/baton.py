"""What travels in a handoff: the context, who added what to it, and who holds a task at present.

On the board, for each task: `<task>/added-<n>` is what its n-th holder added, once that was accepted; `<task>/baton`
who holds it; `<task>/offer` what was handed over and is being judged; and for tasks that the pattern asked for,
`<asked>/holds` or `<asked>/judges` names the task for whose sake they are.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from engine.contracts.limits import NOTE_BYTES_MAX
from engine.contracts.patterns.handoff import HandoffConfig, Station
from workflows.kernel.state import RunState

KEYS_SHOWN_MAX: Final = 20
KEY_LENGTH_MAX: Final = 64
FEEDBACK_KEPT_MAX: Final = 5
BEFORES_MAX: Final = 1_000


@dataclass(frozen=True)
class Baton:
    """Who holds a task. `station` is the task under whose settings its hand-over is judged: its own, or, while an
    earlier one is done again, that one."""

    station: str
    hop: int
    holder: str
    rejected: int = 0
    rolled: int = 0
    feedback: tuple[Any, ...] = ()
    bad_answers: int = 0

    def with_feedback(self, said: Any) -> "Baton":
        return replace(self, feedback=(*self.feedback, said)[-FEEDBACK_KEPT_MAX:])

    def stored(self) -> dict[str, Any]:
        return {**asdict(self), "feedback": list(self.feedback)}


def baton_of(state: RunState, task_id: str) -> Baton:
    found = state.board.get(f"{task_id}/baton")
    if found is None:
        return Baton(station=task_id, hop=1, holder=task_id)
    return Baton(**{**found, "feedback": tuple(found["feedback"])})


def added_key(task_id: str, hop: int) -> str:
    return f"{task_id}/added-{hop}"


def hand_overs(state: RunState, task_id: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(hop, what was added) of a task's accepted hand-overs, in order."""
    hop = 1
    while (entry := state.board.get(added_key(task_id, hop))) is not None:
        yield hop, entry
        hop += 1


def merged(context: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Fields are added or replaced; null takes one away."""
    return {name: value for name, value in {**context, **added}.items() if value is not None}


def size_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


class Travel:
    """The context along the graph. It keeps only what it has computed from the definition and the graph's growth."""

    def __init__(self, config: HandoffConfig) -> None:
        self.config = config
        self._befores: dict[tuple[int, int], tuple[int, ...]] = {}
        self._stations: dict[str, Station] = {}
        self._firsts: dict[str, tuple[str, bool]] = {}

    def station(self, task_id: str) -> Station:
        found = self._stations.get(task_id)
        if found is None:
            found = self._stations[task_id] = self.config.station(task_id)
        return found

    def before(self, state: RunState, i: int) -> tuple[int, ...]:
        """All tasks that are before this one in the graph, in the order of the plan."""
        key = (i, state.grown if state.growth else 0)
        found = self._befores.get(key)
        if found is None:
            seen: set[int] = set()
            look = list(state.specs[i].deps)
            while look:
                at = look.pop()
                if at not in seen:
                    seen.add(at)
                    look.extend(state.specs[at].deps)
            while len(self._befores) >= BEFORES_MAX:
                del self._befores[next(iter(self._befores))]
            found = self._befores[key] = tuple(sorted(seen))
        return found

    def entries(self, state: RunState, i: int, hop: int) -> list[tuple[str, dict[str, Any]]]:
        """(task id, what was added) of everything accepted before the holder `hop` of this task, in order."""
        found: list[tuple[str, dict[str, Any]]] = []
        board = state.board
        for at in self.before(state, i):
            name = state.specs[at].id
            first = self._firsts.get(name)
            if first is None:
                first = self._firsts[name] = (added_key(name, 1), bool(self.station(name).to))
            key, has_more_hands = first
            entry = board.get(key)
            if entry is None:
                continue
            found.append((name, entry))
            if has_more_hands:
                found.extend((name, later) for n, later in hand_overs(state, name) if n > 1)
        own = state.specs[i].id
        return found + [(own, entry) for n, entry in hand_overs(state, own) if n < hop]

    def context(self, state: RunState, i: int, hop: int) -> dict[str, Any]:
        """What the holder `hop` of this task is handed."""
        return self._context(self.entries(state, i, hop))

    def _context(self, entries: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        context = dict(self.config.context)
        for _, entry in entries:
            context.update(entry["context"])
        # What was taken away and added anew since is not null any more.
        return {name: value for name, value in context.items() if value is not None}

    def note(self, state: RunState, i: int, baton: Baton) -> dict[str, Any]:
        """What goes with the holder's attempts. History and feedback give way when it would be too large."""
        entries = self.entries(state, i, baton.hop)
        station = self.station(baton.station)
        last = entries[len(entries) - min(len(entries), self.config.history_shown_max):]  # fmt: skip
        note: dict[str, Any] = {
            "context": self._context(entries),
            "history": [_shown(task_id, entry) for task_id, entry in last],
            "hand_overs": len(entries),
            "hop": baton.hop,
            "may_hand_to": list(station.to) if baton.hop < station.hops_max else [],
            "feedback": list(baton.feedback),
            "rejections_left": max(station.rejections_max - baton.rejected, 0),
        }
        while size_bytes(note) > NOTE_BYTES_MAX and (note["history"] or note["feedback"] or note["may_hand_to"]):
            longest = "history" if note["history"] else "feedback" if note["feedback"] else "may_hand_to"
            note[longest] = note[longest][1:]
        return note


def _shown(task_id: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    names = sorted(entry["context"])
    return {
        "task": task_id,
        "agent": entry["agent"],
        "at_ms": entry["at_ms"],
        "added": [name[:KEY_LENGTH_MAX] for name in names[:KEYS_SHOWN_MAX]],
        "fields": len(names),
    }
