"""Every rule that a definition can break: the code, the place, and a remedy in the message."""

import math
from typing import Any

import pytest

from engine.contracts.limits import AGENTS_MAX, TASKS_MAX
from engine.errors import InvalidDefinitionError
from planner.parse import parse_definition
from planner.problems import PROBLEMS_MAX, ProblemList, Suggester, format_location, kind_of, quoted
from planner.validate import DEPENDENCIES_MAX
from tests.unit.planner.definitions import definition, found, problems_of, task


def agents(**fields: Any) -> dict[str, Any]:
    return {"worker": {"type": "synthetic", **fields}}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_a_valid_definition_is_parsed_with_its_defaults() -> None:
    parsed = parse_definition(definition([task("a", timeout=7), task("b", "a", retry_policy={"max_attempts": 2})]))
    assert parsed.tasks[0].timeout_seconds == 7
    assert parsed.tasks[1].depends_on == ["a"]
    assert parsed.on_failure == "fail_fast"


@pytest.mark.parametrize("pattern", ["supervisor", "hierarchical", "handoff", "swarm", "network", "saga", "custom"])
def test_all_seven_patterns_are_accepted(pattern: str) -> None:
    more = {"pattern": {"name": "mine", "version": "1"}} if pattern == "custom" else {}
    assert parse_definition(definition(orchestration_pattern=pattern, **more)).orchestration_pattern == pattern


