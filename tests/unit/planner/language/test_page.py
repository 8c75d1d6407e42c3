"""The page on custom patterns says what the language has."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

import planner
from engine.contracts.patterns.language import (
    CASES_MAX,
    FAN_OUT_MAX,
    LOOP_MAX,
    STATES_MAX,
    STEPS_DEFAULT,
    STEPS_MAX,
    VARIABLES_MAX,
    CoordinationLogic,
    PatternRegistration,
    State,
)
from planner.language.check import parse_registration
from planner.language.names import GLOBAL_NAMES, LOCAL_NAMES

PAGE = (Path(planner.__file__).parents[1] / "docs" / "patterns" / "custom.md").read_text()
STATES = get_args(get_args(State)[0])


def test_the_pages_program_is_valid() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    logic = yaml.safe_load(text)
    schema = {"properties": {"reviewer": {"type": "string"}, "rounds": {"type": "integer"}}}
    parse_registration(
        PatternRegistration(name="p", version="1", coordination_logic=logic, configuration_schema=schema)
    )


@pytest.mark.parametrize("model", [*STATES, CoordinationLogic, PatternRegistration], ids=lambda model: model.__name__)
def test_every_state_and_field_is_on_the_page(model: type[CoordinationLogic]) -> None:
    named = set(re.findall(r"[`*\[{]*\b([a-z_]+)\b", PAGE))
    fields = {field.alias or name for name, field in model.model_fields.items()}
    assert fields <= named
    if "do" in fields:
        (kind,) = get_args(model.model_fields["do"].annotation)
        assert re.search(rf"^\| `{kind}`", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", [*GLOBAL_NAMES, *LOCAL_NAMES])
def test_every_name_of_expressions_is_on_the_page(name: str) -> None:
    table = PAGE[PAGE.index("## Names in expressions") : PAGE.index("## Every program ends")]
    assert f"`{name}`" in table


def test_the_limits_are_those_of_the_code() -> None:
    assert f"| states, variables, cases of a route | {STATES_MAX}, {VARIABLES_MAX}, {CASES_MAX} |" in PAGE
    assert f"| pieces of work that one state begins | {FAN_OUT_MAX:,};" in PAGE
    assert f"`max` (at most {LOOP_MAX:,})" in PAGE
    assert f"`steps_max` states ({STEPS_DEFAULT:,}; at most {STEPS_MAX:,})" in PAGE
