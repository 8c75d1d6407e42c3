"""The plan as a whole, its cache, its hash, the kernel's form of it, and the drawing."""

import threading
from typing import Any

import pytest

from engine.contracts.definition import RETRY_POLICIES, TaskDefinition, WorkflowDefinition
from engine.contracts.kernel import KernelRole, KernelTrigger
from engine.contracts.plan import Plan
from engine.errors import InvalidDefinitionError
from planner.kernel_plan import kernel_plan
from planner.parse import parse_definition
from planner.planner import Planner, content_hash
from planner.render import format_seconds, render_plan
from tests.unit.planner.definitions import definition, plan_of, task


def test_a_diamond_has_three_waves_and_runs_two_at_once() -> None:
    plan = plan_of()
    assert [t.id for t in plan.tasks] == ["a", "b", "c", "d"]
    assert plan.waves == ((0,), (1, 2), (3,))
    assert plan.critical_path == (0, 1, 3)
    assert [t.on_critical_path for t in plan.tasks] == [True] * 4
    assert plan.critical_path_seconds == 3
    assert (plan.parallelism, plan.parallelism_max) == ((1, 2, 1), 2)


def test_sums_of_decimal_estimates_leave_no_slack_on_the_critical_path() -> None:
    tasks = [task("a", estimated_seconds=0.1), task("b", "a", estimated_seconds=0.2), task("c", estimated_seconds=0.3)]
    assert [t.slack_seconds for t in plan_of(tasks).tasks] == [0, 0, 0]


def test_a_plan_survives_json() -> None:
    plan = plan_of()
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_two_ways_to_write_the_same_have_one_hash_and_one_plan() -> None:
    planner = Planner()
    short = parse_definition(definition([task("a", timeout=300)]))
    full = parse_definition(definition([task("a", timeout_seconds=300, parallel=None)], on_failure="fail_fast"))
    assert planner.plan(short) is planner.plan(full)
    assert planner.plan(short).plan_hash == content_hash(full.model_dump(mode="json"))


def test_any_difference_in_content_changes_the_hash() -> None:
    hashes = {
        plan_of(tasks, **fields).plan_hash
        for tasks, fields in (
            ([task("a")], {}),
            ([task("b")], {}),
            ([task("a", input={"x": 1})], {}),
            ([task("a", input={"x": 2})], {}),
            ([task("a")], {"version": "2.0"}),
        )
    }
    assert len(hashes) == 5
    assert all(len(value) == 64 for value in hashes)


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": {"c": 2, "d": 3}}) == content_hash({"b": {"d": 3, "c": 2}, "a": 1})


def test_what_is_no_json_has_no_hash() -> None:
    with pytest.raises(InvalidDefinitionError) as caught:
        content_hash({"a": {1, 2}})
    assert caught.value.data["errors"][0]["code"] == "INVALID_VALUE"


def numbered(number: int, tasks: int = 1) -> WorkflowDefinition:
    return parse_definition(definition([task(f"t{n}") for n in range(tasks)], version=str(number)))


def test_the_cache_forgets_the_plan_that_was_used_longest_ago() -> None:
    planner = Planner(plans_max=2)
    first, second = planner.plan(numbered(1)), planner.plan(numbered(2))
    assert planner.plan(numbered(1)) is first
    planner.plan(numbered(3))
    assert planner.plan(numbered(1)) is first
    assert planner.plan(numbered(2)) is not second


def test_the_cache_is_bounded_by_the_tasks_that_it_holds() -> None:
    planner = Planner(tasks_max=10)
    first = planner.plan(numbered(1, tasks=6))
    assert planner.plan(numbered(1, tasks=6)) is first
    planner.plan(numbered(2, tasks=5))
    assert planner.plan(numbered(1, tasks=6)) is not first
    large = planner.plan(numbered(3, tasks=11))
    assert planner.plan(numbered(3, tasks=11)) is not large