RULES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("UNKNOWN_AGENT_ROLE", "tasks[0].agent", 'did you mean "worker"?', definition([task("a", agent="wroker")])),
    ("UNKNOWN_AGENT_ROLE", "tasks[0].agent", 'there are "worker"', definition([task("a", agent="zzz")])),
    (
        "UNKNOWN_DEPENDENCY",
        "tasks[1].depends_on[0]",
        'did you mean "fetch-all"?',
        definition([task("fetch-all"), task("b", "fetch_all")]),
    ),
    ("UNKNOWN_DEPENDENCY", "tasks[0].depends_on[0]", "add that task", definition([task("a", "nowhere")])),
    ("SELF_DEPENDENCY", "tasks[0].depends_on[0]", "depends on itself", definition([task("a", "a")])),
    ("CYCLE", "tasks[0].depends_on[0]", "a -> b -> a", definition({"a": ["b"], "b": ["a"]})),
    ("DUPLICATE_TASK_ID", "tasks[2].id", "tasks[0].id", definition([task("a"), task("b"), task("a")])),
    ("INVALID_NAME", "tasks[0].id", "letters, digits", definition([task("a b")])),
    ("INVALID_NAME", "tasks[0].id", "letters, digits", definition([task("a\n")])),
    ("INVALID_NAME", "tasks[0].id", "letters, digits", definition([task("")])),
    ("INVALID_NAME", "tasks[0].id", "1 to 255", definition([task("a" * 256)])),
    ("INVALID_NAME", "name", "letters, digits", definition(name="../x")),
    ("INVALID_NAME", 'agents["a b"]', "letters, digits", definition(agents={**agents(), "a b": {"type": "t"}})),
    ("INVALID_VERSION", "version", '"1.0.0"', definition(version="!")),
    ("INVALID_RESOURCES", "agents.worker.resources.cpu", "500m", definition(agents=agents(resources={"cpu": "x"}))),
    (
        "INVALID_RESOURCES",
        "agents.worker.resources.memory",
        "512Mi",
        definition(agents=agents(resources={"cpu": "x", "memory": "lots"})),
    ),
    ("INVALID_TYPE", "agents.worker.resources.cpu", 'quotes: "2"', definition(agents=agents(resources={"cpu": 2}))),
    ("INVALID_TYPE", "version", 'write it in quotes: "1.5"', definition(version=1.5)),
    ("INVALID_TYPE", "tasks", "must be a list, not an object", {**definition(), "tasks": {"a": {}}}),
    ("INVALID_TYPE", "tasks[0]", "must be an object, not a string", definition(["a"])),
    ("INVALID_TYPE", "tasks[0].depends_on", "must be a list, not a string", definition([task("a", depends_on="b")])),
    ("INVALID_TYPE", "tasks[0].depends_on[0]", "not null", definition([task("a", depends_on=[None])])),
    ("INVALID_TYPE", "tasks[0].parallel", "must be true or false", definition([task("a", parallel="no")])),
    ("INVALID_TYPE", "tasks[0].timeout", "must be a whole number", definition([task("a", timeout="5")])),
    ("INVALID_TYPE", "tasks[0].timeout_seconds", "whole number", definition([task("a", timeout_seconds=2.5)])),
    ("INVALID_TYPE", "tasks[0].timeout_seconds", "not a boolean", definition([task("a", timeout_seconds=True)])),
    ("INVALID_TYPE", "tasks[0].retry_policy", "name or an object", definition([task("a", retry_policy=3)])),
    ("INVALID_TYPE", "agents", "must be an object, not a list", definition(agents=[])),
    ("INVALID_TYPE", "agents.worker", "must be an object", definition(agents={"worker": 1})),
    ("INVALID_TYPE", "coordination", "must be an object", definition(coordination="hybrid")),
    ("INVALID_TYPE", "tasks[0].input", "must be an object", definition([task("a", input=[1])])),
    (
        "INVALID_CHOICE",
        "tasks[0].retry_policy",
        'did you mean "linear"?',
        definition([task("a", retry_policy="liner")]),
    ),
    ("INVALID_CHOICE", "orchestration_pattern", '"supervisor"', definition(orchestration_pattern="supervisr")),
    ("INVALID_CHOICE", "coordination.type", "graph_based", definition(coordination={"type": "both"})),
    (
        "INVALID_CHOICE",
        "coordination.event_driven[0]",
        "task_completed",
        definition(coordination={"type": "hybrid", "event_driven": ["task_done"]}),
    ),
    ("OUT_OF_RANGE", "tasks[0].timeout", "at least 1, not 0", definition([task("a", timeout=0)])),
    ("OUT_OF_RANGE", "tasks[0].estimated_seconds", "at least 0", definition([task("a", estimated_seconds=-1)])),
    ("OUT_OF_RANGE", "tasks[0].estimated_seconds", "at most", definition([task("a", estimated_seconds=math.nan)])),
    ("OUT_OF_RANGE", "agents.worker.count", "at most", definition(agents=agents(count=10**6))),
    (
        "OUT_OF_RANGE",
        "tasks[0].retry_policy.max_attempts",
        "at least 1",
        definition([task("a", retry_policy={"max_attempts": 0})]),
    ),
    (
        "UNKNOWN_FIELD",
        "tasks[0].retry_policy.max_attempt",
        'did you mean "max_attempts"?',
        definition([task("a", retry_policy={"max_attempt": 1})]),
    ),
    ("UNKNOWN_FIELD", "tasks[0].dependson", 'did you mean "depends_on"?', definition([task("a", dependson=[])])),
    ("UNKNOWN_FIELD", "agents.worker.cuont", 'did you mean "count"?', definition(agents=agents(cuont=1))),
    ("UNKNOWN_FIELD", "versoin", 'did you mean "version"?', definition(versoin="1")),
    (
        "UNKNOWN_FIELD",
        "agents.worker.resources.gpu",
        "is not a field",
        definition(agents=agents(resources={"gpu": "1"})),
    ),
    (
        "UNKNOWN_FIELD",
        "coordination.events",
        "is not a field",
        definition(coordination={"type": "hybrid", "events": []}),
    ),
    (
        "UNKNOWN_FIELD",
        "fault_tolerance.circuit_breaker.treshold",
        "is not a field",
        definition(fault_tolerance={"circuit_breaker": {"treshold": 1}}),
    ),
    (
        "UNKNOWN_FIELD",
        "fault_tolerance.saga_pattern.enabled",
        "is not a field",
        definition(fault_tolerance={"saga_pattern": {"enabled": True}}),
    ),
    ("UNKNOWN_FIELD", "fault_tolerance.saga", "saga_pattern", definition(fault_tolerance={"saga": {}})),
    (
        "CONFLICTING_FIELDS",
        "tasks[0].timeout",
        "not both",
        definition([task("a", timeout=1, timeout_seconds=1)]),
    ),
    ("EMPTY", "tasks", "must not be empty", definition([])),
    ("EMPTY", "agents", "must not be empty", definition(agents={})),
    ("TOO_LONG", "description", "4096", definition(description="x" * 4097)),
    ("TOO_LONG", "agents.worker.capabilities", "100 items", definition(agents=agents(capabilities=["c"] * 101))),
    (
        "TOO_LONG",
        "coordination.graph_based",
        "at most 100",
        definition(coordination={"type": "hybrid", "graph_based": [1] * 101}),
    ),
    ("INVALID_CHARACTERS", "description", "control characters", definition(description="a\x00")),
    ("INVALID_VALUE", "tasks[0].input.x", "finite", definition([task("a", input={"x": math.inf})])),
    ("INVALID_VALUE", "tasks[0].input.x[1]", "NUL", definition([task("a", input={"x": [1, "\x00"]})])),
    ("INVALID_VALUE", "tasks[0].input.x", "surrogate", definition([task("a", input={"x": "\ud800"})])),
    ("INVALID_VALUE", "tasks[0].input.x", "64 bits", definition([task("a", input={"x": 2**64})])),
    ("INVALID_VALUE", "tasks[0].input.x", "JSON value", definition([task("a", input={"x": {1, 2}})])),
    ("INVALID_VALUE", 'tasks[0].input["\\u0000"]', "NUL", definition([task("a", input={"\x00": 1})])),
    ("INVALID_VALUE", "pattern_config.x", "finite", definition(pattern_config={"x": -math.inf})),
    ("MISSING_FIELD", "name", "is required", {k: v for k, v in definition().items() if k != "name"}),
    ("MISSING_FIELD", "tasks[0].agent", "is required", definition([{"id": "a"}])),
    ("MISSING_FIELD", "agents.worker.type", "is required", definition(agents={"worker": {}})),
    (
        "TOO_MANY_AGENTS",
        "agents",
        "20000 instances",
        definition(agents={"worker": {"type": "t", "count": 10_000}, "b": {"type": "t", "count": 10_000}}),
    ),
    ("INVALID_TYPE", "", "must be an object, not a list", []),  # type: ignore[list-item]
]


