"""How long a workflow takes with the instances it asks for: a run on paper.

The engine hands out ready tasks critical path first, one at a time to each instance; so does this. The result is
what the estimate of the duration and the gains of the optimizations rest on.
"""

import heapq
from collections.abc import Mapping, Sequence

from planner.graph import TaskGraph


class _Run:
    """State of a run on paper."""

    def __init__(
        self,
        graph: TaskGraph,
        estimates_us: Sequence[int],
        tails_us: Sequence[int],
        roles: Sequence[str],
        counts: Mapping[str, int],
        alone: frozenset[int],
    ) -> None:
        self.graph, self.estimates_us, self.tails_us = graph, estimates_us, tails_us
        self.roles, self.alone = roles, alone
        self.free = dict(counts)
        self.waiting = [len(befores) for befores in graph.dependencies]
        self.ready: dict[str, list[tuple[int, int]]] = {role: [] for role in counts}
        self.ready_alone: list[tuple[int, int]] = []
        self.running: list[tuple[int, int]] = []
        self.touched: set[str] = set()
        """Roles that may have something to start since they were last looked at."""

    def make_ready(self, index: int) -> None:
        entry = (-self.tails_us[index], index)
        if index in self.alone:
            heapq.heappush(self.ready_alone, entry)
        else:
            role = self.roles[index]
            heapq.heappush(self.ready[role], entry)
            self.touched.add(role)

    def start(self, index: int, now_us: int) -> None:
        self.free[self.roles[index]] -= 1
        heapq.heappush(self.running, (now_us + self.estimates_us[index], index))

    def start_what_can(self, now_us: int) -> None:
        if self.ready_alone:  # Nothing else starts, so that it gets its turn.
            if not self.running:
                self.start(heapq.heappop(self.ready_alone)[1], now_us)
            return
        for role in sorted(self.touched):
            ready = self.ready[role]
            while ready and self.free[role] > 0:
                self.start(heapq.heappop(ready)[1], now_us)
        self.touched.clear()

    def finish_next(self) -> int:
        """Finish all that ends at the next moment; returns that moment."""
        now_us = self.running[0][0]
        while self.running and self.running[0][0] == now_us:
            _, index = heapq.heappop(self.running)
            role = self.roles[index]
            self.free[role] += 1
            self.touched.add(role)
            for after in self.graph.dependents[index]:
                self.waiting[after] -= 1
                if self.waiting[after] == 0:
                    self.make_ready(after)
        return now_us


def duration_us(
    graph: TaskGraph,
    estimates_us: Sequence[int],
    tails_us: Sequence[int],
    roles: Sequence[str],
    counts: Mapping[str, int],
    alone: frozenset[int] = frozenset(),
) -> int:
    """Microseconds until the last task is done. `tails_us` gives the order, `roles` the role of each task."""
    run = _Run(graph, estimates_us, tails_us, roles, counts, alone)
    for index, waiting in enumerate(run.waiting):
        if waiting == 0:
            run.make_ready(index)
    now_us = 0
    run.start_what_can(now_us)
    while run.running:
        now_us = run.finish_next()
        run.start_what_can(now_us)
    return now_us
