import pytest

from benchmarks.shapes import FAR_FIRST, Dependencies, chain, definition, fan_out, far_graph, lanes, random_graph, wide
from planner.parse import parse_definition
from planner.planner import Planner


@pytest.mark.parametrize(
    ("graph", "waves"),
    [
        (chain(10), [1] * 10),
        (fan_out(50), [1, 48, 1]),
        (lanes(4, 3), [4, 4, 4]),
        (wide(50), [1, 49]),
    ],
)
def test_a_shape_is_what_it_is_called(graph: Dependencies, waves: list[int]) -> None:
    plan = Planner().plan(parse_definition(definition(graph, 2)))
    assert [len(wave) for wave in plan.waves] == waves


def test_a_random_graph_is_the_same_each_time_and_has_no_cycle() -> None:
    graph = random_graph(300)
    assert graph == random_graph(300)
    assert graph != random_graph(300, seed=2)
    assert all(before < number for number, befores in enumerate(graph) for before in befores)
    assert len(Planner().plan(parse_definition(definition(graph, 2))).tasks) == 300


def test_no_definition_is_like_another_one_so_that_no_cache_helps() -> None:
    planner, graph = Planner(), chain(3)
    first, second = (planner.plan(parse_definition(definition(graph, 1))) for _ in range(2))
    assert first.plan_hash != second.plan_hash


def test_tasks_take_the_time_that_they_are_given() -> None:
    assert all(task["input"] == {"duration_ms": 50} for task in definition(chain(2), 1, 50)["tasks"])
    assert all("input" not in task for task in definition(chain(2), 1)["tasks"])


def test_a_far_reaching_graph_is_the_same_each_time_with_three_dependencies_among_the_200_before() -> None:
    graph = far_graph(1_000)
    assert graph == far_graph(1_000)
    assert graph[:FAR_FIRST] == [[]] * FAR_FIRST
    for number, befores in enumerate(graph[FAR_FIRST:], FAR_FIRST):
        assert len(set(befores)) == len(befores) == 3
        assert all(max(0, number - 200) <= before < number for before in befores)


def test_roles_take_the_tasks_in_turn() -> None:
    document = definition(chain(4), 3, roles=2)
    assert [task["agent"] for task in document["tasks"]] == ["worker-1", "worker-2", "worker-1", "worker-2"]
    assert {role: agent["count"] for role, agent in document["agents"].items()} == {"worker-1": 3, "worker-2": 3}
    assert Planner().plan(parse_definition(document)).tasks
