"""The critical path method on a task graph: earliest starts, slack, critical path, parallelism.

Times are whole microseconds: sums of floats would leave tasks of the critical path with a slack of 1e-16.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.contracts.definition import TaskDefinition
from planner.graph import TaskGraph

ESTIMATE_DEFAULT_SECONDS: Final = 1.0
"""Taken for a task without `estimated_seconds`."""

MICROSECONDS: Final = 1_000_000


def estimate_us(task: TaskDefinition) -> int:
    seconds = task.estimated_seconds
    return round((ESTIMATE_DEFAULT_SECONDS if seconds is None else seconds) * MICROSECONDS)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each task can start if nothing but its dependencies holds it back."""

    starts_us: list[int]
    slacks_us: list[int]
    tails_us: list[int]
    """Longest way from the start of a task to the end of all, its own estimate included."""
    critical_path: list[int]
    length_us: int


def schedule(graph: TaskGraph, estimates_us: Sequence[int]) -> Schedule:
    starts: list[int] = []
    for befores in graph.dependencies:
        start = 0
        for before in befores:
            finish = starts[before] + estimates_us[before]
            if finish > start:
                start = finish
        starts.append(start)
    tails = list(estimates_us)
    for index in range(len(tails) - 1, -1, -1):
        longest = 0
        for after in graph.dependents[index]:
            if tails[after] > longest:
                longest = tails[after]
        tails[index] += longest
    length = max(tails, default=0)
    slacks = [length - start - tail for start, tail in zip(starts, tails, strict=True)]
    return Schedule(starts, slacks, tails, _critical_path(graph, estimates_us, starts, slacks), length)


def _critical_path(
    graph: TaskGraph, estimates_us: Sequence[int], starts: Sequence[int], slacks: Sequence[int]
) -> list[int]:
    """One longest path; where several are as long, the one whose tasks come first."""
    current = next(
        (index for index, befores in enumerate(graph.dependencies) if not befores and slacks[index] == 0), None
    )
    path = []
    while current is not None:
        path.append(current)
        finish = starts[current] + estimates_us[current]
        current = next(
            (after for after in graph.dependents[current] if slacks[after] == 0 and starts[after] == finish), None
        )
    return path


def length_us(graph: TaskGraph, estimates_us: Sequence[int]) -> int:
    """Length of the longest path alone."""
    finishes: list[int] = []
    for befores, estimate in zip(graph.dependencies, estimates_us, strict=True):
        finishes.append(estimate + max((finishes[before] for before in befores), default=0))
    return max(finishes, default=0)


def most_at_once(
    tasks: Iterable[int], graph_waves: Sequence[int], starts_us: Sequence[int], estimates_us: Sequence[int]
) -> int:
    """Most of `tasks` that run together when each starts as early as it can.

    A task that takes no time is there at its start only, beside others of its wave.
    """
    changes: Counter[int] = Counter()
    instants: Counter[tuple[int, int]] = Counter()
    for index in tasks:
        start = starts_us[index]
        if estimates_us[index]:
            changes[start] += 1
            changes[start + estimates_us[index]] -= 1
        else:
            instants[start, graph_waves[index]] += 1
            changes[start] += 0
    at_instant: dict[int, int] = {}
    for (start, _), count in instants.items():
        at_instant[start] = max(count, at_instant.get(start, 0))
    running = most = 0
    for time in sorted(changes):
        running += changes[time]
        most = max(most, running + at_instant.get(time, 0))
    return most
