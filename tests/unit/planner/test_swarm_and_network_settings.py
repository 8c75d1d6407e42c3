"""Settings of the swarm and the network: each wrong one is refused where it stands."""

from typing import Any

import pytest

from engine.errors import InvalidDefinitionError
from planner.parse import parse_definition
from planner.pattern_config import complete_settings


def document(pattern: str, config: dict[str, Any], **task: Any) -> dict[str, Any]:
    return {
        "name": "decide",
        "version": "1.0",
        "orchestration_pattern": pattern,
        "pattern_config": config,
        "agents": {"voter": {"type": "synthetic", "count": 3}, "clerk": {"type": "synthetic"}},
        "tasks": [{"id": "ask", "agent": "voter", **task}, {"id": "file", "agent": "clerk", "depends_on": ["ask"]}],
        "coordination": {"type": "hybrid"},
    }


def problems(pattern: str, config: dict[str, Any], **task: Any) -> list[tuple[str, str]]:
    try:
        parse_definition(document(pattern, config, **task))
    except InvalidDefinitionError as error:
        return [(found["code"], found["location"]) for found in error.data["errors"]]
    return []


VALID_SWARM: dict[str, Any] = {
    "voting": {"rule": "weighted", "threshold": "2/3", "weights": {"voter-1": 2, "clerk-1": 1}, "quorum": 0.5},
    "options": [],
    "proposals": "every",
    "candidates_max": 5,
    "rounds_max": 4,
    "round_seconds": 2.5,
    "early": True,
    "topology": {"kind": "given", "links": {"voter-1": ["voter-2"], "clerk-1": ["voter-3"]}},
    "shown_max": 3,
    "convergence": {"share": "3/4", "rounds": 2},
    "on_undecided": "complete",
    "questions": {"file": {"voting": {"rule": "unanimous"}, "rounds_max": 1}},
}
VALID_NETWORK: dict[str, Any] = {
    "topology": {"kind": "tree", "arity": 2},
    "start": "first",
    "ttl_hops": 3,
    "message_seconds": 1.5,
    "message_bytes_max": 100,
    "state_bytes_max": 100,
    "messages_max": 50,
    "mailbox_max": 10,
    "batch_max": 5,
    "turns_max": 40,
    "goal": "size(states) > 2 and turns < 10 or messages == 0",
    "seconds": 30,
    "on_deadline": "fail",
    "on_peer_failure": "go_on",
    "conversations": {"ask": {"start": ["voter-2"]}},
}


@pytest.mark.parametrize(("pattern", "config"), [("swarm", VALID_SWARM), ("network", VALID_NETWORK)])
def test_settings_that_make_sense_are_taken(pattern: str, config: dict[str, Any]) -> None:
    assert problems(pattern, config) == []
    assert problems(pattern, {}) == []
    completed = complete_settings(parse_definition(document(pattern, config)))
    assert problems(pattern, completed) == [], "as they travel, with every default"


WRONG: list[tuple[str, str, Any]] = [
    ("swarm", "voting", "majority"),
    ("swarm", "options", "a"),
    ("swarm", "options", [None]),
    ("swarm", "options", ["a", "a"]),
    ("swarm", "options", [1, 1.0]),
    ("swarm", "options", list(range(101))),
    ("swarm", "proposals", "often"),
    ("swarm", "candidates_max", 1),
    ("swarm", "rounds_max", 0),
    ("swarm", "round_seconds", 0),
    ("swarm", "early", "yes"),
    ("swarm", "topology", {"kind": "cube"}),
    ("swarm", "shown_max", -1),
    ("swarm", "convergence", {"share": 2}),
    ("swarm", "on_undecided", "again"),
    ("swarm", "questions", {"ask": {"rounds_max": 0}}),
    ("swarm", "questions", {"ask": 5}),
    ("swarm", "questions", {"none": {}}),
    ("network", "topology", []),
    ("network", "start", "last"),
    ("network", "start", []),
    ("network", "start", ["voter-1", "voter-1"]),
    ("network", "ttl_hops", 0),
    ("network", "message_seconds", -1),
    ("network", "message_bytes_max", 1_000_000),
    ("network", "state_bytes_max", 1),
    ("network", "messages_max", -1),
    ("network", "mailbox_max", 0),
    ("network", "batch_max", 0),
    ("network", "turns_max", 0),
    ("network", "goal", "states >"),
    ("network", "goal", "answers.a > 1"),
    ("network", "seconds", 0),
    ("network", "on_deadline", "go_on"),
    ("network", "on_peer_failure", "complete"),
    ("network", "conversations", {"ask": {"turns_max": "many"}}),
    ("network", "conversations", {"none": {}}),
]


