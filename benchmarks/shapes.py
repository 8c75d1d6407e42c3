"""The graphs that are measured: definitions with no-op tasks of one role, and the same as bare dependencies."""

import itertools
import random
from typing import Any, Final

ROLE: Final = "worker"
DEPENDENCIES_MAX: Final = 3
"""Of a task in a random graph."""
REACH: Final = 50
"""How far back a task of a random graph looks for what it depends on."""
LANE_TASK_MS: Final = 50

Dependencies = list[list[int]]
"""For each task the tasks that it waits for, all of them with smaller numbers."""

_numbers = itertools.count(1)


def chain(length: int) -> Dependencies:
    return [[number - 1] if number else [] for number in range(length)]


def fan_out(tasks: int) -> Dependencies:
    """One task, all others behind it, and one behind all of those."""
    return [[], *([0] for _ in range(tasks - 2)), list(range(1, tasks - 1))]


def random_graph(tasks: int, seed: int = 1) -> Dependencies:
    """The same graph for the same seed, in every process."""
    source = random.Random(seed)
    graph: Dependencies = [[]]
    for number in range(1, tasks):
        candidates = range(max(0, number - REACH), number)
        graph.append(sorted(source.sample(candidates, min(len(candidates), source.randint(1, DEPENDENCIES_MAX)))))
    return graph


def lanes(count: int, length: int) -> Dependencies:
    """Chains side by side."""
    return [[number - count] if number >= count else [] for number in range(count * length)]


def definition(graph: Dependencies, agents: int, duration_ms: int = 0) -> dict[str, Any]:
    """A definition under a name of its own: no plan that is cached fits it."""
    work = {"input": {"duration_ms": duration_ms}} if duration_ms else {}
    return {
        "name": f"benchmark-{next(_numbers)}",
        "version": "1",
        "orchestration_pattern": "supervisor",
        "agents": {ROLE: {"type": "synthetic", "count": agents}},
        "tasks": [
            {"id": f"task-{number}", "agent": ROLE, "depends_on": [f"task-{before}" for before in befores], **work}
            for number, befores in enumerate(graph)
        ],
        "coordination": {"type": "hybrid"},
    }
