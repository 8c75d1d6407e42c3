"""Whose turn it is when executions wait for capacity. Pure: the same state gives the same answer.

Each tenant has a line a priority, the longest waiting first. Lines go class before class (high, normal, low), and
within a class by tenant: the one with the fewest running first, then whose first has waited longest.

A line is one class up for each five minutes in which none of it was started, so that low is not starved for ever. It is
the line that moves up, not each execution: a tenant's flood, which is served all the time, gets no precedence over
another tenant's newcomer by having waited.

The first that does not fit holds back all behind it, so that a large one gets its turn. A tenant at its own limit is
passed over.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime
from heapq import heapify, heappop, heapreplace
from typing import Final, TypeAlias

from engine.contracts.capacity import PRIORITY_RANKS, CapacityLimits, QueueState, Turn, Usage, Waiting
from engine.contracts.execution import Priority

CLASS_UP_AFTER_SECONDS: Final = 300.0

Line: TypeAlias = tuple[str, Priority]
Served: TypeAlias = Mapping[Line, datetime]
"""When one of the line was last started."""


def line_of(item: Waiting) -> Line:
    return item.tenant, item.priority


def rank(item: Waiting, served_at: datetime | None, now: datetime) -> int:
    """The class of a line whose first is `item`: 0 goes first."""
    since = item.queued_at if served_at is None else max(item.queued_at, served_at)
    unserved_seconds = max(0.0, (now - since).total_seconds())
    return max(0, PRIORITY_RANKS[item.priority] - int(unserved_seconds / CLASS_UP_AFTER_SECONDS))


def choose(state: QueueState, limits: CapacityLimits, most: int, served: Served) -> Turn:
    """Who starts now, in order, at most `most`."""
    nothing = Usage()
    impossible = tuple(item for item in state.waiting if not nothing.plus(item.demand).within(limits))
    hopeless = {item.execution_id for item in impossible}
    lines: dict[Line, list[Waiting]] = defaultdict(list)
    for item in state.waiting:
        if item.execution_id not in hopeless:
            lines[line_of(item)].append(item)
    for members in lines.values():
        members.sort(key=lambda item: (item.queued_at, item.execution_id), reverse=True)
    used, running, last, start = state.used, Counter(state.running), dict(served), list[Waiting]()

    def key(line: Line) -> tuple[int, int, datetime, Line]:
        head = lines[line][-1]
        return rank(head, last.get(line), state.now), running[line[0]], head.queued_at, line

    # Keys only grow while executions are started: one that is out of date is put back where it belongs.
    heap = [key(line) for line in lines]
    heapify(heap)
    while heap and len(start) < most:
        line = heap[0][-1]
        present = key(line)
        if present != heap[0]:
            heapreplace(heap, present)
            continue
        if limits.tenant_executions is not None and running[line[0]] >= limits.tenant_executions:
            heappop(heap)
            continue
        more = used.plus(lines[line][-1].demand)
        if not more.within(limits):
            break
        used = more
        start.append(lines[line].pop())
        running[line[0]] += 1
        last[line] = state.now
        if not lines[line]:
            heappop(heap)
    return Turn(start=tuple(start), impossible=impossible)
