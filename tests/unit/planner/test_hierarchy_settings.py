"""Settings of the hierarchical pattern: each wrong one is refused where it stands."""

import copy
from typing import Any

import pytest

from engine.contracts.patterns.hierarchical import HierarchicalConfig
from engine.hierarchy import Hierarchy
from planner.kernel_plan import kernel_plan
from planner.parse import parse_definition
from planner.pattern_config import complete_settings
from planner.planner import Planner
from tests.unit.planner.definitions import problems_of

VALID: dict[str, Any] = {
    "teams": {
        "board": {"lead": "director", "members": ["crew", "clerk"], "delegation": "lead", "reports_max": 4},
        "crew": {"lead": "chief", "members": ["worker"], "in_flight_max": 2},
    },
    "authority": {
        "levels": {"L1": {"decisions": ["fail"]}, "L3": {"actions": ["build", "test-*"], "resources": ["disk"]}},
        "roles": {"clerk": {"actions": ["file"]}},
    },
    "span_of_control": {"reports_max": 5, "in_flight_max": 10},
    "escalation": {"interventions_max": 2, "answers_max": 1, "decision_timeout_seconds": 5},
}
TASKS: list[dict[str, Any]] = [
    {"id": "build", "agent": "worker", "input": {"resources": ["disk"]}},
    {"id": "check", "agent": "worker", "action": "test-all", "depends_on": ["build"]},
    {"id": "file", "agent": "clerk"},
    {"id": "plan", "agent": "chief"},
]


