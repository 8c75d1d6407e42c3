"""External events: kept as they come, and taken by the triggers of tasks that wait for them.

An event is taken by at most one task, the first in the plan's order that waits for it. Events are looked at in the
order in which they came. A condition over an event's payload is evaluated by an activity; until its answer is there,
that event and all later ones wait.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from engine.contracts.dynamic import Arrival, Candidate, Looked, Triggered
from engine.contracts.limits import EVALUATIONS_MAX, EXTERNAL_EVENTS_REMEMBERED_MAX
from workflows.kernel.moves import Moves
from workflows.kernel.state import RunState

Verdicts = Mapping[tuple[str, int, str], bool]
"""Whether a trigger's condition holds: by task, trigger and event."""


class EventTransitions(Moves):
    """One method for each kind of change that has to do with external events."""

    def receive(self, arrival: Arrival) -> None:
        state, undo = self.state, self.undo
        undo.set(state, "arrivals", arrival.number)
        undo.put(state.remembered, arrival.event_id, arrival.number)
        if len(state.remembered) > EXTERNAL_EVENTS_REMEMBERED_MAX:
            undo.drop(state.remembered, min(state.remembered, key=state.remembered.__getitem__))
        undo.put(state.kept, arrival.event_id, arrival)
        undo.set(state, "sweep_due", True)
        self._record("received", arrival)

    def forget(self, event_id: str) -> None:
        self.undo.drop(self.state.kept, event_id)
        self._record("forgotten", event_id)

    def look(self, item: Looked) -> None:
        self.undo.put(self.state.awaiting, self.state.index[item.task_id], item.number)
        self._record("looked", item)

    def trigger(self, item: Triggered) -> None:
        state = self.state
        arrival = state.kept[item.event_id]
        self.undo.drop(state.kept, item.event_id)
        self._end_wait(state.index[item.task_id], arrival)
        self._record("triggered", item)

    def stop_awaiting(self, task_id: str) -> None:
        """It goes on without an event."""
        self._end_wait(self.state.index[task_id], None)
        self._record("waited", task_id)

    def _end_wait(self, i: int, arrival: Arrival | None) -> None:
        state, undo = self.state, self.undo
        undo.drop(state.awaiting, i)
        undo.put(state.triggered, i, arrival)
        undo.set(state, "grown", state.grown + 1)
        self._gate(i)


@dataclass
class Sweep:
    """What the kept events bring about."""

    triggered: list[Triggered] = field(default_factory=list)
    looked: dict[str, int] = field(default_factory=dict)
    undecided: list[Candidate] = field(default_factory=list)


def sweep(state: RunState, verdicts: Verdicts) -> Sweep:
    """Match kept events with waiting tasks. Changes nothing."""
    found = Sweep()
    by_type: dict[str, list[int]] = {}
    for i in sorted(state.awaiting):
        for kind in dict.fromkeys(trigger.event for trigger in state.specs[i].triggers):
            by_type.setdefault(kind, []).append(i)
    taken: set[int] = set()
    for arrival in sorted(state.kept.values(), key=lambda kept: kept.number):
        if len(found.undecided) >= EVALUATIONS_MAX:
            break
        for i in by_type.get(arrival.type, ()):
            if i in taken or state.awaiting[i] >= arrival.number:
                continue
            unknown, matched = _verdict(state, i, arrival, verdicts)
            if unknown:
                found.undecided.extend(unknown)
                break
            if matched:
                if not found.undecided:
                    found.triggered.append(Triggered(task_id=state.specs[i].id, event_id=arrival.event_id))
                    taken.add(i)
                break
            if not found.undecided:
                found.looked[state.specs[i].id] = arrival.number
    for item in found.triggered:
        found.looked.pop(item.task_id, None)
    return found


def _verdict(state: RunState, i: int, arrival: Arrival, verdicts: Verdicts) -> tuple[list[Candidate], bool]:
    """(conditions that must be evaluated first, whether a trigger takes the event)."""
    unknown: list[Candidate] = []
    task_id = state.specs[i].id
    for n, trigger in enumerate(state.specs[i].triggers):
        if trigger.event != arrival.type:
            continue
        verdict = verdicts.get((task_id, n, arrival.event_id)) if trigger.conditional else True
        if verdict:
            return [], True
        if verdict is None:
            unknown.append(Candidate(task_id=task_id, trigger=n, event_id=arrival.event_id))
    return unknown, False


def overdue(state: RunState, now_ms: int) -> Iterator[tuple[int, str]]:
    """(task, what becomes of it) where the first trigger's patience is over."""
    for i in sorted(state.awaiting):
        due_ms = state.tasks[i].due_ms
        if due_ms and due_ms <= now_ms:
            timed = [trigger for trigger in state.specs[i].triggers if trigger.timeout_ms is not None]
            yield i, min(timed, key=lambda trigger: trigger.timeout_ms or 0).on_timeout


def awaited_events(state: RunState, tasks_max: int) -> dict[str, tuple[str, ...]]:
    """What is waited for, for people; the first few tasks."""
    return {
        state.specs[i].id: tuple(dict.fromkeys(trigger.event for trigger in state.specs[i].triggers))
        for i in sorted(state.awaiting)[:tasks_max]
    }
