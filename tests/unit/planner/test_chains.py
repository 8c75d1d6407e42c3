"""Fused chains against brute force, and each reason not to fuse."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.chains import fused_chains
from planner.draft import draft
from planner.parse import parse_definition
from tests.unit.planner.definitions import acyclic_graphs, definition, plan_of, task

TRIGGER = {"event": "go", "timeout_seconds": 1}
ON_ANY_TASK: list[dict[str, Any]] = [{}, {}, {"parallel": False}, {"parallel": True}, {"compensation_action": "undo"}]
ON_THE_FIRST: list[dict[str, Any]] = [{"for_each": "input.items"}]
ON_THE_SECOND: list[dict[str, Any]] = [
    {"when": "input.go"},
    {"triggers": [TRIGGER]},
    {"reuse": True},
    {"for_each": "input.items"},
]
HARMLESS: list[dict[str, Any]] = [
    {"retry_policy": "none"},
    {"timeout_seconds": 7},
    {"on_failure": "finish_branches"},
    {"action": "other"},
    {"input": {"x": 1}},
]


def chains_of(tasks: Any, **fields: Any) -> list[list[str]]:
    plan = plan_of(tasks, **fields)
    return [[plan.tasks[index].id for index in chain] for chain in plan.chains]


@st.composite
def fusible(draw: st.DrawFn) -> dict[str, Any]:
    """Definitions with few dependencies a task, so that there are chains, and all that cuts them."""
    tasks = []
    for position, befores in enumerate(draw(acyclic_graphs(9))):
        kept = befores[: draw(st.integers(1, 2))]
        extra = draw(st.sampled_from([*ON_ANY_TASK, *ON_THE_FIRST, *ON_THE_SECOND, *HARMLESS, {}, {}, {}, {}, {}, {}]))
        role = draw(st.sampled_from(["worker", "worker", "worker", "other"]))
        tasks.append({**task(f"t{position}", *(f"t{before}" for before in kept)), "agent": role, **extra})
    agents = {"worker": {"type": "synthetic", "count": 2}, "other": {"type": "synthetic"}}
    return definition(tasks, agents=agents)


def goes_on(data: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> bool:
    """The rule as the page on the definition format has it."""
    dependents = [other["id"] for other in data["tasks"] if first["id"] in other["depends_on"]]
    both = [first, second]
    return (
        second["depends_on"] == [first["id"]]
        and dependents == [second["id"]]
        and first["agent"] == second["agent"]
        and not any(one.get("parallel") is False or "compensation_action" in one for one in both)
        and "for_each" not in first
        and not any(field in second for field in ("when", "for_each", "triggers", "reuse"))
    )


def brute_force(data: dict[str, Any], longest: int) -> set[tuple[str, ...]]:
    links = {
        first["id"]: second["id"]
        for first in data["tasks"]
        for second in data["tasks"]
        if first is not second and goes_on(data, first, second)
    }
    found = set()
    for head in set(links) - set(links.values()):
        path = [head]
        while path[-1] in links:
            path.append(links[path[-1]])
        while path:
            found.add(tuple(path[:longest]))
            path = path[longest:]
    return {chain for chain in found if len(chain) > 1}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(fusible(), st.integers(2, 5))
def test_chains_are_those_of_brute_force(data: dict[str, Any], longest: int) -> None:
    drafted = draft(parse_definition(data))
    chains = fused_chains(drafted, longest)
    assert {tuple(drafted.tasks[index].id for index in chain) for chain in chains} == brute_force(data, longest)
    assert list(chains) == sorted(chains)
    assert all(chain == tuple(sorted(chain)) for chain in chains)
    members = [index for chain in chains for index in chain]
    assert len(members) == len(set(members))


def test_a_line_of_one_role_is_one_chain() -> None:
    assert chains_of({"a": [], "b": ["a"], "c": ["b"]}) == [["a", "b", "c"]]


def test_members_need_not_stand_together() -> None:
    tasks = {"a": [], "x": [], "b": ["a"], "y": ["x"], "c": ["b"]}
    assert chains_of(tasks) == [["a", "b", "c"], ["x", "y"]]


def test_a_chain_ends_where_the_graph_forks_and_begins_after_it_joins() -> None:
    tasks = {"a": [], "b": ["a"], "c": ["b"], "d": ["b"], "e": ["c", "d"], "f": ["e"]}
    assert chains_of(tasks) == [["a", "b"], ["e", "f"]]


def test_a_long_chain_is_cut_into_assignments_of_a_hundred() -> None:
    tasks = {f"t{n}": [f"t{n - 1}"] if n else [] for n in range(201)}
    assert [len(chain) for chain in chains_of(tasks)] == [100, 100]


def test_another_role_begins_a_chain_of_its_own() -> None:
    tasks = [task("a"), task("b", "a"), task("c", "b", agent="other"), task("d", "c", agent="other")]
    agents = {"worker": {"type": "synthetic"}, "other": {"type": "synthetic"}}
    assert chains_of(tasks, agents=agents) == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize("fields", [*ON_ANY_TASK[2:3], *ON_ANY_TASK[4:], *ON_THE_FIRST])
def test_what_the_engine_must_do_after_a_task_ends_its_chain(fields: dict[str, Any]) -> None:
    assert chains_of([task("a", **fields), task("b", "a"), task("c", "b")]) == [["b", "c"]]


@pytest.mark.parametrize("fields", [*ON_ANY_TASK[2:3], *ON_ANY_TASK[4:], *ON_THE_SECOND])
def test_what_the_engine_must_do_before_a_task_ends_the_chain_before_it(fields: dict[str, Any]) -> None:
    assert chains_of([task("a"), task("b", "a"), task("c", "b", **fields)]) == [["a", "b"]]


@pytest.mark.parametrize("fields", [{"when": "input.go"}, {"triggers": [TRIGGER]}, {"reuse": True}])
def test_what_is_decided_before_the_first_task_cuts_nothing(fields: dict[str, Any]) -> None:
    assert chains_of([task("a", **fields), task("b", "a")]) == [["a", "b"]]


@pytest.mark.parametrize("fields", HARMLESS)
def test_retries_timeouts_and_inputs_may_differ(fields: dict[str, Any]) -> None:
    assert chains_of([task("a", **fields), task("b", "a")]) == [["a", "b"]]
    assert chains_of([task("a"), task("b", "a", **fields)]) == [["a", "b"]]


def test_a_dependency_named_twice_does_not_cut_a_chain() -> None:
    assert chains_of([task("a"), task("b", "a", "a")]) == [["a", "b"]]