def test_threads_that_plan_the_same_at_once_agree() -> None:
    planner = Planner()
    barrier = threading.Barrier(4)
    plans: list[Plan] = []

    def work() -> None:
        barrier.wait(timeout=10)
        plans.append(planner.plan(numbered(1, tasks=50)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(plans) == 4
    assert all(plan == plans[0] for plan in plans)
    assert planner.plan(numbered(1, tasks=50)) in plans


def unchecked(*tasks: dict[str, Any]) -> WorkflowDefinition:
    valid = parse_definition(definition([task("a")]))
    return valid.model_copy(update={"tasks": [TaskDefinition(**fields) for fields in tasks]})


@pytest.mark.parametrize(
    "tasks",
    [
        [task("a", "b"), task("b", "a")],
        [task("a", "gone")],
        [task("a", agent="nobody")],
    ],
)
def test_definitions_that_were_never_checked_are_refused(tasks: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidDefinitionError):
        Planner().plan(unchecked(*tasks))


def test_the_kernels_plan_has_retries_roles_and_milliseconds() -> None:
    parsed = parse_definition(
        definition(
            [
                task("b", "a", retry_policy="none", parallel=False, on_failure="finish_branches"),
                task("a", estimated_seconds=1.5, timeout=7),
                task("c", retry_policy={"max_attempts": 9}, parallel=True),
            ],
            agents={"worker": {"type": "synthetic", "count": 2, "capabilities": ["x"]}},
            on_failure="finish_branches",
        )
    )
    kernel = kernel_plan(parsed, Planner().plan(parsed), "linear")
    a, b, c = kernel.tasks
    assert [t.id for t in kernel.tasks] == ["a", "b", "c"]
    assert (a.deps, b.deps, c.deps) == ((), (0,), ())
    assert (a.estimate_ms, b.estimate_ms, c.slack_ms, a.slack_ms) == (1500, 1000, 1500, 0)
    assert (a.timeout_ms, b.timeout_ms) == (7_000, 300_000)
    assert (a.retry, b.retry) == (RETRY_POLICIES["linear"], RETRY_POLICIES["none"])
    assert c.retry.max_attempts == 9
    assert (a.alone, b.alone, c.alone) == (False, True, False)
    assert (a.on_failure, b.on_failure) == (None, "finish_branches")
    assert kernel.on_failure == "finish_branches"
    assert kernel.roles == {"worker": KernelRole(type="synthetic", count=2, capabilities=("x",))}


def test_the_kernels_plan_has_what_is_decided_at_run_time_and_which_tasks_are_fused() -> None:
    parsed = parse_definition(
        definition(
            [
                task("a", when="input.go", reuse=True),
                task("b", "a"),
                task("c", "b", for_each="results.b.items"),
                task(
                    "d",
                    "c",
                    triggers=[
                        {"event": "go", "when": "event.ok", "timeout_seconds": 2, "on_timeout": "run"},
                        {"event": "x.y"},
                    ],
                ),
            ]
        )
    )
    a, b, c, d = kernel_plan(parsed, Planner().plan(parsed), "none").tasks
    assert (a.fused, b.fused, c.fused, d.fused) == (False, True, False, False)
    assert (a.when, b.when, c.when, d.when) == (True, False, False, False)
    assert (a.for_each, c.for_each) == (False, True)
    assert (a.reuse, b.reuse) == (True, False)
    assert d.triggers == (
        KernelTrigger(event="go", conditional=True, timeout_ms=2_000, on_timeout="run"),
        KernelTrigger(event="x.y"),
    )
    assert (a.triggers, b.triggers, c.triggers) == ((), (), ())


def test_the_drawing_shows_chains_and_what_is_decided_at_run_time() -> None:
    tasks = [task("a", when="input.go", reuse=True), *(task(f"b{n}", f"b{n - 1}" if n else "a") for n in range(150))]
    lines = render_plan(plan_of(tasks, agents={"worker": {"type": "synthetic"}}))
    assert any(line.startswith("  * a ") and line.endswith("[when, reuse]") for line in lines)
    assert "Fused chains (2): one agent does each without a pause" in lines
    assert any(line.startswith("  100 tasks  a -> b0 -> ") and " -> (60 more) -> " in line for line in lines)
    assert any(line.startswith("  51 tasks  b99 -> ") and line.endswith(" -> b149") for line in lines)
    many = {f"{letter}{n}": [f"a{n}"] if letter == "b" else [] for n in range(30) for letter in "ab"}
    assert "  ... 10 more chains" in render_plan(plan_of(many))
    assert not any("chains" in line for line in render_plan(plan_of({"a": [], "b": []})))


def test_the_drawing_shows_waves_critical_path_slack_and_advice() -> None:
    tasks = [
        task("load", estimated_seconds=2),
        task("lint", "load", estimated_seconds=6),
        task("count", "load", estimated_seconds=2),
        task("report", "lint", "count", "load", estimated_seconds=2),
    ]
    role = {"type": "synthetic", "count": 2, "resources": {"cpu": "1", "memory": "2GB"}}
    lines = render_plan(plan_of(tasks, agents={"worker": role}))
    text = "\n".join(lines)
    assert "4 tasks in 3 waves, at most 2 at once" in lines[0]
    assert "Critical path 10 s; estimated duration 10 s with 2 agents, 2 cores, 4 GB" in lines
    assert "Critical path (10 s): load -> lint -> report" in lines
    [lint] = [line for line in lines if line.startswith("  * lint")]
    [count] = [line for line in lines if line.startswith("    count")]
    assert "|" + "·" * 8 + "█" * 24 + "·" * 8 + "|" in lint
    assert "slack" not in lint
    assert "|" + "·" * 8 + "█" * 8 + "░" * 16 + "·" * 8 + "|" in count
    assert "2 s from 2 s  slack 4 s  after load" in count
    assert "after load, lint, count" in text
    assert "  wave    1  ██ 2" in lines
    assert "Warnings (2)" in lines
    assert any(line.startswith("  SPLIT_TASK") for line in lines)


def test_the_drawing_of_a_large_plan_is_bounded() -> None:
    chain = {f"chain{n}": [f"chain{n - 1}"] if n else [] for n in range(150)}
    wide: dict[str, list[str]] = {f"wide{n}": [] for n in range(300)}
    lines = render_plan(plan_of({**chain, **wide}))
    assert len(lines) < 350
    text = "\n".join(lines)
    assert "... 101 more tasks in this wave" in text
    assert "... 250 more tasks in 149 more waves" in text
    assert "(110 more)" in text
    assert "... 90 more waves" in text
    assert any(line.startswith("  ... ") for line in lines[lines.index("Parallelism") :])
    assert max(map(len, lines)) < 1_000


def test_long_names_are_cut_and_plans_without_duration_are_drawn() -> None:
    name = "n" * 100
    lines = render_plan(plan_of([task(name, estimated_seconds=0), *[task(f"d{n}") for n in range(9)]]))
    assert any("nnn…" in line for line in lines)
    empty = render_plan(plan_of([task("a", estimated_seconds=0)]))
    assert any("|" + "·" * 40 + "|  0 s from 0 s" in line for line in empty)


def test_many_dependencies_and_much_advice_are_cut() -> None:
    wide: dict[str, list[str]] = {f"w{n}": [] for n in range(9)}
    spare = {f"spare{n}": {"type": "t"} for n in range(30)}
    plan = plan_of({**wide, "end": list(wide)}, agents={"worker": {"type": "t", "count": 9}, **spare})
    text = "\n".join(render_plan(plan))
    assert "after w0, w1, w2, w3 and 5 more" in text
    assert "  ... 10 more" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.25, "250 ms"), (0.9999, "999.9 ms"), (1.5, "1.5 s"), (59, "59 s"), (125, "2 min 5 s"),
     (12_000, "3 h 20 min")],
)  # fmt: skip
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
