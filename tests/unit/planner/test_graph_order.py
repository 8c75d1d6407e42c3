import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from planner.graph import build_digraph, build_graph


@st.composite
def acyclic(draw: st.DrawFn) -> list[list[int]]:
    """Dependencies of up to 12 tasks, in any order, some of them named twice."""
    order = draw(st.permutations(range(draw(st.integers(1, 12)))))
    dependencies: list[list[int]] = [[] for _ in order]
    for place, task in enumerate(order):
        if place:
            dependencies[task] = draw(st.lists(st.sampled_from(order[:place]), max_size=4))
    return dependencies


@given(acyclic())
def test_among_tasks_that_could_come_next_the_first_of_the_definition_does(dependencies: list[list[int]]) -> None:
    expected = list(nx.lexicographical_topological_sort(build_digraph(dependencies)))
    assert build_graph(dependencies).positions == expected
