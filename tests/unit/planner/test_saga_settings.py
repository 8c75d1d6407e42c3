"""Settings of the saga: each wrong one is refused where it stands; flags and compensations reach the kernel's plan."""

from typing import Any

import pytest

from engine.errors import InvalidDefinitionError
from planner.kernel_plan import kernel_plan
from planner.parse import parse_definition
from planner.pattern_config import complete_settings
from planner.planner import Planner


def document(config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "name": "trip",
        "version": "1.0",
        "orchestration_pattern": "saga",
        "pattern_config": config,
        "agents": {"clerk": {"type": "synthetic"}},
        "tasks": [
            {"id": "book", "agent": "clerk", "compensation_action": "unbook"},
            {"id": "pay", "agent": "clerk", "depends_on": ["book"]},
            {"id": "send", "agent": "clerk", "depends_on": ["pay"]},
        ],
        "coordination": {"type": "hybrid"},
        **fields,
    }


def problems(given: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        parse_definition(given)
    except InvalidDefinitionError as error:
        return [(found["code"], found["location"]) for found in error.data["errors"]]
    return []


VALID: dict[str, Any] = {
    "undo_order": "side_by_side",
    "failed_steps": "compensate",
    "forward_attempts": 3,
    "forward_delay_seconds": 0.5,
    "pivots": ["pay"],
    "attempts_after_pivot": 5,
}


def test_settings_that_make_sense_are_taken() -> None:
    assert problems(document(VALID)) == []
    completed = complete_settings(parse_definition(document({})))
    assert completed["undo_order"] == "sequential"
    assert problems(document(completed)) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("undo_order", "random"),
        ("undo_order", 1),
        ("failed_steps", "ask"),
        ("forward_attempts", -1),
        ("forward_attempts", 101),
        ("forward_attempts", "3"),
        ("forward_attempts", True),
        ("forward_delay_seconds", -0.1),
        ("forward_delay_seconds", 3601),
        ("forward_delay_seconds", None),
        ("pivots", "pay"),
        ("attempts_after_pivot", 0),
        ("attempts_after_pivot", 1001),
    ],
)
def test_each_wrong_setting_is_refused_where_it_stands(field: str, value: Any) -> None:
    found = problems(document({**VALID, field: value}))
    assert found
    assert all(location == f"pattern_config.{field}" for _, location in found)


def test_unknown_settings_and_names_are_refused() -> None:
    assert [location for _, location in problems(document({"undo_oder": "sequential"}))] == ["pattern_config.undo_oder"]
    assert problems(document({"pivots": ["pay", "nobody", "pay"]})) == [
        ("UNKNOWN_TASK", "pattern_config.pivots[1]"),
        ("DUPLICATE_PIVOT", "pattern_config.pivots[2]"),
    ]
    assert [location for _, location in problems(document({"pivots": ["p y"]}))] == ["pattern_config.pivots[0]"]


def test_a_compensation_that_could_never_run_is_refused() -> None:
    given = document({"pivots": ["pay"]})
    given["tasks"][2]["compensation_action"] = "unsend"
    assert problems(given) == [("COMPENSATION_AFTER_PIVOT", "tasks[2].compensation_action")]
    given["tasks"][1]["when"] = "input.paid"
    assert problems(given) == [], "the pivot may be skipped, and then there is a way back"


@pytest.mark.parametrize("pattern", ["saga", "supervisor"])
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("rollback", [True, False])
def test_the_flags_of_every_pattern_reach_the_kernel(pattern: str, enabled: bool, rollback: bool) -> None:
    flags = {"compensation_enabled": enabled, "rollback_on_failure": rollback}
    parsed = parse_definition(document({}, orchestration_pattern=pattern, fault_tolerance={"saga_pattern": flags}))
    plan = kernel_plan(parsed, Planner().plan(parsed), "exponential_backoff")
    assert (plan.compensates, plan.rolls_back) == (enabled, rollback)
    assert [task.compensation for task in plan.tasks] == ["unbook", None, None]


def test_without_flags_compensation_is_on() -> None:
    parsed = parse_definition(document({}))
    plan = kernel_plan(parsed, Planner().plan(parsed), "exponential_backoff")
    assert plan.compensates
    assert plan.rolls_back
