"""The planner against brute force on small graphs."""

import math
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.draft import draft
from planner.graph import behind, find_cycles, is_acyclic
from planner.parse import parse_definition
from planner.planner import Planner
from tests.unit.planner.definitions import acyclic_graphs, any_graphs, definition, problems_of, workflows

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other work on the machine must not fail a test."""


def paths(data: dict[str, Any]) -> list[list[str]]:
    """Every path from a task without dependencies to one without dependents."""
    befores = {task["id"]: task["depends_on"] for task in data["tasks"]}
    ends = set(befores) - {name for names in befores.values() for name in names}

    @cache
    def leading_to(name: str) -> list[list[str]]:
        if not befores[name]:
            return [[name]]
        return [[*path, name] for before in befores[name] for path in leading_to(before)]

    return [path for end in sorted(ends) for path in leading_to(end)]


def estimates(data: dict[str, Any]) -> dict[str, float]:
    return {task["id"]: task.get("estimated_seconds", 1.0) for task in data["tasks"]}


def length(path: list[str], seconds: dict[str, float]) -> float:
    return math.fsum(seconds[name] for name in path)


@steady
@given(workflows())
def test_the_critical_path_is_as_long_as_the_longest_of_all_paths(data: dict[str, Any]) -> None:
    plan = Planner().plan(parse_definition(data))
    seconds = estimates(data)
    longest = max(length(path, seconds) for path in paths(data))
    critical = [plan.tasks[index].id for index in plan.critical_path]
    assert plan.critical_path_seconds == pytest.approx(longest)
    assert critical in paths(data)
    assert length(critical, seconds) == pytest.approx(longest)
    assert all(plan.tasks[index].on_critical_path for index in plan.critical_path)


@steady
@given(workflows())
def test_slack_is_what_the_longest_path_through_a_task_lacks(data: dict[str, Any]) -> None:
    plan = Planner().plan(parse_definition(data))
    seconds = estimates(data)
    every = paths(data)
    for task in plan.tasks:
        through = max(length(path, seconds) for path in every if task.id in path)
        assert task.slack_seconds == pytest.approx(plan.critical_path_seconds - through)
        assert task.on_critical_path == (task.slack_seconds == 0)


@steady
@given(workflows())
def test_the_earliest_start_is_the_longest_way_to_a_task(data: dict[str, Any]) -> None:
    plan = Planner().plan(parse_definition(data))
    seconds = estimates(data)
    every = paths(data)
    for task in plan.tasks:
        before = max(length(path[: path.index(task.id)], seconds) for path in every if task.id in path)
        assert task.earliest_start_seconds == pytest.approx(before)


@steady
@given(workflows())
def test_the_wave_of_a_task_is_the_number_of_steps_before_it(data: dict[str, Any]) -> None:
    plan = Planner().plan(parse_definition(data))
    every = paths(data)
    for index, task in enumerate(plan.tasks):
        assert task.wave == max(path.index(task.id) for path in every if task.id in path)
        assert index in plan.waves[task.wave]
    assert plan.parallelism == tuple(map(len, plan.waves))
    assert sorted(index for wave in plan.waves for index in wave) == list(range(len(plan.tasks)))


@steady
@given(workflows())
def test_the_order_is_topological_and_keeps_the_definitions_where_it_may(data: dict[str, Any]) -> None:
    plan = Planner().plan(parse_definition(data))
    left = {task["id"]: set(task["depends_on"]) for task in data["tasks"]}
    for index, task in enumerate(plan.tasks):
        assert task.id == next(name for name, befores in left.items() if not befores)
        assert all(before < index for before in task.depends_on)
        assert [plan.tasks[before].id for before in task.depends_on] == [
            other.id
            for other in plan.tasks
            if other.id in next(t["depends_on"] for t in data["tasks"] if t["id"] == task.id)
        ]
        del left[task.id]
        for befores in left.values():
            befores.discard(task.id)


@steady
@given(workflows())
def test_the_same_definition_has_the_same_plan_however_its_objects_are_ordered(data: dict[str, Any]) -> None:
    other = dict(reversed(data.items()))
    other["agents"] = dict(reversed(data["agents"].items()))
    other["tasks"] = [dict(reversed(task.items())) for task in data["tasks"]]
    assert Planner().plan(parse_definition(data)) == Planner().plan(parse_definition(other))


@steady
@given(workflows())
def test_the_estimated_duration_lies_between_its_bounds(data: dict[str, Any]) -> None:
    drafted = draft(parse_definition(data))
    work = sum(drafted.estimates_us)
    assert drafted.schedule.length_us <= drafted.duration_us <= work
    for role, indexes in drafted.tasks_of_role.items():
        assert drafted.duration_us * drafted.counts[role] >= sum(drafted.estimates_us[i] for i in indexes)
    lone = sum(drafted.estimates_us[i] for i in drafted.alone)
    together = [0 if i in drafted.alone else us for i, us in enumerate(drafted.estimates_us)]
    for role, indexes in drafted.tasks_of_role.items():
        assert (drafted.duration_us - lone) * drafted.counts[role] >= sum(together[i] for i in indexes)


@steady
@given(workflows())
def test_enough_instances_and_no_lone_tasks_take_as_long_as_the_critical_path(data: dict[str, Any]) -> None:
    drafted = draft(parse_definition(data))
    plenty = dict.fromkeys(drafted.counts, len(drafted.tasks))
    assert drafted.duration_with(plenty, frozenset()) == drafted.schedule.length_us


@steady
@given(workflows())
def test_the_parallelism_is_the_most_tasks_that_overlap(data: dict[str, Any]) -> None:
    positive = [task for task in data["tasks"] if task.get("estimated_seconds", 1) > 0]
    plan = Planner().plan(parse_definition(data))
    spans = [
        (round(t.earliest_start_seconds * 1e6), round((t.earliest_start_seconds + t.estimate_seconds) * 1e6))
        for t in plan.tasks
    ]
    overlapping = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    if len(positive) == len(data["tasks"]):
        assert plan.parallelism_max == max(overlapping)
    else:
        assert max(1, *overlapping, 0) <= plan.parallelism_max <= len(plan.tasks)


def reachable(dependencies: list[list[int]], start: int) -> set[int]:
    """What `start` depends on, directly or not."""
    found: set[int] = set()
    pending = list(dependencies[start])
    while pending:
        before = pending.pop()
        if before not in found:
            found.add(before)
            pending.extend(dependencies[before])
    return found


@steady
@given(any_graphs())
def test_cycles_are_found_with_exactly_their_members(dependencies: list[list[int]]) -> None:
    without_own = [[b for b in befores if b != after] for after, befores in enumerate(dependencies)]
    closure = [reachable(without_own, node) for node in range(len(dependencies))]
    expected = {tuple(sorted(o for o in closure[node] if node in closure[o])) for node in range(len(dependencies))} - {
        ()
    }
    cycles = find_cycles(dependencies)
    assert {cycle.members for cycle in cycles} == expected
    assert is_acyclic(dependencies) == (not expected)
    for cycle in cycles:
        for node, before in zip(cycle.path, (*cycle.path[1:], cycle.path[0]), strict=True):
            assert before in dependencies[node]
        assert len(set(cycle.path)) == len(cycle.path) >= 2
        assert set(cycle.path) <= set(cycle.members)
    inside = {member for members in expected for member in members}
    assert behind(dependencies, cycles) == [
        node for node in range(len(dependencies)) if node not in inside and closure[node] & inside
    ]


@steady
@given(any_graphs())
def test_a_definition_is_refused_exactly_for_its_cycles_and_self_dependencies(
    dependencies: list[list[int]],
) -> None:
    data = definition({f"t{n}": [f"t{b}" for b in befores] for n, befores in enumerate(dependencies)})
    codes = {code for code, _, _ in problems_of(data)}
    own = any(after in befores for after, befores in enumerate(dependencies))
    assert ("SELF_DEPENDENCY" in codes) == own
    assert ("CYCLE" in codes) == (not is_acyclic(dependencies))
    assert codes <= {"SELF_DEPENDENCY", "CYCLE", "UNREACHABLE_TASKS"}


@steady
@given(acyclic_graphs())
def test_a_dependency_is_redundant_exactly_when_another_way_leads_there(dependencies: list[list[int]]) -> None:
    data = definition({f"t{n}": [f"t{b}" for b in befores] for n, befores in enumerate(dependencies)})
    plan = Planner().plan(parse_definition(data))
    expected = {
        f"tasks[{after}].depends_on[{number}]"
        for after, befores in enumerate(dependencies)
        for number, before in enumerate(befores)
        if any(before in reachable(dependencies, other) for other in befores if other != before)
    }
    assert {w.location for w in plan.warnings if w.code == "REDUNDANT_DEPENDENCY"} == expected


@steady
@given(acyclic_graphs())
def test_a_single_point_of_failure_is_a_task_that_every_other_stands_before_or_behind(
    dependencies: list[list[int]],
) -> None:
    size = len(dependencies)
    data = definition({f"t{n}": [f"t{b}" for b in befores] for n, befores in enumerate(dependencies)})
    plan = Planner().plan(parse_definition(data))
    before = [reachable(dependencies, node) for node in range(size)]
    expected = set()
    for node in range(size):
        after = {other for other in range(size) if node in before[other]}
        if len(before[node]) + len(after) == size - 1 and len(after) >= 3 and plan.parallelism_max > 1:
            expected.add(f"tasks[{node}]")
    assert {w.location for w in plan.warnings if w.code == "SINGLE_POINT_OF_FAILURE"} == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "agent", "depends_on", "type", "count", "timeout", "timeout_seconds", "worker", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
fields = st.sampled_from(
    ["name", "version", "agents", "tasks", "coordination", "orchestration_pattern", "fault_tolerance",
     "pattern_config", "description", "on_failure", "else"]
)  # fmt: skip


@settings(steady, max_examples=300)
@given(st.dictionaries(fields, json_values, max_size=6))
def test_whatever_a_client_writes_is_accepted_or_refused_with_located_problems(changes: dict[str, Any]) -> None:
    for _, location, message in problems_of({**definition(), **changes}):
        assert message
        assert location == "" or location[0] != "."


@steady
@given(json_values)
def test_whatever_stands_among_the_tasks_never_hides_a_cycle(intruder: Any) -> None:
    tasks = [*definition({"p": ["q"], "q": ["p"]})["tasks"], intruder]
    assert any(code == "CYCLE" for code, _, _ in problems_of(definition(tasks)))
