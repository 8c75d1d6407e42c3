"""How many agents each role gets under an execution's constraints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contracts.capacity import AgentCeiling, AgentNeed, Demand, allot, demand_of, least_demand
from engine.contracts.definition import AgentRequirement
from engine.contracts.execution import ResourceConstraints

roles = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.builds(
        lambda count, cpu, memory: AgentNeed(count=count, cpu_micros=cpu, memory_bytes=memory),
        st.integers(1, 12), st.integers(0, 5), st.integers(0, 5),
    ),
    min_size=1,
)  # fmt: skip
limit = st.none() | st.integers(1, 60)
ceilings = st.builds(lambda a, c, m: AgentCeiling(agents=a, cpu_micros=c, memory_bytes=m), limit, limit, limit)


@given(roles, ceilings)
def test_the_ceiling_holds_each_role_has_one_and_no_role_could_get_another(
    needs: dict[str, AgentNeed], most: AgentCeiling
) -> None:
    if not least_demand(needs).within(most):
        with pytest.raises(ValueError, match="one agent of each role"):
            allot(needs, most)
        return
    counts = allot(needs, most)
    assert demand_of(needs, counts).within(most)
    assert counts.keys() == needs.keys()
    for role, count in counts.items():
        assert 1 <= count <= needs[role].count
        if count < needs[role].count:
            assert not demand_of(needs, counts | {role: count + 1}).within(most)


@given(roles, st.integers(1, 60), st.integers(0, 10))
def test_a_higher_limit_of_agents_gives_no_role_fewer(needs: dict[str, AgentNeed], most: int, more: int) -> None:
    if most < len(needs):
        return
    fewer, many = allot(needs, AgentCeiling(agents=most)), allot(needs, AgentCeiling(agents=most + more))
    assert all(fewer[role] <= many[role] for role in needs)
    assert sum(fewer.values()) == min(most, sum(need.count for need in needs.values()))


@given(roles, limit, limit, st.integers(0, 20), st.integers(1, 5), st.integers(1, 5))
def test_among_agents_of_one_size_more_never_gives_a_role_fewer(
    needs: dict[str, AgentNeed], cpu: int | None, memory: int | None, more: int, each_cpu: int, each_memory: int
) -> None:
    same = {role: AgentNeed(count=n.count, cpu_micros=each_cpu, memory_bytes=each_memory) for role, n in needs.items()}
    tight = AgentCeiling(cpu_micros=cpu, memory_bytes=memory)
    if not least_demand(same).within(tight):
        return
    wide = AgentCeiling(
        cpu_micros=None if cpu is None else cpu + more, memory_bytes=None if memory is None else memory + more
    )
    fewer, many = allot(same, tight), allot(same, wide)
    assert all(fewer[role] <= many[role] for role in needs)


@given(roles, st.integers(4, 60))
def test_roles_that_want_more_differ_by_one_at_most(needs: dict[str, AgentNeed], most: int) -> None:
    counts = allot(needs, AgentCeiling(agents=most))
    unsatisfied = [count for role, count in counts.items() if count < needs[role].count]
    if unsatisfied:
        assert max(counts.values()) - min(unsatisfied) <= 1


def test_without_constraints_each_role_gets_what_it_wants() -> None:
    needs = {"a": AgentNeed(count=10_000), "b": AgentNeed(count=1)}
    assert allot(needs, AgentCeiling()) == {"a": 10_000, "b": 1}


def test_what_is_exceeded_is_named_with_both_numbers() -> None:
    most = AgentCeiling.of(ResourceConstraints(max_agents=3, max_cpu="1500m", max_memory="1GB"))
    asked = Demand(agents=4, cpu_micros=2_000_000, memory_bytes=2_000_000_000)
    assert asked.exceeding(most) == (
        "4 agents of at most 3",
        "2 cores of at most 1.5",
        "2000000000 bytes of memory of at most 1000000000",
    )
    assert asked.exceeding(AgentCeiling.of(ResourceConstraints())) == ()


def test_cores_add_up_exactly() -> None:
    need = AgentNeed.of(AgentRequirement.model_validate({"type": "t", "count": 10, "resources": {"cpu": "0.1"}}))
    assert allot({"a": need}, AgentCeiling.of(ResourceConstraints(max_cpu="1"))) == {"a": 10}
