"""What the bridge has read for one execution and a committed tick has not consumed yet."""

from dataclasses import dataclass, field

from engine.contracts.events import AgentEventType, InboxBatch
from engine.contracts.limits import SIGNAL_BYTES_MAX, SIGNALS_UNCOVERED_BYTES_MAX, SIGNALS_UNCOVERED_MAX
from engine.contracts.streams import entry_order

REPEAT_AFTER_SECONDS = 5.0
REPEAT_AFTER_MAX_SECONDS = 600.0
"""Each repetition waits twice as long: while no worker runs, repeats would else fill the history until Temporal ends
the execution."""

CREDIT_CHECK_SECONDS = 0.05
UNHURRIED_SECONDS = 0.1
TIMEOUT_SHARE = 0.25
"""Of an attempt's timeout: the workflow must hear of its start in good time."""

UNHURRIED_BUSY_SECONDS = 11.0
"""So long a start waits for something else to travel with while there is much to do: most tasks end sooner, and each
signal spared is a workflow task spared. It must come before the assignment is sent again (RESEND_AFTER_MS)."""

EVENT_MEMORY_BYTES = 1024
_UNHURRIED = frozenset({AgentEventType.TASK_STARTED})


@dataclass
class Held:
    """One entry, from its reading to its acknowledgement."""

    batch: InboxBatch
    size_bytes: int
    read_at: float
    patience_seconds: float = UNHURRIED_SECONDS
    """How long it may wait for something to travel with, if it is unhurried."""
    delivered_at: float | None = None
    signal: int | None = None
    """Number of the signal that carries it; None when it was handed over, or waits."""
    sends: int = 0

    @property
    def unhurried(self) -> bool:
        return all(event.type in _UNHURRIED for event in self.batch.events)

    @property
    def results(self) -> frozenset[str]:
        """Tasks that it says are completed."""
        return frozenset(e.task_id for e in self.batch.events if e.type is AgentEventType.TASK_COMPLETED)

    @property
    def memory_bytes(self) -> int:
        """What it costs to hold: decoded events are larger than their text."""
        return self.size_bytes + EVENT_MEMORY_BYTES * (1 + len(self.batch.events))

    def overdue(self, now: float) -> bool:
        """Delivered, and not covered in time."""
        if self.delivered_at is None:
            return False
        patience = REPEAT_AFTER_SECONDS * 2.0 ** min(max(self.sends - 1, 0), 10)
        return now - self.delivered_at > min(patience, REPEAT_AFTER_MAX_SECONDS)


@dataclass
class Deliveries:
    """One execution's entries, in order of their ids."""

    tenant: str
    execution_id: str
    partition: int
    held: dict[str, Held] = field(default_factory=dict)
    memory_bytes: int = 0
    """What all that is held costs."""
    fence: int = 0
    """Of the partition, when something was last done for it."""
    sending: bool = False
    signals: int = 0
    retry_at: float = 0.0
    failures: int = 0
    full_until: float = 0.0
    """Without credit until something is covered; looked at again now and then, not for every new entry."""

    def add(self, held: Held) -> bool:
        """False when the entry is held already."""
        if held.batch.entry_id in self.held:
            return False
        entry_id = held.batch.entry_id
        in_order = not self.held or entry_order(next(reversed(self.held))) < entry_order(entry_id)
        self.held[entry_id] = held
        self.memory_bytes += held.memory_bytes
        if not in_order:
            self.held = dict(sorted(self.held.items(), key=lambda item: entry_order(item[0])))
        return True

    def covered(self, entry_ids: list[str]) -> None:
        for entry_id in entry_ids:
            held = self.held.pop(entry_id, None)
            if held is not None:
                self.memory_bytes -= held.memory_bytes
        self.full_until = 0.0

    def under(self, fence: int | None) -> None:
        """The partition's fence by now; None when it is another process's. Under a new one nothing counts as delivered:
        workflows drop what came under an older one."""
        if fence is None or fence == self.fence:
            return
        self.fence = fence
        for h in self.held.values():
            h.delivered_at = h.signal = None

    @property
    def low(self) -> str:
        """No entry of this execution below it is unacknowledged."""
        return next(iter(self.held), "0-0")

    def may_hand_over(self) -> bool:
        """Not while a signal is under way: what is handed over would overtake it."""
        return not self.sending and not any(h.delivered_at is None or h.signal is not None for h in self.held.values())

    def due(self, now: float, unhurried_seconds: float = 0.0) -> list[Held]:
        """What the next signal is to carry: everything that waits or was not covered in time; [] when not now."""
        if self.sending or now < max(self.retry_at, self.full_until):
            return []
        waiting = [h for h in self.held.values() if h.delivered_at is None or h.overdue(now)]
        if not waiting:
            return []
        if all(h.unhurried and now - h.read_at < max(unhurried_seconds, h.patience_seconds) for h in waiting):
            return []
        under_way = [h for h in self.held.values()
                     if h.delivered_at is not None and h.signal is not None and not h.overdue(now)]  # fmt: skip
        if len({h.signal for h in under_way}) >= SIGNALS_UNCOVERED_MAX:
            self.full_until = now + CREDIT_CHECK_SECONDS
            return []
        room = min(SIGNAL_BYTES_MAX, SIGNALS_UNCOVERED_BYTES_MAX - sum(h.size_bytes for h in under_way))
        taken: list[Held] = []
        for h in waiting:
            if taken and room < h.size_bytes:
                break
            taken.append(h)
            room -= h.size_bytes
        if room < 0 and under_way:
            self.full_until = now + CREDIT_CHECK_SECONDS
            return []
        return taken

    def mark_sent(self, taken: list[Held], now: float) -> None:
        self.signals += 1
        for h in taken:
            h.delivered_at, h.signal = now, self.signals
            h.sends += 1
