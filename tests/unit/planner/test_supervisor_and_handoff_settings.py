"""Settings of the supervisor and the handoff: each wrong one is refused where it stands."""

from typing import Any

import pytest

from engine.errors import InvalidDefinitionError
from planner.parse import parse_definition
from planner.pattern_config import complete_settings
from planner.planner import Planner


def document(pattern: str, config: dict[str, Any], **task: Any) -> dict[str, Any]:
    return {
        "name": "work",
        "version": "1.0",
        "orchestration_pattern": pattern,
        "pattern_config": config,
        "agents": {"worker": {"type": "synthetic", "count": 3}, "lead": {"type": "synthetic"}},
        "tasks": [
            {"id": "draft", "agent": "worker", **task},
            {"id": "sign", "agent": "lead", "depends_on": ["draft"]},
        ],
        "coordination": {"type": "hybrid"},
    }


def problems(pattern: str, config: dict[str, Any], **task: Any) -> list[tuple[str, str]]:
    try:
        parse_definition(document(pattern, config, **task))
    except InvalidDefinitionError as error:
        return [(found["code"], found["location"]) for found in error.data["errors"]]
    return []


VALID_SUPERVISOR: dict[str, Any] = {
    "strategy": "weighted",
    "weight_by": "capability",
    "capabilities": {"worker-1": ["sql"], "worker-3": ["sql", "python"]},
    "wanted": {"draft": ["sql"]},
    "max_in_flight": 2,
    "review": {
        "agent": "lead",
        "action": "review",
        "tasks": ["draft"],
        "failures": True,
        "rounds_max": 2,
        "on_exhausted": "accept",
        "bad_answers_max": 1,
        "on_no_verdict": "accept",
        "timeout_seconds": 30,
    },
}
VALID_HANDOFF: dict[str, Any] = {
    "context": {"topic": "rivers"},
    "context_bytes_max": 1_000,
    "history_shown_max": 5,
    "gate": {
        "expressions": ["result.words > context.limit"],
        "json_schema": {"type": "object"},
        "judge": {"agent": "lead", "action": "judge", "criteria": "kind", "bad_answers_max": 1, "timeout_seconds": 5},
    },
    "to": ["worker", "worker-2", "lead-1"],
    "hops_max": 4,
    "rejections_max": 2,
    "rollbacks_max": 2,
    "stations": {"sign": {"to": [], "gate": {"expressions": []}}},
}


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """With this one field set, as in `review.agent`."""
    first, _, rest = path.partition(".")
    return {**config, first: changed(config.get(first, {}), rest, value) if rest else value}


def test_valid_settings_reach_the_workflow_with_every_default_filled_in() -> None:
    assert problems("supervisor", VALID_SUPERVISOR) == []
    assert problems("handoff", VALID_HANDOFF) == []
    parsed = parse_definition(document("handoff", {}))
    assert complete_settings(parsed)["rejections_max"] == 3
    parsed = parse_definition(document("supervisor", {"review": {"agent": "lead"}}))
    assert complete_settings(parsed)["review"]["rounds_max"] == 3


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("strategy", "best", "INVALID_CHOICE"),
        ("strategy", 1, None),
        ("weight_by", "luck", "INVALID_CHOICE"),
        ("capabilities", ["sql"], None),
        ("capabilities.worker-9", ["sql"], "UNKNOWN_AGENT"),
        ("capabilities.worker-1", [], None),
        ("capabilities.worker-1", "sql", None),
        ("wanted.nothing", ["sql"], "UNKNOWN_TASK"),
        ("wanted.draft", [7], None),
        ("max_in_flight", 0, None),
        ("max_in_flight", 1_001, None),
        ("max_in_flight", "2", None),
        ("max_in_flight", True, None),
        ("review", True, None),
        ("review", {}, "MISSING_FIELD"),
        ("review.agent", "nobody", "UNKNOWN_ROLE"),
        ("review.agent", "", "EMPTY"),
        ("review.action", "a b", "INVALID_NAME"),
        ("review.tasks", [], None),
        ("review.tasks", ["nothing"], "UNKNOWN_TASK"),
        ("review.tasks", ["sign"], "NOT_REVIEWED"),
        ("review.failures", "yes", None),
        ("review.rounds_max", 0, None),
        ("review.rounds_max", 21, None),
        ("review.on_exhausted", "retry", "INVALID_CHOICE"),
        ("review.bad_answers_max", -1, None),
        ("review.on_no_verdict", None, None),
        ("review.timeout_seconds", 0, None),
        ("review.more", 1, "UNKNOWN_FIELD"),
        ("strategies", [], "UNKNOWN_FIELD"),
    ],
)
def test_each_wrong_setting_of_the_supervisor_is_refused_where_it_stands(
    field: str, value: Any, code: str | None
) -> None:
    found = problems("supervisor", changed(VALID_SUPERVISOR, field, value))
    assert found, f"{field}: {value!r} is taken"
    codes, locations = [code for code, _ in found], [location for _, location in found]
    assert code in codes if code else True
    assert any(location.startswith(f"pattern_config.{field}") for location in locations), found


