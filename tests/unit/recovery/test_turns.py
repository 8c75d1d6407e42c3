"""Who is next when executions wait for capacity."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contracts.capacity import CapacityLimits, Demand, QueueState, Usage, Waiting
from engine.contracts.execution import Priority
from engine.recovery.turns import Served, choose, line_of, rank

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def waiting(
    number: int, tenant: str = "t", priority: Priority = "normal", waited: float = 0.0, **demand: int
) -> Waiting:
    return Waiting(
        tenant=tenant,
        execution_id=UUID(int=number),
        priority=priority,
        queued_at=NOW - timedelta(seconds=waited),
        demand=Demand(**demand),
    )


def state(*items: Waiting, **fields: Any) -> QueueState:
    return QueueState(**{"used": Usage(), "waiting": items, "now": NOW, **fields})


def started(
    turn_of: QueueState, limits: CapacityLimits | None = None, most: int = 1_000, served: Served | None = None
) -> list[int]:
    turn = choose(turn_of, limits or CapacityLimits(), most, served or {})
    return [item.execution_id.int for item in turn.start]


def test_high_goes_before_normal_before_low_and_then_the_longest_waiting() -> None:
    queue = state(
        waiting(1, priority="low", waited=9),
        waiting(2, priority="normal", waited=1),
        waiting(3, priority="high"),
        waiting(4, priority="normal", waited=2),
    )
    assert started(queue) == [3, 4, 2, 1]


def test_a_line_moves_up_a_class_for_each_five_minutes_in_which_none_of_it_started() -> None:
    lows = [waiting(n, priority="low", waited=700 - n) for n in (1, 2)]
    queue = state(waiting(3, priority="high"), waiting(4, priority="normal"), *lows)
    assert started(queue) == [1, 3, 4, 2]
    served = NOW - timedelta(seconds=301)
    assert started(queue, served={("t", "low"): served}) == [3, 1, 4, 2]
    assert started(queue, served={("t", "low"): NOW}) == [3, 4, 1, 2]


@pytest.mark.parametrize("waited", [1.0, 10_000.0])
def test_a_tenants_flood_does_not_keep_another_tenants_single_execution(waited: float) -> None:
    flood = [waiting(n, "flood", waited=waited) for n in range(1, 201)]
    served: Served = {("flood", "normal"): NOW - timedelta(seconds=1)}
    assert started(state(*flood, waiting(999, "single"), running={"flood": 3}), served=served)[0] == 999


def test_tenants_take_turns_by_how_many_they_run() -> None:
    queue = state(
        *(waiting(n, "a", waited=100) for n in range(1, 5)), *(waiting(10 + n, "b", waited=50) for n in range(1, 5)),
        running={"a": 2, "b": 0},
    )  # fmt: skip
    assert started(queue, most=6) == [11, 12, 1, 13, 2, 14]


def test_a_large_one_is_not_overtaken_by_small_ones_behind_it() -> None:
    queue = state(waiting(1, waited=2, agents=8), waiting(2, waited=1, agents=1), used=Usage(executions=1, agents=3))
    assert started(queue, CapacityLimits(agents=10)) == []


def test_a_tenant_at_its_limit_is_passed_over() -> None:
    queue = state(
        *(waiting(n, "a", waited=10) for n in (1, 2)), waiting(3, "b"), running={"a": 1, "b": 1}
    )  # fmt: skip
    assert started(queue, CapacityLimits(tenant_executions=2)) == [1, 3]


def test_what_can_never_fit_is_named_and_holds_nobody_back() -> None:
    giant = waiting(1, priority="high", agents=11)
    turn = choose(state(giant, waiting(2)), CapacityLimits(agents=10), 5, {})
    assert turn.impossible == (giant,)
    assert [item.execution_id.int for item in turn.start] == [2]


items = st.builds(
    lambda number, tenant, priority, waited, agents, cpu: waiting(
        number, tenant, priority, waited, agents=agents, cpu_micros=cpu
    ),
    st.integers(1, 10**6),
    st.sampled_from("abc"),
    st.sampled_from(["low", "normal", "high"]),
    st.integers(0, 1_200),
    st.integers(1, 6),
    st.integers(0, 6),
)
queues = st.builds(
    lambda found, a, b, executions: state(*found, running={"a": a, "b": b}, used=Usage(executions=executions)),
    st.lists(items, max_size=30, unique_by=lambda item: item.execution_id),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 5),
)
maybe = st.none() | st.integers(1, 12)
limits_of = st.builds(
    lambda executions, agents, cpu, tenant: CapacityLimits(
        executions=executions, agents=agents, cpu_micros=cpu, tenant_executions=tenant
    ),
    maybe, maybe, maybe, maybe,
)  # fmt: skip


@given(queues, limits_of, st.integers(1, 40))
def test_the_limits_hold_nobody_starts_twice_and_no_better_class_is_passed_over(
    queue: QueueState, limits: CapacityLimits, most: int
) -> None:
    turn = choose(queue, limits, most, {})
    assert len(turn.start) <= most
    assert len({item.execution_id for item in turn.start}) == len(turn.start)
    assert set(turn.start) <= set(queue.waiting)
    assert not set(turn.start) & set(turn.impossible)
    used, running = queue.used, dict(queue.running)
    for item in turn.start:
        used = used.plus(item.demand)
        assert used.within(limits)
        running[item.tenant] = running.get(item.tenant, 0) + 1
        assert limits.tenant_executions is None or running[item.tenant] <= limits.tenant_executions
    left = set(queue.waiting) - set(turn.start) - set(turn.impossible)
    last = turn.start[-1] if turn.start else None
    for item in left:
        if last is None or rank(item, NOW, NOW) >= rank(last, None, NOW):
            continue
        # Only a tenant at its own limit is passed over by a lower class.
        assert limits.tenant_executions is not None
        assert running[item.tenant] >= limits.tenant_executions


@given(queues, st.integers(1, 40))
def test_within_a_line_the_longest_waiting_goes_first(queue: QueueState, most: int) -> None:
    turn = choose(queue, CapacityLimits(), most, {})
    for item in turn.start:
        before = [
            other for other in queue.waiting if line_of(other) == line_of(item) and other.queued_at < item.queued_at
        ]
        place = turn.start.index(item)
        assert all(other in turn.start[:place] for other in before)


@given(queues, limits_of)
def test_if_nobody_starts_the_first_does_not_fit(queue: QueueState, limits: CapacityLimits) -> None:
    turn = choose(queue, limits, 10, {})
    eligible = [
        item
        for item in queue.waiting
        if item not in turn.impossible
        and (limits.tenant_executions is None or queue.running.get(item.tenant, 0) < limits.tenant_executions)
    ]
    if eligible and not turn.start:
        best = min(rank(item, None, NOW) for item in eligible)
        assert any(
            not queue.used.plus(item.demand).within(limits) for item in eligible if rank(item, None, NOW) == best
        )


@given(queues)
def test_the_order_is_the_same_however_the_queue_was_read(queue: QueueState) -> None:
    reversed_queue = queue.model_copy(update={"waiting": tuple(reversed(queue.waiting))})
    assert started(queue) == started(reversed_queue)