@pytest.mark.parametrize(
    ("code", "location", "remedy", "data"), RULES, ids=[f"{r[0]}-{n}" for n, r in enumerate(RULES)]
)
def test_a_broken_rule_is_reported_where_it_is_broken(
    code: str, location: str, remedy: str, data: dict[str, Any]
) -> None:
    messages = [message for c, at, message in problems_of(data) if (c, at) == (code, location)]
    assert len(messages) == 1, problems_of(data)
    assert remedy in messages[0]


FOLLOW_UPS = {
    ("EMPTY", "agents"): {"UNKNOWN_AGENT_ROLE"},
    ("INVALID_RESOURCES", "agents.worker.resources.memory"): {"INVALID_RESOURCES"},
    ("TOO_LONG", "coordination.graph_based"): {"INVALID_CHOICE"},
}


@pytest.mark.parametrize("rule", RULES)
def test_one_mistake_is_one_problem(rule: tuple[str, str, str, dict[str, Any]]) -> None:
    code, location, _, data = rule
    others = [other for other in problems_of(data) if other[:2] != (code, location)]
    assert {other for other, _, _ in others} == FOLLOW_UPS.get((code, location), set())


def test_field_problems_and_graph_problems_are_reported_together() -> None:
    data = definition(
        [
            task("a", timeout="soon", depends_on=["b"]),
            task("b", "a", agent="nobody"),
            {"id": 5, "agent": "worker"},
            task("c", "gone", "c", timeout=1, timeout_seconds=2, parallel=3),
            task("d", "a"),
        ],
        version=1,
        agents=agents(resources={"cpu": "fast", "memory": "much"}),
    )
    assert found(data) == {
        ("INVALID_TYPE", "version"),
        ("INVALID_RESOURCES", "agents.worker.resources.cpu"),
        ("INVALID_RESOURCES", "agents.worker.resources.memory"),
        ("INVALID_TYPE", "tasks[0].timeout"),
        ("CYCLE", "tasks[0].depends_on[0]"),
        ("UNKNOWN_AGENT_ROLE", "tasks[1].agent"),
        ("INVALID_TYPE", "tasks[2].id"),
        ("UNKNOWN_DEPENDENCY", "tasks[3].depends_on[0]"),
        ("SELF_DEPENDENCY", "tasks[3].depends_on[1]"),
        ("CONFLICTING_FIELDS", "tasks[3].timeout"),
        ("INVALID_TYPE", "tasks[3].parallel"),
        ("UNREACHABLE_TASKS", "tasks[4]"),
    }