@pytest.mark.parametrize(("pattern", "field", "value"), WRONG, ids=lambda value: str(value)[:30])
def test_each_wrong_setting_is_found_where_it_stands(pattern: str, field: str, value: Any) -> None:
    found = problems(pattern, {field: value})
    assert found
    general = {"options", "questions", "conversations", "start"}
    for _, location in found:
        inside = location.startswith(f"pattern_config.{field}")
        assert inside or (field in general and location == "pattern_config")


@pytest.mark.parametrize("pattern", ["swarm", "network"])
def test_a_setting_that_there_is_not_is_refused(pattern: str) -> None:
    assert problems(pattern, {"colour": "red"}) == [("UNKNOWN_FIELD", "pattern_config.colour")]


def test_options_and_proposals_exclude_each_other() -> None:
    assert problems("swarm", {"options": ["a"], "proposals": "first"}) == [("INVALID_VALUE", "pattern_config")]


def test_a_single_tasks_settings_are_checked_together_with_those_of_all() -> None:
    config = {"options": ["a"], "questions": {"ask": {"proposals": "first"}}}
    assert problems("swarm", config) == [("INVALID_VALUE", "pattern_config")]
    config["questions"]["ask"]["options"] = []  # type: ignore[index]
    assert problems("swarm", config) == []


def test_weights_and_links_name_agents() -> None:
    voting = {"rule": "weighted", "weights": {"voter-4": 1}}
    assert problems("swarm", {"voting": voting}) == [
        ("UNKNOWN_AGENT", "pattern_config.voting.weights.voter-4"),
    ]
    topology = {"kind": "given", "links": {"voter-9": ["voter-1"], "voter-1": ["voter-2", "ghost-1"]}}
    for pattern in ("swarm", "network"):
        assert problems(pattern, {"topology": topology}) == [
            ("UNKNOWN_AGENT", "pattern_config.topology.links.voter-1[1]"),
            ("UNKNOWN_AGENT", "pattern_config.topology.links.voter-9"),
        ]


def test_a_single_tasks_names_are_those_of_its_own_role() -> None:
    own = {"voting": {"rule": "weighted", "weights": {"clerk-1": 1}}}
    assert problems("swarm", {"questions": {"ask": own}}) == [
        ("UNKNOWN_AGENT", "pattern_config.questions.ask.voting.weights.clerk-1")
    ]
    links = {"topology": {"kind": "given", "links": {"clerk-1": []}}}
    assert problems("swarm", {"questions": {"ask": links}}) == [
        ("UNKNOWN_AGENT", "pattern_config.questions.ask.topology.links.clerk-1")
    ]
    assert problems("network", {"conversations": {"ask": {"start": ["clerk-1"]}}}) == [
        ("UNKNOWN_AGENT", "pattern_config.conversations.ask.start[0]")
    ]


def test_peers_that_no_message_can_reach_are_named() -> None:
    topology = {"kind": "given", "links": {"voter-1": ["voter-2"]}}
    assert problems("network", {"topology": topology, "start": "first"}) == [
        ("UNREACHED_PEERS", "pattern_config.start")
    ]
    assert problems("network", {"topology": topology}) == [], "they start by themselves"


@pytest.mark.parametrize("pattern", ["swarm", "network"])
@pytest.mark.parametrize(("field", "value"), [("for_each", "input.x"), ("reuse", True), ("parallel", False)])
def test_a_task_for_a_whole_role_cannot_be_split_reused_or_alone(pattern: str, field: str, value: Any) -> None:
    assert problems(pattern, {}, **{field: value}) == [("NOT_IN_PATTERN", f"tasks[0].{field}")]


@pytest.mark.parametrize("pattern", ["swarm", "network"])
def test_more_members_than_an_execution_may_ask_are_refused(pattern: str) -> None:
    wanted = document(pattern, {})
    wanted["agents"]["voter"]["count"] = 9_999
    parse_definition(wanted)
    wanted["tasks"].append({"id": "again", "agent": "voter"})
    with pytest.raises(InvalidDefinitionError) as refused:
        parse_definition(wanted)
    assert [found["code"] for found in refused.value.data["errors"]] == ["TOO_MANY_MEMBERS"]


@pytest.mark.parametrize("pattern", ["swarm", "network"])
def test_an_input_that_is_too_large_for_so_many_is_refused(pattern: str) -> None:
    wanted = document(pattern, {}, input={"text": "x" * 20_000})
    wanted["agents"]["voter"]["count"] = 800
    parse_definition(wanted)
    wanted["agents"]["voter"]["count"] = 900
    with pytest.raises(InvalidDefinitionError) as refused:
        parse_definition(wanted)
    assert [(e["code"], e["location"]) for e in refused.value.data["errors"]] == [("TOO_LARGE", "tasks[0].input")]
