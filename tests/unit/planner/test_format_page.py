"""The page on the definition format says what the planner does."""

import json
import re
from pathlib import Path

import pytest

import planner
from engine.contracts import definition as contracts
from engine.contracts.model import Model
from planner.parse import parse_definition, parse_text
from planner.planner import Planner

PAGE = (Path(planner.__file__).parents[1] / "docs" / "definition-format.md").read_text()
EXAMPLES = re.findall(r"```(?:json|yaml)\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_an_example_in_each_format() -> None:
    assert [text.startswith("{") for text in EXAMPLES] == [False, False, True]
    assert json.loads(EXAMPLES[2])


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_pages_examples_are_valid(text: str) -> None:
    assert Planner().plan(parse_definition(parse_text(text))).tasks


def test_every_code_that_the_planner_gives_is_on_the_page() -> None:
    folder = Path(planner.__file__).parent
    code = r"\"([A-Z]+(?:_[A-Z]+)+|EMPTY|CYCLE|MALFORMED)\""
    given = {found for path in folder.glob("*.py") for found in re.findall(code, path.read_text())}
    assert len(given) > 30
    assert given <= set(re.findall(r"`([A-Z_]+)`", PAGE))


@pytest.mark.parametrize(
    "model",
    [
        contracts.WorkflowDefinition,
        contracts.AgentRequirement,
        contracts.TaskDefinition,
        contracts.Trigger,
        contracts.RetryPolicy,
        contracts.Coordination,
        contracts.CircuitBreakerConfig,
        contracts.SagaConfig,
    ],
)
def test_every_field_is_on_the_page(model: type[Model]) -> None:
    documented = set(re.findall(r"^\| `(?:\w+\.)?(\w+)`", PAGE, re.MULTILINE))
    assert set(model.model_fields) <= documented