def test_every_cycle_is_reported_with_its_members() -> None:
    data = definition({"a": ["b"], "b": ["c"], "c": ["a"], "x": ["y", "a"], "y": ["x"], "free": [], "late": ["x"]})
    messages = {at: message for code, at, message in problems_of(data) if code == "CYCLE"}
    assert set(messages) == {"tasks[0].depends_on[0]", "tasks[3].depends_on[0]"}
    assert "a -> b -> c -> a" in messages["tasks[0].depends_on[0]"]
    assert "x -> y -> x" in messages["tasks[3].depends_on[0]"]
    unreachable = [message for code, _, message in problems_of(data) if code == "UNREACHABLE_TASKS"]
    assert len(unreachable) == 1
    assert unreachable[0].startswith("late ")


def test_cycles_that_share_a_task_are_one_problem_that_names_all_members() -> None:
    data = definition({"hub": ["a", "b"], "a": ["hub"], "b": ["hub"]})
    messages = [message for code, _, message in problems_of(data) if code == "CYCLE"]
    assert len(messages) == 1
    assert "hub -> a -> hub" in messages[0]
    assert messages[0].endswith("run through b")


def test_a_cycle_of_thousands_is_shown_in_part() -> None:
    size = 5_000
    data = definition({f"t{n}": [f"t{(n + 1) % size}"] for n in range(size)})
    [(code, _, message)] = problems_of(data)
    assert code == "CYCLE"
    assert "(4980 more)" in message
    assert len(message) < 1_000


def test_a_name_that_is_none_is_quoted_and_cut_in_a_cycle() -> None:
    long = "x\n" * 5_000
    messages = [m for code, _, m in problems_of(definition({long: ["b"], "b": [long]})) if code == "CYCLE"]
    assert len(messages) == 1
    assert "\n" not in messages[0]
    assert len(messages[0]) < 500


def test_many_tasks_behind_a_cycle_are_counted() -> None:
    graph = {"a": ["b"], "b": ["a"], **{f"t{n}": ["a"] for n in range(30)}}
    [message] = [m for code, _, m in problems_of(definition(graph)) if code == "UNREACHABLE_TASKS"]
    assert "t19 and 10 more" in message


def test_more_tasks_than_the_limit_are_refused_and_the_rest_is_still_checked() -> None:
    tasks = [task(f"t{n}") for n in range(TASKS_MAX + 1)]
    tasks[0]["depends_on"] = [f"t{TASKS_MAX}", "gone"]
    assert found(definition(tasks)) == {("TOO_MANY_TASKS", "tasks"), ("UNKNOWN_DEPENDENCY", "tasks[0].depends_on[1]")}


def test_exactly_the_limit_of_tasks_is_taken() -> None:
    assert found(definition([task(f"t{n}") for n in range(TASKS_MAX)])) == set()


def test_more_dependencies_than_the_limit_are_refused_without_being_checked() -> None:
    data = definition([task("a"), task("b", depends_on=["a"] * (DEPENDENCIES_MAX + 1)), task("c", "a", "gone")])
    assert found(data) == {("TOO_MANY_DEPENDENCIES", "tasks")}


