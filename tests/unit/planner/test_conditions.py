"""Expressions of a definition: read and checked before anything runs."""

from typing import Any

import pytest

from engine.contracts.limits import EXPRESSION_LENGTH_MAX, TRIGGERS_MAX
from planner.conditions import CHARACTERS_MAX
from tests.unit.planner.definitions import definition, found, plan_of, problems_of, task


def checked(**fields: Any) -> list[tuple[str, str, str]]:
    return problems_of(definition([task("scan-all"), task("prices"), task("last", "scan-all", "prices", **fields)]))


def only(**fields: Any) -> tuple[str, str, str]:
    [problem] = checked(**fields)
    return problem


@pytest.mark.parametrize(
    "fields",
    [
        {"when": "input.go and size(results.prices.rows) > 0"},
        {"when": "results['scan-all'].count > 1"},
        {"when": "size(results) == 2"},
        {"for_each": "filter(results.prices.rows, row => row.price > input.limit)"},
        {"triggers": [{"event": "shop.order:paid", "when": "event.order == input.order and results.prices != null"}]},
        {"triggers": [{"event": "go", "timeout_seconds": 5, "on_timeout": "skip"}], "for_each": "input.items"},
        {"reuse": True, "when": "true"},
    ],
)
def test_expressions_over_what_will_be_there_are_taken(fields: dict[str, Any]) -> None:
    assert checked(**fields) == []


def test_what_cannot_be_read_is_located_with_the_character() -> None:
    code, location, message = only(when="input.a ==")
    assert (code, location) == ("EXPRESSION_SYNTAX", "tasks[2].when")
    assert message.startswith("at character 11: ")
    assert only(for_each="[1, 2")[:2] == ("EXPRESSION_SYNTAX", "tasks[2].for_each")
    triggers = [{"event": "a"}, {"event": "b", "when": "event &&"}]
    assert only(triggers=triggers)[:2] == ("EXPRESSION_SYNTAX", "tasks[2].triggers[1].when")


@pytest.mark.parametrize("text", ["", " ", "x" * (EXPRESSION_LENGTH_MAX + 1), "(" * 1_000, "-" * 1_000, "not " * 500])
def test_an_empty_or_enormous_expression_is_one_problem(text: str) -> None:
    assert only(when=text)[:2] == ("EXPRESSION_SYNTAX", "tasks[2].when")


def test_a_name_that_is_not_there_is_suggested() -> None:
    code, location, message = only(when="inputs.go")
    assert (code, location) == ("EXPRESSION_UNKNOWN_NAME", "tasks[2].when")
    assert 'there is no "inputs" here; there are input, results; did you mean "input"?' in message


def test_events_are_there_in_triggers_only() -> None:
    assert only(when="event.ok")[0] == "EXPRESSION_UNKNOWN_NAME"
    assert only(for_each="event.items")[0] == "EXPRESSION_UNKNOWN_NAME"


def test_a_misspelt_dependency_is_suggested() -> None:
    assert 'no task "price" to have a result; did you mean "prices"?' in only(when="results.price.x > 1")[2]
    assert "results holds the direct dependencies' results" in only(when="results.zzz > 1")[2]
    assert '"a b" is no task\'s id' in only(when="results['a b'] > 1")[2]


def test_an_id_with_a_hyphen_needs_brackets_and_the_message_shows_them() -> None:
    messages = [message for _, _, message in checked(when="results.scan-all > 1")]
    assert len(messages) == 2
    assert 'there is no "all" here' in messages[0]
    assert 'write results["scan-all"], since - subtracts' in messages[1]


def test_the_result_of_a_task_that_is_no_direct_dependency_is_refused() -> None:
    tasks = [task("a"), task("b", "a"), task("c", "b", when="results.a.ok")]
    [(code, location, message)] = problems_of(definition(tasks))
    assert (code, location) == ("EXPRESSION_UNKNOWN_NAME", "tasks[2].when")
    assert message == '"a" is not a direct dependency of this task; add it to depends_on'


@pytest.mark.parametrize("value", [7, None, ["x"], {"a": 1}, True])
def test_an_expression_is_a_string(value: Any) -> None:
    wanted = set() if value is None else {("INVALID_TYPE", "tasks[2].when")}
    assert {(code, location) for code, location, _ in checked(when=value)} == wanted


