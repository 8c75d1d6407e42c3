"""What the bridge has read for one execution and a committed tick has not consumed yet."""

import time
from dataclasses import dataclass, field

from engine.contracts.events import AgentEventType, InboxBatch
from engine.contracts.limits import SIGNAL_BYTES_MAX, SIGNALS_UNCOVERED_BYTES_MAX, SIGNALS_UNCOVERED_MAX

REPEAT_AFTER_SECONDS = 5.0
UNHURRIED_SECONDS = 0.1
_UNHURRIED = frozenset({AgentEventType.TASK_STARTED})


def entry_order(entry_id: str) -> tuple[int, int]:
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)


@dataclass
class Held:
    """One entry, from its reading to its acknowledgement."""

    batch: InboxBatch
    size_bytes: int
    read_at: float
    delivered_at: float | None = None
    signal: int | None = None
    """Number of the signal that carries it; None when it was handed over, or waits."""

    @property
    def unhurried(self) -> bool:
        return all(event.type in _UNHURRIED for event in self.batch.events)


@dataclass
class Deliveries:
    """One execution's entries, in order of their ids."""

    tenant: str
    execution_id: str
    partition: int
    held: dict[str, Held] = field(default_factory=dict)
    sending: bool = False
    signals: int = 0
    retry_at: float = 0.0
    failures: int = 0

    def add(self, held: Held) -> bool:
        """False when the entry is held already."""
        if held.batch.entry_id in self.held:
            return False
        self.held[held.batch.entry_id] = held
        return True

    def covered(self, entry_ids: list[str]) -> None:
        for entry_id in entry_ids:
            self.held.pop(entry_id, None)

    @property
    def low(self) -> str:
        """No entry of this execution below it is unacknowledged."""
        return min(self.held, key=entry_order, default="0-0")

    def uncovered_signals(self) -> set[int]:
        return {h.signal for h in self.held.values() if h.signal is not None and h.delivered_at is not None}

    def may_hand_over(self) -> bool:
        """Not while a signal is under way: what is handed over would overtake it."""
        return not self.sending and not any(h.delivered_at is None or h.signal is not None for h in self.held.values())

    def due(self, now: float) -> list[Held]:
        """What the next signal is to carry: everything that waits or was not covered in time; [] when not now."""
        if self.sending or now < self.retry_at:
            return []
        ordered = sorted(self.held.values(), key=lambda h: entry_order(h.batch.entry_id))
        waiting = [h for h in ordered if h.delivered_at is None or now - h.delivered_at > REPEAT_AFTER_SECONDS]
        if not waiting:
            return []
        if all(h.unhurried and now - h.read_at < UNHURRIED_SECONDS for h in waiting):
            return []
        under_way = [h for h in ordered if h.delivered_at is not None and h not in waiting and h.signal is not None]
        if len({h.signal for h in under_way}) >= SIGNALS_UNCOVERED_MAX:
            return []
        room = min(SIGNAL_BYTES_MAX, SIGNALS_UNCOVERED_BYTES_MAX - sum(h.size_bytes for h in under_way))
        taken: list[Held] = []
        for h in waiting:
            if taken and room < h.size_bytes:
                break
            taken.append(h)
            room -= h.size_bytes
        return taken if taken and (room >= 0 or not under_way) else []

    def mark_sent(self, taken: list[Held]) -> None:
        self.signals += 1
        now = time.monotonic()
        for h in taken:
            h.delivered_at, h.signal = now, self.signals
