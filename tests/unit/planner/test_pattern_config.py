"""The settings of every built-in pattern: each field wrong in turn, and what the checks of fields say and where."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from engine.contracts.model import StrictModel
from engine.contracts.patterns import PATTERN_CONFIGS, PATTERNS
from planner.parse import parse_definition
from planner.pattern_config import add_config_problems, complete_settings
from planner.patterns.registry import CHECKS
from planner.problems import ProblemList, Suggester
from tests.unit.planner.definitions import definition, problems_of

WRONG: tuple[Any, ...] = ({"no": "such"}, [["no such"]], "\u2603", -1.5, True, None)
FIELDS = [
    (pattern, field)
    for pattern, model in PATTERN_CONFIGS.items()
    for field in model.model_json_schema(by_alias=True).get("properties", {})
]


def test_each_pattern_has_a_model_a_check_and_a_description() -> None:
    assert PATTERN_CONFIGS.keys() == CHECKS.keys() == PATTERNS.keys()
    for described in PATTERNS.values():
        assert described.config_schema()["type"] == "object"


@pytest.mark.parametrize(("pattern", "field"), FIELDS)
def test_each_field_that_is_wrong_is_named(pattern: str, field: str) -> None:
    """No field takes all of these; what it does not take is refused at its place."""
    refused = 0
    for value in WRONG:
        found = problems_of(definition(orchestration_pattern=pattern, pattern_config={field: value}))
        here = [item for item in found if item[1].startswith(f"pattern_config.{field}")]
        refused += bool(here)
        assert all(message for _, _, message in here)
    assert refused >= 3


@pytest.mark.parametrize("pattern", sorted(set(PATTERN_CONFIGS) - {"custom"}))
def test_a_setting_that_is_not_known_is_refused(pattern: str) -> None:
    found = problems_of(definition(orchestration_pattern=pattern, pattern_config={"unheard_of": 1}))
    assert ("UNKNOWN_FIELD", "pattern_config.unheard_of") in [item[:2] for item in found]


@pytest.mark.parametrize("value", [[], "x", None, 3])
def test_settings_are_an_object(value: Any) -> None:
    found = problems_of(definition(pattern_config=value))
    assert ("INVALID_TYPE", "pattern_config") in [item[:2] for item in found]


def test_a_custom_pattern_must_be_named() -> None:
    found = problems_of(definition(orchestration_pattern="custom"))
    assert [item[:2] for item in found] == [("MISSING_FIELD", "pattern")]
    found = problems_of(definition(orchestration_pattern="custom", pattern={"nam": "p", "version": "!"}))
    assert {item[:2] for item in found} == {
        ("MISSING_FIELD", "pattern.name"), ("UNKNOWN_FIELD", "pattern.nam"), ("INVALID_NAME", "pattern.version")
    }  # fmt: skip


def test_a_registered_pattern_belongs_to_custom_only() -> None:
    found = problems_of(definition(pattern={"name": "p", "version": "1"}))
    assert [item[:2] for item in found] == [("CONFLICTING_FIELDS", "pattern")]


def test_a_definition_without_a_pattern_of_its_own_is_written_as_before_there_were_any() -> None:
    assert "pattern" not in parse_definition(definition()).model_dump(mode="json")


def test_settings_travel_with_every_default_filled_in() -> None:
    settings = complete_settings(parse_definition(definition()))
    assert settings["strategy"] == "least_loaded"


class Inner(StrictModel):
    kind: Literal["inner"]
    size: Annotated[int, Field(ge=1)] = 1


class Other(StrictModel):
    kind: Literal["other"]
    words: list[Annotated[str, Field(min_length=2, max_length=4, pattern="^[a-z]*$")]] = Field(
        default_factory=list, max_length=2
    )


class Outer(StrictModel):
    parts: list[Annotated[Inner | Other, Field(discriminator="kind")]] = Field(default_factory=list)
    by_name: dict[str, Inner] = Field(default_factory=dict)
    maybe: Inner | None = None
    either: int | list[str] = 0


@pytest.mark.parametrize(
    ("config", "code", "location", "message"),
    [
        ({"parts": [{"kind": "inner", "size": 0}]}, "OUT_OF_RANGE", "c.parts[0].size", "at least 1"),
        ({"parts": [{"kind": "other", "words": ["a"]}]}, "EMPTY", "c.parts[0].words[0]", "must not be empty"),
        ({"parts": [{"kind": "other", "words": ["abcde"]}]}, "TOO_LONG", "c.parts[0].words[0]", "at most 4 char"),
        ({"parts": [{"kind": "other", "words": ["ABC"]}]}, "INVALID_NAME", "c.parts[0].words[0]", "does not match"),
        ({"parts": [{"kind": "other", "words": ["ab"] * 3}]}, "TOO_LONG", "c.parts[0].words", "at most 2 items"),
        ({"parts": [{"kind": "odd"}]}, "INVALID_VALUE", "c.parts[0]", "expected tags"),
        ({"by_name": {"a": {"kind": "inner", "sise": 1}}}, "UNKNOWN_FIELD", "c.by_name.a.sise", '"size"'),
        ({"maybe": {"kind": "inner", "sise": 1}}, "UNKNOWN_FIELD", "c.maybe.sise", '"size"'),
        ({"maybe": {}}, "MISSING_FIELD", "c.maybe.kind", "is required"),
        ({"mabye": 1}, "UNKNOWN_FIELD", "c.mabye", '"maybe"'),
        ({"either": "x"}, "INVALID_TYPE", "c.either", "a whole number"),
    ],
)
def test_a_problem_stands_where_the_client_wrote_and_says_what_to_do(
    config: Any, code: str, location: str, message: str
) -> None:
    problems = ProblemList()
    with pytest.raises(ValidationError) as refused:
        Outer.model_validate(config)
    add_config_problems(refused.value, Outer, config, problems, Suggester(), ("c",))
    found = [(item.code, item.location, item.message) for item in problems.listed()]
    assert [item for item in found if item[:2] == (code, location) and message in item[2]], found
