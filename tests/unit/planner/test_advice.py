"""Warnings and optimizations, one rule at a time."""

import time
from typing import Any

import pytest

from engine.contracts.plan import Plan
from planner.risks import WARNINGS_PER_CODE_MAX
from tests.unit.planner.definitions import plan_of, task


def codes(plan: Plan) -> list[tuple[str, str]]:
    return [(problem.code, problem.location) for problem in (*plan.warnings, *plan.optimizations)]


def message(plan: Plan, code: str) -> str:
    [text] = [p.message for p in (*plan.warnings, *plan.optimizations) if p.code == code]
    return text


def workers(count: int) -> dict[str, Any]:
    return {"worker": {"type": "synthetic", "count": count}}


def test_a_chain_with_enough_agents_has_no_advice() -> None:
    assert codes(plan_of({"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["d"]})) == []


def test_a_role_that_no_task_uses_is_a_warning() -> None:
    plan = plan_of([task("a")], agents={**workers(1), "spare": {"type": "synthetic"}})
    assert codes(plan) == [("UNUSED_ROLE", "agents.spare")]


def test_a_task_apart_from_the_graph_is_a_warning() -> None:
    assert ("ISOLATED_TASK", "tasks[1]") in codes(plan_of({"a": [], "alone": [], "b": ["a"]}))


def test_tasks_without_any_dependencies_are_not_isolated() -> None:
    assert codes(plan_of({"a": [], "b": [], "c": []})) == []


def test_a_dependency_named_twice_is_a_warning_and_counts_once() -> None:
    plan = plan_of([task("a"), task("b", "a", "a", "a")])
    assert codes(plan) == [("DUPLICATE_DEPENDENCY", "tasks[1].depends_on")]
    assert "3 times" in message(plan, "DUPLICATE_DEPENDENCY")
    assert plan.tasks[1].depends_on == (0,)


def test_a_dependency_that_another_implies_is_a_warning() -> None:
    plan = plan_of({"c": ["a", "b"], "b": ["a"], "a": []})
    assert codes(plan) == [("REDUNDANT_DEPENDENCY", "tasks[0].depends_on[0]")]


def test_a_timeout_below_the_estimate_is_a_warning() -> None:
    plan = plan_of([task("a", estimated_seconds=10, timeout_seconds=9)])
    assert ("TIMEOUT_BELOW_ESTIMATE", "tasks[0].timeout_seconds") in codes(plan)
    assert "TIMEOUT_BELOW_ESTIMATE" not in {
        code for code, _ in codes(plan_of([task("a", estimated_seconds=10, timeout_seconds=10)]))
    }


def test_a_task_that_all_others_wait_for_is_a_single_point_of_failure() -> None:
    plan = plan_of({"b": ["a"], "c": ["a"], "a": [], "d": ["b", "c"]})
    assert codes(plan) == [("SINGLE_POINT_OF_FAILURE", "tasks[2]")]
    assert 'all 3 other tasks wait for "a"' in message(plan, "SINGLE_POINT_OF_FAILURE")


def test_a_task_in_the_middle_that_everything_goes_through_is_a_single_point_of_failure() -> None:
    plan = plan_of({"a": [], "b": [], "m": ["a", "b"], "x": ["m"], "y": ["m"], "z": ["m"]})
    assert codes(plan) == [("SINGLE_POINT_OF_FAILURE", "tasks[2]")]
    assert 'all 3 tasks behind it wait for "m"' in message(plan, "SINGLE_POINT_OF_FAILURE")


def test_the_only_instance_of_a_role_with_many_parallel_tasks_is_a_warning() -> None:
    plan = plan_of({"a": [], "b": [], "c": []}, agents=workers(1))
    assert ("SINGLE_INSTANCE", "agents.worker.count") in codes(plan)
    assert "up to 3 tasks" in message(plan, "SINGLE_INSTANCE")


def test_the_only_instance_of_a_role_with_successive_tasks_is_none() -> None:
    assert codes(plan_of({"a": [], "b": ["a"], "c": ["b"], "d": ["c"]}, agents=workers(1))) == []


def test_an_estimate_above_the_default_timeout_of_executions_is_a_warning() -> None:
    plan = plan_of([task("a", estimated_seconds=4_000, timeout=5_000)])
    assert ("DURATION_ABOVE_TIMEOUT", "") in codes(plan)
    assert "execution_options.timeout" in message(plan, "DURATION_ABOVE_TIMEOUT")


def test_warnings_of_one_kind_are_bounded_and_counted() -> None:
    spare = {f"spare{n:03}": {"type": "t"} for n in range(WARNINGS_PER_CODE_MAX + 7)}
    plan = plan_of([task("a")], agents={**workers(1), **spare})
    assert len(plan.warnings) == WARNINGS_PER_CODE_MAX + 1
    assert plan.warnings[-1].code == "UNUSED_ROLE"
    assert plan.warnings[-1].message == "... and 7 more of this kind"


def test_more_instances_are_suggested_with_what_they_gain() -> None:
    tasks = [task(name, estimated_seconds=10, timeout=60) for name in ("a", "b", "c")]
    plan = plan_of(tasks, agents=workers(2))
    assert plan.estimated_resources.estimated_duration_seconds == 20
    assert codes(plan)[0] == ("ADD_INSTANCES", "agents.worker.count")
    assert '3 instead of 2 instances of "worker"' in message(plan, "ADD_INSTANCES")
    assert "10 s instead of 20 s, 10 s sooner" in message(plan, "ADD_INSTANCES")


def test_instances_are_suggested_together_when_one_alone_gains_nothing() -> None:
    plan = plan_of([task(name) for name in "abcd"], agents=workers(2))
    assert '4 instead of 2 instances of "worker"' in message(plan, "ADD_INSTANCES")


def test_no_instances_are_suggested_where_the_dependencies_take_as_long() -> None:
    plan = plan_of({"a": [], "b": ["a"], "c": ["b"], "x": [], "y": ["x"]}, agents=workers(2))
    assert "ADD_INSTANCES" not in {code for code, _ in codes(plan)}


def test_a_long_task_on_the_critical_path_is_worth_splitting_as_far_as_it_shortens_it() -> None:
    tasks = [task("long", estimated_seconds=100), task("other", estimated_seconds=70), task("end", "long", "other")]
    plan = plan_of(tasks)
    assert codes(plan) == [("SPLIT_TASK", "tasks[0]")]
    assert message(plan, "SPLIT_TASK").endswith("it would shorten it by 30 s")


def test_tasks_without_an_estimate_are_not_worth_splitting() -> None:
    assert "SPLIT_TASK" not in {code for code, _ in codes(plan_of())}


def test_equal_critical_paths_are_not_shortened_by_splitting_one_task() -> None:
    tasks = [task("a", estimated_seconds=50), task("b", estimated_seconds=50)]
    assert codes(plan_of(tasks)) == []


def test_tasks_that_run_alone_are_counted_with_what_that_costs() -> None:
    tasks = [task("a"), task("b", parallel=False), task("c", parallel=False)]
    plan = plan_of(tasks)
    assert plan.estimated_resources.estimated_duration_seconds == 3
    assert codes(plan) == [("ALLOW_PARALLEL", "tasks[1].parallel")]
    assert "2 tasks run alone" in message(plan, "ALLOW_PARALLEL")
    assert "2 s sooner" in message(plan, "ALLOW_PARALLEL")


def test_a_task_that_would_run_alone_anyway_is_no_advice() -> None:
    assert codes(plan_of([task("a"), task("b", "a", parallel=False), task("c", "b")])) == []


@pytest.mark.parametrize(
    ("count", "cpu", "memory", "cores", "gigabytes"),
    [(3, "2 cores", "4GB", 6.0, 12.0), (2, "500m", "512Mi", 1.0, 1.074), (1, None, None, 0.0, 0.0)],
)
def test_resources_are_those_of_all_instances(
    count: int, cpu: str | None, memory: str | None, cores: float, gigabytes: float
) -> None:
    role = {"type": "synthetic", "count": count, "resources": {"cpu": cpu, "memory": memory}}
    needs = plan_of([task("a")], agents={"worker": role}).estimated_resources
    assert (needs.agents_required, needs.cpu_cores, needs.memory_gb) == (count, cores, gigabytes)


def test_the_duration_is_rounded_up_to_whole_seconds() -> None:
    plan = plan_of([task("a", estimated_seconds=0.2)])
    assert plan.critical_path_seconds == 0.2
    assert plan.estimated_resources.estimated_duration_seconds == 1
    assert plan_of([task("a", estimated_seconds=0)]).estimated_resources.estimated_duration_seconds == 0


def test_tasks_that_run_alone_wait_for_those_running_and_hold_back_those_after() -> None:
    tasks = [
        task("long", estimated_seconds=4),
        task("short", estimated_seconds=1),
        task("lone", "short", estimated_seconds=2, parallel=False),
        task("other", "short", estimated_seconds=3),
    ]
    assert plan_of(tasks).estimated_resources.estimated_duration_seconds == 9


def test_many_roles_and_many_lone_tasks_are_planned_in_bounded_time() -> None:
    size = 3_000
    roles = {f"r{n}": {"type": "t"} for n in range(size)}
    tasks = [task(f"t{n}", *([f"t{n - 1}"] if n else []), agent=f"r{n}", parallel=n % 2 == 0) for n in range(size)]
    started = time.process_time()
    plan = plan_of(tasks, agents=roles)
    assert plan.estimated_resources.estimated_duration_seconds == size
    assert time.process_time() - started < 5
