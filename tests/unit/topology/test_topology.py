"""Who is linked with whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.contracts.topology import TopologyConfig
from engine.topology import Topology


def topology(kind: str, size: int, **fields: object) -> Topology:
    config = TopologyConfig.model_validate({"kind": kind, **fields})
    return Topology(config, [f"p-{n + 1}" for n in range(size)])


def links(kind: str, size: int, **fields: object) -> list[tuple[int, ...]]:
    found = topology(kind, size, **fields)
    return [found.of(at) for at in range(size)]


def test_full() -> None:
    assert links("full", 3) == [(1, 2), (0, 2), (0, 1)]


def test_ring() -> None:
    assert links("ring", 4) == [(1, 3), (0, 2), (1, 3), (0, 2)]
    assert links("ring", 2) == [(1,), (0,)]
    assert links("ring", 1) == [()]


def test_star() -> None:
    assert links("star", 4) == [(1, 2, 3), (0,), (0,), (0,)]


def test_tree() -> None:
    assert links("tree", 6, arity=2) == [(1, 2), (0, 3, 4), (0, 5), (1,), (1,), (2,)]
    assert links("tree", 3, arity=5) == [(1, 2), (0,), (0,)]


def test_nearest_neighbours() -> None:
    assert links("neighbours", 5, k=3)[0] == (1, 2, 4)
    assert links("neighbours", 3, k=10) == links("full", 3), "no more than there are"


def test_given() -> None:
    found = topology("given", 3, links={"p-1": ["p-2", "p-1", "p-9"], "x-1": ["p-1"]})
    assert [found.of(at) for at in range(3)] == [(1,), (), ()]
    assert found.linked(0, 1)
    assert not found.linked(1, 0), "a link has a direction"


def test_nobody_is_linked_with_itself() -> None:
    assert not topology("full", 2).linked(0, 0)


def test_distances_grow_along_the_links() -> None:
    assert topology("ring", 6).within(0, 2) == {1: 1, 5: 1, 2: 2, 4: 2}
    assert topology("star", 4).within(1, 2) == {0: 1, 2: 2, 3: 2}
    assert topology("full", 3).within(1, 5) == {0: 1, 2: 1}
    assert topology("ring", 6).within(0, 0) == {}


def test_who_cannot_be_reached() -> None:
    found = topology("given", 4, links={"p-1": ["p-2"], "p-3": ["p-4"]})
    assert found.unreached([0]) == [2, 3]
    assert found.unreached([0, 2]) == []
    assert topology("full", 3).unreached([2]) == []


def test_names_have_positions() -> None:
    found = topology("full", 2)
    assert (found.position("p-2"), found.position("p-3"), len(found)) == (1, None, 2)


@given(kind=st.sampled_from(["full", "ring", "star", "tree"]), size=st.integers(1, 30), arity=st.integers(1, 4))
def test_every_shape_is_symmetric_and_connected(kind: str, size: int, arity: int) -> None:
    found = topology(kind, size, arity=arity)
    for at in range(size):
        neighbours = found.of(at)
        assert at not in neighbours
        assert list(neighbours) == sorted(set(neighbours))
        assert all(found.linked(other, at) and found.linked(at, other) for other in neighbours)
    assert found.unreached([0]) == []
    assert len(found.within(0, size)) == size - 1


@given(size=st.integers(1, 30), k=st.integers(1, 12))
def test_nearest_neighbours_are_as_many_as_asked_for(size: int, k: int) -> None:
    found = topology("neighbours", size, k=k)
    assert all(len(found.of(at)) == min(k, size - 1) for at in range(size))


@pytest.mark.parametrize(
    "fields",
    [{"kind": "cube"}, {"kind": "given"}, {"kind": "ring", "links": {"a-1": []}}, {"k": 0}, {"arity": 0}, {"x": 1}],
    ids=str,
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TopologyConfig.model_validate(fields)
