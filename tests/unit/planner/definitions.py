"""Definitions for the planner's tests, and Hypothesis strategies for graphs."""

from typing import Any

from hypothesis import strategies as st

from engine.contracts.plan import Plan
from engine.errors import InvalidDefinitionError
from planner.parse import parse_definition
from planner.planner import Planner

DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def definition(tasks: Any = None, **fields: Any) -> dict[str, Any]:
    """A valid definition; `tasks` is a list of task objects or a mapping from id to dependencies."""
    if tasks is None:
        tasks = DIAMOND
    if isinstance(tasks, dict):
        tasks = [{"id": name, "agent": "worker", "depends_on": befores} for name, befores in tasks.items()]
    return {
        "name": "example",
        "version": "1.0",
        "orchestration_pattern": "supervisor",
        "agents": {"worker": {"type": "synthetic", "count": 4}},
        "tasks": tasks,
        "coordination": {"type": "hybrid"},
        **fields,
    }


def task(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "agent": "worker", "depends_on": list(depends_on), **fields}


def plan_of(tasks: Any = None, **fields: Any) -> Plan:
    return Planner().plan(parse_definition(definition(tasks, **fields)))


def problems_of(data: Any) -> list[tuple[str, str, str]]:
    """(code, location, message) of each problem; empty when there is none."""
    try:
        parse_definition(data)
    except InvalidDefinitionError as error:
        return [(p["code"], p["location"], p["message"]) for p in error.data["errors"]]
    return []


def found(data: Any) -> set[tuple[str, str]]:
    return {(code, location) for code, location, _ in problems_of(data)}


@st.composite
def acyclic_graphs(draw: st.DrawFn, tasks_max: int = 8) -> list[list[int]]:
    """Dependencies by position, in an order that is not topological."""
    size = draw(st.integers(1, tasks_max))
    order = draw(st.permutations(range(size)))
    dependencies: list[list[int]] = [[] for _ in range(size)]
    for place, position in enumerate(order):
        befores = draw(st.sets(st.sampled_from(order[:place]))) if place else set()
        dependencies[position] = draw(st.permutations(sorted(befores)))
    return dependencies


@st.composite
def any_graphs(draw: st.DrawFn, tasks_max: int = 7) -> list[list[int]]:
    """Dependencies by position, cycles and self-dependencies included."""
    size = draw(st.integers(1, tasks_max))
    return [draw(st.lists(st.integers(0, size - 1), unique=True)) for _ in range(size)]


@st.composite
def workflows(draw: st.DrawFn, tasks_max: int = 8) -> dict[str, Any]:
    """Valid definitions with random graphs, estimates, roles and lone tasks."""
    dependencies = draw(acyclic_graphs(tasks_max))
    roles = {f"r{n}": {"type": "synthetic", "count": draw(st.integers(1, 3))} for n in range(draw(st.integers(1, 3)))}
    tasks = []
    for position, befores in enumerate(dependencies):
        entry: dict[str, Any] = {
            "id": f"t{position}",
            "agent": draw(st.sampled_from(sorted(roles))),
            "depends_on": [f"t{before}" for before in befores],
        }
        if draw(st.booleans()):
            entry["estimated_seconds"] = draw(st.sampled_from([0, 0.1, 0.2, 0.25, 1, 3, 7.5]))
        if draw(st.integers(0, 9)) == 0:
            entry["parallel"] = False
        tasks.append(entry)
    return definition(tasks, agents=roles)
