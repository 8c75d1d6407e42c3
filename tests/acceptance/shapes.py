"""Graphs that the tests run, as dependencies by task id, and as tasks for a definition."""

from typing import Any

Dependencies = dict[str, list[str]]
TWO_HOSTS = {"worker": "synthetic", "writer": "recorder"}


def chain(length: int) -> Dependencies:
    return {f"t{n}": [f"t{n - 1}"] if n else [] for n in range(length)}


def braid(width: int, length: int) -> Dependencies:
    """Chains side by side, tied together by a first and a last task."""
    graph: Dependencies = {"first": []}
    for lane in range(width):
        for step in range(length):
            graph[f"l{lane}s{step}"] = [f"l{lane}s{step - 1}"] if step else ["first"]
    graph["last"] = [f"l{lane}s{length - 1}" for lane in range(width)]
    return graph


def tasks(graph: Dependencies, **fields: Any) -> list[dict[str, Any]]:
    return [{"id": task_id, "depends_on": needed, **fields} for task_id, needed in graph.items()]


def held_at(graph: Dependencies, held: tuple[str, ...], **input_fields: Any) -> list[dict[str, Any]]:
    """For agents of type `recorder`: these tasks end only once they are released."""
    return [
        {"id": task_id, "depends_on": needed, "input": {**input_fields, "held": task_id in held}}
        for task_id, needed in graph.items()
    ]


def in_turn(graph: Dependencies) -> list[dict[str, Any]]:
    """The roles of `TWO_HOSTS` take turns: no task can be sent ahead, each costs a tick."""
    return [
        {"id": task_id, "depends_on": needed, "agent": ("worker", "writer")[n % 2]}
        for n, (task_id, needed) in enumerate(graph.items())
    ]


def lasting(duration_ms: int) -> dict[str, Any]:
    return {"duration_ms": duration_ms}