def document(config: dict[str, Any], tasks: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    roles = {"director": 1, "chief": 1, "worker": 3, "clerk": 1}
    return {
        "name": "levels",
        "version": "1.0",
        "orchestration_pattern": "hierarchical",
        "pattern_config": config,
        "agents": {role: {"type": "synthetic", "count": count} for role, count in roles.items()},
        "tasks": TASKS if tasks is None else tasks,
        "coordination": {"type": "hybrid"},
    }


def with_setting(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(VALID)
    *parents, last = path.split(".")
    here = config
    for part in parents:
        here = here[part]
    here[last] = value
    return config


def test_settings_that_make_sense_are_taken() -> None:
    assert problems_of(document(VALID)) == []
    assert problems_of(document({})) == []
    completed = complete_settings(parse_definition(document(VALID)))
    assert problems_of(document(completed)) == [], "as they travel, with every default"


WRONG_FIELDS: list[tuple[str, Any, str, str]] = [
    ("teams", [], "INVALID_TYPE", "pattern_config.teams"),
    ("teams", {"a b": VALID["teams"]["crew"]}, "INVALID_NAME", 'pattern_config.teams["a b"]'),
    ("teams.crew", {}, "MISSING_FIELD", "pattern_config.teams.crew.lead"),
    ("teams.crew.lead", 7, "INVALID_TYPE", "pattern_config.teams.crew.lead"),
    ("teams.crew.lead", "nobody", "UNKNOWN_MEMBER", "pattern_config.teams.crew.lead"),
    ("teams.crew.lead", "director", "NOT_A_TREE", "pattern_config.teams.crew.lead"),
    ("teams.crew.members", [], "EMPTY", "pattern_config.teams.crew.members"),
    ("teams.crew.members", ["worker", "worker"], "INVALID_VALUE", "pattern_config.teams.crew"),
    ("teams.crew.members", ["nobody"], "UNKNOWN_MEMBER", "pattern_config.teams.crew.members[0]"),
    ("teams.crew.members", ["worker", "clerk"], "NOT_A_TREE", "pattern_config.teams.crew.members[1]"),
    ("teams.crew.members", ["worker", "director"], "NOT_A_TREE", "pattern_config.teams.crew.members[1]"),
    ("teams.crew.members", ["worker", "board"], "NOT_A_TREE", "pattern_config.teams.board"),
    ("teams.board.members", ["clerk"], "NOT_A_TREE", "pattern_config.teams.crew"),
    ("teams.board.members", ["crew"], "ROLE_WITHOUT_TEAM", "agents.clerk"),
    ("teams.board.delegation", "perhaps", "INVALID_CHOICE", "pattern_config.teams.board.delegation"),
    ("teams.crew.reports_max", 0, "OUT_OF_RANGE", "pattern_config.teams.crew.reports_max"),
    ("teams.crew.reports_max", 2, "SPAN_OF_CONTROL", "pattern_config.teams.crew.members"),
    ("teams.crew.in_flight_max", False, "INVALID_TYPE", "pattern_config.teams.crew.in_flight_max"),
    ("teams.crew.surprise", 1, "UNKNOWN_FIELD", "pattern_config.teams.crew.surprise"),
    ("authority", None, "INVALID_TYPE", "pattern_config.authority"),
    ("authority.levels", {"3": {}}, "INVALID_NAME", "pattern_config.authority.levels.3"),
    ("authority.levels", {"L4": {}}, "UNKNOWN_LEVEL", "pattern_config.authority.levels.L4"),
    ("authority.roles", {"nobody": {}}, "UNKNOWN_ROLE", "pattern_config.authority.roles.nobody"),
    ("authority.levels.L3.actions", ["test-*"], "NOT_AUTHORISED", "tasks[0].action"),
    ("authority.levels.L3.actions", "build", "INVALID_TYPE", "pattern_config.authority.levels.L3.actions"),
    ("authority.levels.L3.actions", ["a*b"], "INVALID_NAME", "pattern_config.authority.levels.L3.actions[0]"),
    ("authority.levels.L3.resources", [], "NOT_AUTHORISED", "tasks[0].input.resources[0]"),
    ("authority.levels.L1.decisions", ["sleep"], "INVALID_CHOICE", "pattern_config.authority.levels.L1.decisions[0]"),
    ("span_of_control", 3, "INVALID_TYPE", "pattern_config.span_of_control"),
    ("span_of_control.reports_max", 1, "SPAN_OF_CONTROL", "pattern_config.teams.crew.members"),
    ("span_of_control.in_flight_max", 0, "OUT_OF_RANGE", "pattern_config.span_of_control.in_flight_max"),
    ("escalation", [], "INVALID_TYPE", "pattern_config.escalation"),
    ("escalation.interventions_max", 11, "OUT_OF_RANGE", "pattern_config.escalation.interventions_max"),
    ("escalation.answers_max", 0, "OUT_OF_RANGE", "pattern_config.escalation.answers_max"),
    ("escalation.decision_timeout_seconds", 1.5, "INVALID_TYPE", "pattern_config.escalation.decision_timeout_seconds"),
]


@pytest.mark.parametrize(("path", "value", "code", "location"), WRONG_FIELDS)
def test_a_wrong_setting_is_refused_where_it_stands(path: str, value: Any, code: str, location: str) -> None:
    found = problems_of(document(with_setting(path, value)))
    assert (code, location) in {(code, location) for code, location, _ in found}, found
    assert all(message for _, _, message in found)


def test_a_name_that_is_a_role_and_a_team_is_ambiguous() -> None:
    config = copy.deepcopy(VALID)
    config["teams"]["worker"] = config["teams"].pop("crew")
    config["teams"]["board"]["members"][0] = "worker"
    codes = {code for code, _, _ in problems_of(document(config))}
    assert "AMBIGUOUS_MEMBER" in codes


def test_two_tops_are_refused() -> None:
    config = copy.deepcopy(VALID)
    config["teams"]["board"]["members"] = ["clerk"]
    assert ("NOT_A_TREE", "pattern_config.teams.crew") in {(c, at) for c, at, _ in problems_of(document(config))}


def test_teams_that_are_members_of_each_other_are_refused() -> None:
    config: dict[str, Any] = {
        "teams": {"a": {"lead": "chief", "members": ["b"]}, "b": {"lead": "director", "members": ["a", "worker"]}}
    }
    codes = {code for code, _, _ in problems_of(document(config))}
    assert "NOT_A_TREE" in codes
    hierarchy = Hierarchy(HierarchicalConfig.model_validate(config))
    assert hierarchy.superiors("worker") == (), "and every walk ends"


def test_more_levels_than_are_taken_are_refused() -> None:
    deep = {f"t{n}": {"lead": f"r{n}", "members": [f"t{n + 1}" if n < 24 else "worker"]} for n in range(25)}
    made = document({"teams": deep})
    made["agents"] = {name: {"type": "synthetic"} for name in ("worker", *(f"r{n}" for n in range(25)))}
    made["tasks"] = [{"id": "build", "agent": "worker"}]
    assert ("TOO_DEEP", "pattern_config.teams") in {(code, at) for code, at, _ in problems_of(made)}


def test_resources_that_are_no_list_are_refused_only_where_they_are_limited() -> None:
    tasks = [{**TASKS[0], "input": {"resources": "disk"}}]
    assert problems_of(document({}, tasks)) == []
    assert [code for code, _, _ in problems_of(document(VALID, tasks))] == ["INVALID_TYPE"]


def test_a_compensation_needs_authority_too() -> None:
    tasks = [{**TASKS[0], "compensation_action": "undo"}]
    assert [(code, at) for code, at, _ in problems_of(document(VALID, tasks))] == [
        ("NOT_AUTHORISED", "tasks[0].compensation_action")
    ]


def test_an_unknown_level_without_teams_is_refused() -> None:
    found = problems_of(document({"authority": {"levels": {"L1": {}}}}))
    assert [message for _, _, message in found] == ["there are no teams"]


def test_the_plan_says_what_tasks_do_and_use_for_this_pattern_only() -> None:
    parsed = parse_definition(document(VALID))
    tasks = kernel_plan(parsed, Planner().plan(parsed), "none").tasks
    assert {t.id: (t.action, t.resources) for t in tasks if t.role == "worker"} == {
        "build": (None, ("disk",)),
        "check": ("test-all", ()),
    }
    other = parse_definition({**document({}), "orchestration_pattern": "supervisor"})
    assert {t.action for t in kernel_plan(other, Planner().plan(other), "none").tasks} == {None}


def test_levels_and_superiors_follow_from_the_teams() -> None:
    hierarchy = Hierarchy(HierarchicalConfig.model_validate(VALID))
    assert hierarchy.levels == {"director": 1, "chief": 2, "clerk": 2, "worker": 3}
    assert [(s.role, s.level) for s in hierarchy.superiors("worker")] == [("chief", 2), ("director", 1)]
    assert hierarchy.team_of("chief") == "crew"
    assert hierarchy.team_of("clerk") == "board"
    assert hierarchy.reports("board") == ("chief", "clerk")
    assert hierarchy.delegated_roles == {"chief", "clerk"}
    assert hierarchy.in_flight_max == {"board": 10, "crew": 2}
    assert hierarchy.refusal("stranger", "anything", ["x"]) is None