def test_more_roles_than_the_limit_are_refused() -> None:
    roles = {f"r{n}": {"type": "t"} for n in range(AGENTS_MAX + 1)}
    assert ("TOO_MANY_AGENTS", "agents") in found(definition([task("a", agent="r0")], agents=roles))


def test_values_nested_too_deeply_are_refused() -> None:
    assert found(definition([task("a", input={"x": nested(60)})])) == set()
    codes = {code for code, _, _ in problems_of(definition([task("a", input={"x": nested(100)})]))}
    assert codes == {"TOO_DEEP"}


def test_keys_that_are_no_strings_are_refused() -> None:
    assert {code for code, _, _ in problems_of(definition([task("a", input={"x": {3: 1}})]))} == {"INVALID_VALUE"}
    assert ("UNKNOWN_FIELD", "7") in found({**definition(), 7: 1})


def test_a_flood_of_problems_is_bounded_and_hides_no_other_kind() -> None:
    tasks = [task(f"t{n}", "gone", "lost") for n in range(3_000)]
    tasks.extend(definition({"p": ["q"], "q": ["p"]})["tasks"])
    problems = problems_of(definition(tasks, version=1))
    assert len(problems) == PROBLEMS_MAX + 1
    assert problems[-1] == ("MORE_PROBLEMS", "", f"... and {6_000 + 2 - PROBLEMS_MAX} more")
    assert {"CYCLE", "INVALID_TYPE"} <= {code for code, _, _ in problems}


def test_problems_come_in_the_order_of_the_document() -> None:
    data = definition([task(f"t{n}", "gone") for n in range(12)])
    assert [at for _, at, _ in problems_of(data)] == [f"tasks[{n}].depends_on[0]" for n in range(12)]


def test_the_error_sums_up_in_one_line_and_counts() -> None:
    with pytest.raises(InvalidDefinitionError) as caught:
        parse_definition(definition([task("a", "a", "b\nb")]))
    assert caught.value.message.startswith("invalid workflow definition, 2 problems; the first: tasks[0].depends_on[0]")
    assert "\n" not in caught.value.message
    assert caught.value.data["error_count"] == 2
    with pytest.raises(InvalidDefinitionError, match=r"^invalid workflow definition: tasks: must not be empty$"):
        parse_definition(definition([]))


def test_suggestions_end_with_their_budget() -> None:
    suggester = Suggester(comparisons_max=3)
    assert suggester.hint("alpah", ["alpha", "beta"]) == '; did you mean "alpha"?'
    assert suggester.hint("alpah", ["alpha", "beta"]) == ""


def test_suggestions_among_many_names_look_at_near_ones_only() -> None:
    names = [f"item{n}" for n in range(500)]
    assert Suggester().hint("alpah", [*names, "alpha"]) == '; did you mean "alpha"?'
    assert Suggester().hint("item_7", names) == '; did you mean "item7"?'
    assert Suggester().hint("itemx", names) == ""
    assert Suggester().hint("x" * 100, names) == ""
    assert Suggester().hint(5, names) == ""


def test_locations_quote_keys_that_are_no_names() -> None:
    assert format_location(("tasks", 3, "depends_on", 0)) == "tasks[3].depends_on[0]"
    assert format_location(("agents", 'a"b', "type")) == 'agents["a\\"b"].type'
    assert len(format_location(("agents", "x" * 1_000))) < 120


def test_values_are_shown_as_json_shows_them() -> None:
    assert [kind_of(v) for v in (None, True, 1, 1.5, "", [], {}, object())] == [
        "null", "a boolean", "a number", "a number", "a string", "a list", "an object", "a object",
    ]  # fmt: skip
    assert quoted([1, 2]) == "a list of 2"
    assert quoted("x" * 500).endswith('..."')


def test_no_problems_raise_nothing() -> None:
    problems = ProblemList()
    problems.raise_if_any()
    assert problems.listed() == []