@pytest.mark.parametrize(
    "config",
    [
        {"weight_by": "capability"},
        {"strategy": "weighted", "weight_by": "capability"},
        {"strategy": "weighted", "wanted": {"draft": ["sql"]}},
        {"capabilities": {"worker-1": ["sql"]}},
    ],
)
def test_weights_stand_only_where_they_count(config: dict[str, Any]) -> None:
    assert [location for _, location in problems("supervisor", config)] == ["pattern_config"]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("context", ["rivers"], None),
        ("context", {"text": "x" * 2_000}, "TOO_LARGE"),
        ("context_bytes_max", 1, None),
        ("context_bytes_max", 49 * 1024, None),
        ("history_shown_max", -1, None),
        ("gate", [], None),
        ("gate.expressions", "true", None),
        ("gate.expressions", ["result.words >"], "EXPRESSION_SYNTAX"),
        ("gate.expressions", ["results.words > 1"], "EXPRESSION_UNKNOWN_NAME"),
        ("gate.expressions", [""], "EMPTY"),
        ("gate.expressions", ["true"] * 21, "TOO_LONG"),
        ("gate.json_schema", {"type": "nonsense"}, "INVALID_SCHEMA"),
        ("gate.json_schema", {"properties": {"a": {"pattern": "("}}}, "INVALID_SCHEMA"),
        ("gate.json_schema", {"$ref": "http://127.0.0.1:1/schema"}, "INVALID_SCHEMA"),
        ("gate.judge", "lead", None),
        ("gate.judge.agent", "nobody", "UNKNOWN_ROLE"),
        ("gate.judge.criteria", "x" * 5_000, "TOO_LONG"),
        ("gate.judge.bad_answers_max", 11, None),
        ("gate.judge.timeout_seconds", 0, None),
        ("gate.schema", {}, "UNKNOWN_FIELD"),
        ("to", "lead", None),
        ("to", ["nobody"], "UNKNOWN_AGENT"),
        ("to", ["worker-4"], "UNKNOWN_AGENT"),
        ("hops_max", 0, None),
        ("hops_max", 101, None),
        ("rejections_max", -1, None),
        ("rejections_max", 21, None),
        ("rollbacks_max", 1.5, None),
        ("stations.nothing", {}, "UNKNOWN_TASK"),
        ("stations.sign.to", ["nobody"], "UNKNOWN_AGENT"),
        ("stations.sign.gate", {"expressions": ["nothing"]}, "EXPRESSION_UNKNOWN_NAME"),
        ("baton", 1, "UNKNOWN_FIELD"),
    ],
)
def test_each_wrong_setting_of_the_handoff_is_refused_where_it_stands(field: str, value: Any, code: str | None) -> None:
    found = problems("handoff", changed(VALID_HANDOFF, field, value))
    assert found, f"{field}: {value!r} is taken"
    codes, locations = [code for code, _ in found], [location for _, location in found]
    assert code in codes if code else True
    assert any(location.startswith(f"pattern_config.{field}") for location in locations), found


@pytest.mark.parametrize(("station", "field"), [({"hops_max": 0}, "hops_max"), ({"gates": {}}, "gates")])
def test_a_wrong_setting_of_one_task_says_which(station: dict[str, Any], field: str) -> None:
    [(code, location)] = problems("handoff", {"stations": {"draft": station}})
    assert (code, location) == ("INVALID_VALUE", "pattern_config")


def test_naming_someone_twice_is_refused() -> None:
    assert problems("handoff", {"to": ["lead", "lead"]}) == [("INVALID_VALUE", "pattern_config")]


@pytest.mark.parametrize(("field", "value"), [("for_each", "[1, 2]"), ("reuse", True)])
def test_a_task_that_is_no_single_piece_of_work_has_no_place_in_a_handoff(field: str, value: Any) -> None:
    assert problems("handoff", {}, **{field: value}) == [("NOT_IN_PATTERN", f"tasks[0].{field}")]


def unused(pattern: str, config: dict[str, Any]) -> list[str]:
    made = document(pattern, config)
    made["tasks"] = made["tasks"][:1]
    warnings = Planner().plan(parse_definition(made)).warnings
    return [warning.location for warning in warnings if warning.code == "UNUSED_ROLE"]


@pytest.mark.parametrize(
    ("pattern", "config"),
    [
        ("supervisor", {"review": {"agent": "lead"}}),
        ("handoff", {"to": ["lead-1"]}),
        ("handoff", {"stations": {"draft": {"gate": {"judge": {"agent": "lead"}}}}}),
    ],
)
def test_a_role_that_the_pattern_asks_for_something_is_not_unused(pattern: str, config: dict[str, Any]) -> None:
    assert unused(pattern, config) == []
    assert unused(pattern, {}) == ["agents.lead"]
