"""Programs are checked whole when they are registered: every mistake is found, where it is."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.patterns.language import LOGIC_BYTES_MAX, STATES_MAX, PatternRegistration
from engine.contracts.patterns.registered import RegisteredPattern
from engine.errors import InvalidDefinitionError, InvalidLogicError
from planner.language.check import check_definition, parse_registration
from planner.language.templates import template_names, template_text
from planner.parse import parse_definition, parse_text
from tests.unit.planner.definitions import definition

WHOLE: dict[str, Any] = {
    "language": 1,
    "handles": "task.role != config.lead",
    "start": "begin",
    "variables": {"n": 0},
    "steps_max": 100,
    "states": {
        "begin": {"do": "set", "values": {"n": "n + 1"}, "next": "ask"},
        "ask": {"do": "assign", "role": "config.lead", "agent": "agents.lead[0]", "action": "'look'",
                "input": "{n: n}", "undo": "'forget'", "timeout_seconds": 5, "attempts": 2, "save": "seen",
                "next": "own", "on_failure": "up"},
        "own": {"do": "assign", "own": True, "note": "seen", "save": "draft", "next": "fork"},
        "up": {"do": "escalate", "role": "config.lead", "save": "seen", "next": "own", "on_failure": "back"},
        "fork": {"do": "spawn", "each": "[1, 2]", "input": "{n: item, i: index}", "group": "side", "next": "all"},
        "all": {"do": "gather", "each": "range(3)", "need": "2", "wait_seconds": 60, "save": "found",
                "next": "join", "on_failure": "back"},
        "join": {"do": "gather", "group": "side", "save": "rest", "next": "poll"},
        "poll": {"do": "vote", "voters": "agents.lead", "choice": "ballot.vote", "count": {"rule": "majority"},
                 "wait_seconds": 9, "save": "poll", "decided": "again", "undecided": "ring"},
        "again": {"do": "loop", "max": 3, "while": "loops.again < 2", "body": "which", "next": "end",
                  "exceeded": "bad"},
        "which": {"do": "route", "cases": [{"when": "n > 1", "next": "again"}], "otherwise": "again"},
        "ring": {"do": "wait", "event": "bell", "when": "event.n == n", "seconds": 9, "save": "bell",
                 "next": "end", "on_timeout": "back"},
        "back": {"do": "compensate", "save": "undone", "next": "bad", "on_failure": "bad"},
        "bad": {"do": "finish", "outcome": "fail", "error": "error.message"},
        "end": {"do": "finish", "result": "{n: n, input: input.x, results: results}"},
    },
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {"lead": {"type": "string"}, "rounds": {"type": "integer", "default": 3}},
    "required": ["lead"],
    "additionalProperties": False,
}


def registration(logic: Any = None, schema: Any = None) -> PatternRegistration:
    return PatternRegistration(
        name="p", version="1",
        coordination_logic=WHOLE if logic is None else logic,
        configuration_schema=SCHEMA if schema is None else schema,
    )  # fmt: skip


def problems_of(logic: Any = None, schema: Any = None) -> list[tuple[str, str, str]]:
    try:
        parse_registration(registration(logic, schema))
    except InvalidLogicError as error:
        return [(item["code"], item["location"], item["message"]) for item in error.data["errors"]]
    return []


def changed(path: str, value: Any, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The whole program with one value changed; `...` takes the field away."""
    logic = copy.deepcopy(WHOLE if base is None else base)
    *parents, last = path.split("/")
    at: Any = logic
    for part in parents:
        at = at[int(part) if part.isdigit() else part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return logic


def test_a_program_with_every_kind_of_state_is_accepted() -> None:
    assert problems_of() == []


@pytest.mark.parametrize("name", template_names())
def test_the_templates_are_valid(name: str) -> None:
    parse_registration(PatternRegistration.model_validate(parse_text(template_text(name) or "")))


def test_what_is_no_template_has_no_text() -> None:
    assert set(template_names()) == {"debate", "map-reduce", "review-loop", "tournament"}
    assert template_text("../__init__") is None


RULES: list[tuple[str, str, str, Any]] = [
    # path changed, code, part of the message; the value
    ("language", "INVALID_CHOICE", "2 is not one of 1", 2),
    ("start", "UNKNOWN_STATE", 'did you mean "begin"?', "begn"),
    ("start", "MISSING_FIELD", "is required", ...),
    ("states", "EMPTY", "must not be empty", {}),
    ("states", "INVALID_TYPE", "must be an object, not a list", []),
    ("steps_max", "OUT_OF_RANGE", "at least 1", 0),
    ("steps_max", "OUT_OF_RANGE", "at most 10000", 10_001),
    ("handles", "EXPRESSION_UNKNOWN_NAME", "there is no n here", "n == 1"),
    ("handles", "EXPRESSION_TYPE", "must give boolean or null", "'yes'"),
    ("extra", "UNKNOWN_FIELD", "is not a field here", 1),
    ("states/begin/next", "UNKNOWN_STATE", "add that state", "zzz"),
    ("states/begin/nxt", "UNKNOWN_FIELD", "is not a field here", "own"),
    ("states/begin/do", "INVALID_VALUE", "does not match any of the expected tags", "jump"),
    ("states/begin/values/n", "EXPRESSION_SYNTAX", "character", "n +"),
    ("states/begin/values/n", "EXPRESSION_UNKNOWN_NAME", "there is no m here", "m + 1"),
    ("states/begin/values/n", "EXPRESSION_UNKNOWN_NAME", "there is no field speed", "config.speed"),
    ("states/begin/values/n", "EXPRESSION_UNKNOWN_NAME", "there is no field agent", "task.agent"),
    ("states/begin/values/n", "EXPRESSION_UNKNOWN_NAME", "there are again", "loops.begin"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "- needs two numbers", "config.lead - 1"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "has no fields", "task.id.x"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "can be ordered", "config.lead < config.rounds"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "looks into", "1 in config.rounds"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "size needs", "size(config.rounds == 1)"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "not needs", "not 'x'"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "and, or need", "true and 1"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "a condition must be", "1 ? 2 : 3"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "- needs a number", "-'x'"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "filter needs a condition", "filter([1], x => 'a')"),
    ("states/begin/values/n", "EXPRESSION_TYPE", "an index a number", "agents[true]"),
    ("states/ask/role", "EXPRESSION_TYPE", "must give string", "1"),
    ("states/ask/role", "INVALID_TYPE", "must be a string", 1),
    ("states/ask/input", "EXPRESSION_TYPE", "must give object", "[n]"),
    ("states/ask/input", "EXPRESSION_UNKNOWN_NAME", "there is no item here", "{n: item}"),
    ("states/ask/undo", "EXPRESSION_TYPE", "must give null or string", "1"),
    ("states/ask/timeout_seconds", "OUT_OF_RANGE", "at least 1", 0),
    ("states/ask/attempts", "OUT_OF_RANGE", "at most 100", 101),
    ("states/ask/save", "INVALID_NAME", "does not match", "Not a name"),
    ("states/ask/own", "INVALID_VALUE", "leave out role", True),
    ("states/own/undo", "INVALID_VALUE", "leave out role", "'forget'"),
    ("states/poll/agent", "INVALID_VALUE", "give voters", "'judge-1'"),
    ("states/ask/note", "INVALID_VALUE", "note goes with own work", "1"),
    ("states/up/role", "MISSING_FIELD", "is required", ...),
    ("states/fork/each", "EXPRESSION_TYPE", "must give list", "3"),
    ("states/fork/group", "MISSING_FIELD", "is required", ...),
    ("states/all/need", "EXPRESSION_TYPE", "must give number", "'2'"),
    ("states/all/each", "INVALID_VALUE", "give each", ...),
    ("states/all/group", "INVALID_VALUE", "one of the two", "side"),
    ("states/join/group", "UNKNOWN_GROUP", 'did you mean "side"?', "sid"),
    ("states/join/role", "INVALID_VALUE", "where it is spawned", "'x'"),
    ("states/poll/voters", "EXPRESSION_TYPE", "must give list", "1"),
    ("states/poll/choice", "EXPRESSION_UNKNOWN_NAME", "there is no event here", "event"),
    ("states/poll/count", "INVALID_CHOICE", '"most" is not one of', {"rule": "most"}),
    ("states/poll/undecided", "MISSING_FIELD", "is required", ...),
    ("states/again/max", "MISSING_FIELD", "is required", ...),
    ("states/again/max", "OUT_OF_RANGE", "at most 1000", 1_001),
    ("states/again/max", "INVALID_TYPE", "a whole number", "3"),
    ("states/again/while", "EXPRESSION_TYPE", "must give boolean or null", "1"),
    ("states/which/cases", "EMPTY", "must not be empty", []),
    ("states/which/cases/0/when", "EXPRESSION_TYPE", "must give boolean", "n == 1 ? 'a' : 'b'"),
    ("states/which/cases/0/next", "UNKNOWN_STATE", "add that state", "zzz"),
    ("states/join/next", "UNBOUNDED_LOOP", "goes round without a bound", "begin"),
    ("states/which/otherwise", "UNBOUNDED_LOOP", "which -> which", "which"),
    ("states/ring/seconds", "OUT_OF_RANGE", "at least 1", 0),
    ("states/ring/event", "INVALID_VALUE", "belong to an event", ...),
    ("states/ring/event", "INVALID_NAME", "does not match", "a b"),
    ("states/bad/result", "INVALID_VALUE", "a failure has no result", "1"),
    ("states/bad/error", "EXPRESSION_TYPE", "must give string", "1 + 1"),
    ("states/end/error", "INVALID_VALUE", "what is complete has no error", "'x'"),
    ("states/own/next", "UNREACHABLE_STATE", "nothing leads to", "end"),
    ("variables/item", "RESERVED_NAME", "another name", 1),
    ("variables/Bad name", "INVALID_NAME", "does not match", 1),
    ("variables/n", "INVALID_VALUE", "finite", float("inf")),
]


@pytest.mark.parametrize(
    ("path", "code", "message", "value"), RULES, ids=[f"{rule[0]}-{rule[1]}-{n}" for n, rule in enumerate(RULES)]
)
def test_each_mistake_is_found_where_it_is(path: str, code: str, message: str, value: Any) -> None:
    found = problems_of(changed(path, value))
    assert [item for item in found if item[0] == code and message in item[2]], found
    for _, location, _ in found:
        assert location.startswith("coordination_logic")


def test_the_mistakes_of_many_places_are_reported_at_once() -> None:
    logic = changed("states/begin/next", "zzz", changed("states/ask/role", "1", changed("states/own/note", "x +")))
    assert {code for code, _, _ in problems_of(logic)} == {"UNKNOWN_STATE", "EXPRESSION_TYPE", "EXPRESSION_SYNTAX"}


def test_a_way_round_is_shown_whole_at_the_step_that_closes_it() -> None:
    states = {
        "a": {"do": "set", "values": {"x": "1"}, "next": "b"},
        "b": {"do": "route", "cases": [{"when": "x == 1", "next": "c"}], "otherwise": "end"},
        "c": {"do": "assign", "next": "a"},
        "end": {"do": "finish"},
    }
    ((code, location, message),) = problems_of({"start": "a", "states": states}, {})
    assert (code, location) == ("UNBOUNDED_LOOP", "coordination_logic.states.c.next")
    assert message.startswith("a -> b -> c -> a")


def test_what_is_too_large_is_refused_before_it_is_looked_at() -> None:
    many = {f"s{n}": {"do": "finish"} for n in range(STATES_MAX + 1)}
    assert "at most 100 items" in problems_of({"start": "s0", "states": many})[0][2]
    long = {"start": "end", "states": {"end": {"do": "finish"}}, "variables": {"x": "y" * LOGIC_BYTES_MAX}}
    assert [code for code, _, _ in problems_of(long)] == ["TOO_LARGE"]


SCHEMAS: list[tuple[str, str, Any]] = [
    ("INVALID_SCHEMA", "is not JSON Schema", {"type": "objekt"}),
    ("INVALID_SCHEMA", "is not JSON Schema", {"properties": {"a": {"pattern": "("}}}),
    ("INVALID_SCHEMA", "must be https", {"$schema": "http://json-schema.org/draft-07/schema#"}),
    ("INVALID_SCHEMA", "is no part of this schema", {"$ref": "https://example.org/schema"}),
    ("INVALID_SCHEMA", "is no part of this schema", {"$ref": "#/$defs/none"}),
    ("INVALID_SCHEMA", "is not taken here", {"$id": "https://example.org/"}),
    ("INVALID_SCHEMA", "refers to itself", {"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
    ("INVALID_SCHEMA", "references deep", {
        "$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(30)} | {"a30": {}}, "$ref": "#/$defs/a0"}),
    ("TOO_LARGE", "unfolds into", {
        "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 4} for n in range(12)} | {"a12": {}},
        "$ref": "#/$defs/a0"}),
    ("TOO_LARGE", "bytes as JSON", {"description": "x" * 70_000}),
    ("TOO_DEEP", "nested deeper", None),
    ("INVALID_VALUE", "finite", {"minimum": float("nan")}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "message", "schema"), SCHEMAS)
def test_a_schema_that_could_not_be_used_is_refused(code: str, message: str, schema: Any) -> None:
    if schema is None:
        schema = {}
        for _ in range(62):
            schema = {"items": schema}
    found = problems_of({"start": "end", "states": {"end": {"do": "finish"}}}, schema)
    if code == "TOO_DEEP":
        assert found == [], "62 levels are taken"
        found = problems_of(
            {"start": "end", "states": {"end": {"do": "finish"}}}, {"items": {"items": schema}} | schema
        )
        schema = {"items": {"items": {"items": {"items": schema}}}}
        found = problems_of({"start": "end", "states": {"end": {"do": "finish"}}}, schema)
    assert [item for item in found if item[0] == code and message in item[2]], found


def pattern_of(schema: dict[str, Any], logic: dict[str, Any] | None = None) -> RegisteredPattern:
    return RegisteredPattern.model_validate(
        {
            "pattern_id": "00000000-0000-4000-8000-000000000001", "name": "p", "version": "1", "description": "",
            "coordination_logic": WHOLE if logic is None else logic, "configuration_schema": schema,
            "created_at": "2026-01-01T00:00:00Z", "created_by": "me",
        }
    )  # fmt: skip


def using(config: dict[str, Any]) -> Any:
    reference = {"name": "p", "version": "1"}
    agents = {"worker": {"type": "synthetic"}, "lead": {"type": "synthetic"}}
    return parse_definition(
        definition(orchestration_pattern="custom", pattern=reference, pattern_config=config, agents=agents)
    )


def test_settings_get_the_schemas_defaults() -> None:
    assert check_definition(using({"lead": "lead"}), pattern_of(SCHEMA)) == {"lead": "lead", "rounds": 3}
    assert check_definition(using({"lead": "lead", "rounds": 1}), pattern_of(SCHEMA))["rounds"] == 1


@pytest.mark.parametrize(
    ("config", "code", "location"),
    [
        ({}, "MISSING_FIELD", "pattern_config.lead"),
        ({"lead": 7}, "INVALID_VALUE", "pattern_config.lead"),
        ({"lead": "lead", "x": 1}, "UNKNOWN_FIELD", "pattern_config.x"),
        ({"lead": "nobody"}, "UNKNOWN_AGENT_ROLE", "pattern_config"),
    ],
)
def test_each_wrong_setting_is_located(config: dict[str, Any], code: str, location: str) -> None:
    with pytest.raises(InvalidDefinitionError) as refused:
        check_definition(using(config), pattern_of(SCHEMA))
    assert (code, location) in [(item["code"], item["location"]) for item in refused.value.data["errors"]]


def test_a_handled_task_cannot_be_one_task_an_element() -> None:
    def check(role: str, handles: str | None) -> list[str]:
        document = definition(
            [{"id": "a", "agent": role, "for_each": "input.list"}],
            orchestration_pattern="custom", pattern={"name": "p", "version": "1"}, pattern_config={"lead": "lead"},
            agents={"worker": {"type": "synthetic"}, "lead": {"type": "synthetic"}},
        )  # fmt: skip
        logic = changed("handles", ... if handles is None else handles)
        try:
            check_definition(parse_definition(document), pattern_of(SCHEMA, logic))
        except InvalidDefinitionError as error:
            return [item["location"] for item in error.data["errors"]]
        return []

    assert check("worker", "task.role != config.lead") == ["tasks[0].for_each"]
    assert check("lead", "task.role != config.lead") == []
    assert check("lead", None) == ["tasks[0].for_each"]
    assert check("lead", "config.lead / 2 > 1") == ["tasks[0].for_each"]


def test_a_role_that_cannot_be_computed_from_the_settings_is_a_problem_of_the_definition() -> None:
    with pytest.raises(InvalidDefinitionError) as refused:
        check_definition(using({"lead": 1}), pattern_of({}, changed("states/ask/role", "config.lead + 'x'")))
    assert refused.value.data["errors"][0]["code"] == "EXPRESSION_TYPE"


def test_a_hostile_regular_expression_takes_no_time() -> None:
    schema = {"properties": {"lead": {"type": "string", "pattern": "^(a+)+$"}}}
    with pytest.raises(InvalidDefinitionError):
        check_definition(using({"lead": "a" * 5_000 + "!"}), pattern_of(schema))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["begin", "n", "config.lead", "loop", "1 +"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["do", "next", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
paths = [
    "/".join(path)
    for name, state in WHOLE["states"].items()
    for path in [("states", name), *(("states", name, field) for field in state)]
] + ["start", "variables", "handles", "states"]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(paths), json_values)
def test_whatever_stands_in_a_field_is_accepted_or_refused_with_located_problems(path: str, value: Any) -> None:
    for _, location, message in problems_of(changed(path, value)):
        assert message
        assert location.startswith("coordination_logic")
