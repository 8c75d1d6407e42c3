"""The graphs that are measured: definitions with no-op tasks of one role, and the same as bare dependencies."""

import itertools
import random
from typing import Any, Final

ROLE: Final = "worker"
DEPENDENCIES_MAX: Final = 3
"""Of a task in a random graph."""
REACH: Final = 50
"""How far back a task of a random graph looks for what it depends on."""
FAR_REACH: Final = 200
FAR_FIRST: Final = 6
"""The first tasks of a far-reaching graph depend on nothing."""
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


def far_graph(tasks: int, seed: int = 1) -> Dependencies:
    """A graph in which each task but the first few depends on three others among the 200 before it."""
    source = random.Random(seed)
    return [
        sorted(source.sample(range(max(0, number - FAR_REACH), number), DEPENDENCIES_MAX))
        if number >= FAR_FIRST
        else []
        for number in range(tasks)
    ]


def wide(tasks: int) -> Dependencies:
    """One task and all others behind it."""
    return [[], *([0] for _ in range(tasks - 1))]


def lanes(count: int, length: int) -> Dependencies:
    """Chains side by side."""
    return [[number - count] if number >= count else [] for number in range(count * length)]


def definition(graph: Dependencies, agents: int, duration_ms: int = 0, roles: int = 1) -> dict[str, Any]:
    """A definition under a name of its own: no plan that is cached fits it.

    `roles` take the tasks in turn, each with that many agents. Along a chain of tasks with two roles nothing can be
    fused into one assignment.
    """
    work = {"input": {"duration_ms": duration_ms}} if duration_ms else {}
    names = [ROLE if roles == 1 else f"{ROLE}-{role + 1}" for role in range(roles)]
    return {
        "name": f"benchmark-{next(_numbers)}",
        "version": "1",
        "orchestration_pattern": "supervisor",
        "agents": {name: {"type": "synthetic", "count": agents} for name in names},
        "tasks": [
            {
                "id": f"task-{number}",
                "agent": names[number % roles],
                "depends_on": [f"task-{before}" for before in befores],
                **work,
            }
            for number, befores in enumerate(graph)
        ],
        "coordination": {"type": "hybrid"},
    }