@pytest.mark.parametrize(
    ("trigger", "problem"),
    [
        ({}, ("MISSING_FIELD", "tasks[2].triggers[0].event")),
        ({"event": "a b"}, ("INVALID_NAME", "tasks[2].triggers[0].event")),
        ({"event": ""}, ("INVALID_NAME", "tasks[2].triggers[0].event")),
        ({"event": "a" * 256}, ("INVALID_NAME", "tasks[2].triggers[0].event")),
        ({"event": "a", "timeout_seconds": 0}, ("OUT_OF_RANGE", "tasks[2].triggers[0].timeout_seconds")),
        ({"event": "a", "on_timeout": "wait"}, ("INVALID_CHOICE", "tasks[2].triggers[0].on_timeout")),
        ({"event": "a", "timeout": 3}, ("UNKNOWN_FIELD", "tasks[2].triggers[0].timeout")),
        ("go", ("INVALID_TYPE", "tasks[2].triggers[0]")),
    ],
)
def test_a_triggers_fields_are_checked(trigger: Any, problem: tuple[str, str]) -> None:
    assert only(triggers=[trigger])[:2] == problem


def test_an_events_name_may_have_dots_and_colons_and_the_message_says_so() -> None:
    assert only(triggers=[{"event": "a b"}])[2].endswith("(^[a-zA-Z0-9_.:-]+$)")


def test_a_misspelt_field_of_a_trigger_is_suggested() -> None:
    assert 'did you mean "timeout_seconds"?' in only(triggers=[{"event": "a", "timeout_second": 3}])[2]


def test_triggers_are_bounded() -> None:
    triggers = [{"event": "a", "when": "1 +"}] * (TRIGGERS_MAX + 1_000)
    problems = {(code, location) for code, location, _ in checked(triggers=triggers)}
    assert ("TOO_LONG", "tasks[2].triggers") in problems
    assert len(problems) == TRIGGERS_MAX + 1


def test_expressions_are_bounded_together() -> None:
    long = "1" + "+1" * 990
    tasks = [task(f"t{n}", when=long) for n in range(CHARACTERS_MAX // len(long) + 2)]
    assert found(definition(tasks)) == {("TOO_LONG", "tasks")}


def test_events_that_are_listed_must_include_external_ones() -> None:
    tasks = [task("a", triggers=[{"event": "go"}])]
    problem = {("EXTERNAL_EVENTS_OFF", "coordination.event_driven")}

    def with_events(*events: str) -> dict[str, Any]:
        return definition(tasks, coordination={"type": "hybrid", "event_driven": list(events)})

    assert found(with_events("task_completed")) == problem
    assert found(with_events("task_completed", "external_event")) == set()
    assert found(with_events()) == set()
    assert found(definition(coordination={"type": "hybrid", "event_driven": ["task_completed"]})) == set()


def warned(tasks: Any, **fields: Any) -> list[tuple[str, str]]:
    codes = ("UNKNOWN_SIZE", "ENDLESS_WAIT", "TRIGGERS_IN_GRAPH")
    return [(w.code, w.location) for w in plan_of(tasks, **fields).warnings if w.code in codes]


def test_what_is_known_only_at_run_time_is_a_warning() -> None:
    endless = task("b", "a", triggers=[{"event": "x"}])
    bounded = task("c", "a", triggers=[{"event": "x"}, {"event": "y", "timeout_seconds": 3}])
    assert warned([task("a", for_each="input.items"), endless, bounded]) == [
        ("UNKNOWN_SIZE", "tasks[0].for_each"),
        ("ENDLESS_WAIT", "tasks[1].triggers"),
    ]


def test_triggers_in_a_definition_that_the_graph_alone_coordinates_are_a_warning() -> None:
    tasks = [task("a", triggers=[{"event": "go", "timeout_seconds": 1}])]
    assert warned(tasks, coordination={"type": "graph_based"}) == [("TRIGGERS_IN_GRAPH", "coordination.type")]
    assert warned(tasks) == []


def test_the_plan_says_what_is_decided_at_run_time() -> None:
    tasks = [task("a", when="input.x", reuse=True), task("b", "a", for_each="input.y", triggers=[{"event": "z"}])]
    assert [planned.dynamic for planned in plan_of([*tasks, task("c", "b")]).tasks] == [
        ("when", "reuse"),
        ("for_each", "triggers"),
        (),
    ]
