"""Patterns through the API: registered once, listed behind the built-in ones, and used by definitions."""

from typing import Any

import pytest

from tests.unit.gateway.conftest import Client, ClientOf, Gateway, definition


def registration(**changes: Any) -> dict[str, Any]:
    return {
        "name": "relay",
        "version": "1.0",
        "description": "one after the other",
        "pattern_type": "custom",
        "coordination_logic": {
            "start": "work",
            "variables": {"answer": None},
            "states": {
                "work": {"do": "assign", "role": "config.role", "save": "answer", "next": "end"},
                "end": {"do": "finish", "result": "answer"},
            },
        },
        "configuration_schema": {
            "type": "object",
            "properties": {"role": {"type": "string"}, "rounds": {"type": "integer", "minimum": 1, "default": 3}},
            "required": ["role"],
            "additionalProperties": False,
        },
        **changes,
    }


def using(**changes: Any) -> dict[str, Any]:
    fields = {
        "orchestration_pattern": "custom",
        "pattern": {"name": "relay", "version": "1.0"},
        "pattern_config": {"role": "worker"},
    }
    return definition(**{**fields, **changes})


async def test_a_pattern_is_registered_got_and_listed_behind_the_built_in_ones(client: Client) -> None:
    answer = await client.result("pattern.register", registration())
    assert (answer["name"], answer["status"]) == ("relay", "registered")
    assert (await client.result("pattern.register", registration()))["pattern_id"] == answer["pattern_id"]
    listed = (await client.result("pattern.list"))["patterns"]
    assert [item["type"] for item in listed] == ["built-in"] * 7 + ["custom"]
    assert listed[-1]["pattern_id"] == answer["pattern_id"]
    got = await client.result("pattern.get", {"name": "relay"})
    assert got["config_schema"]["required"] == ["role"]
    assert got["coordination_logic"]["start"] == "work"
    built_in = await client.result("pattern.list", {"filter": "built-in"})
    assert len(built_in["patterns"]) == 7
    assert [p["name"] for p in (await client.result("pattern.list", {"filter": "custom"}))["patterns"]] == ["relay"]


async def test_versions_stand_beside_each_other_and_the_newest_is_got_by_name(client: Client) -> None:
    for version in ("2.0", "1.0"):
        await client.result("pattern.register", registration(version=version))
    assert (await client.result("pattern.get", {"name": "relay"}))["version"] == "1.0"
    assert (await client.result("pattern.get", {"name": "relay", "version": "2.0"}))["version"] == "2.0"
    assert (await client.error("pattern.get", {"name": "relay", "version": "3"}))["code"] == -32003


async def test_a_listing_of_both_kinds_goes_on_from_page_to_page(client: Client) -> None:
    for n in range(5):
        await client.result("pattern.register", registration(version=f"{n}"))
    seen: list[str] = []
    token: str | None = None
    while True:
        query = {"limit": "3"} | ({"page_token": token} if token else {})
        page = (await client.http.get("/api/v1/patterns", params=query)).json()
        seen += [f"{item['name']} {item['version']}" for item in page["items"]]
        token = page["next_page_token"]
        if token is None:
            break
        assert len(page["items"]) == 3 or len(seen) > 7
    assert len(seen) == len(set(seen)) == 12


@pytest.mark.parametrize("name", ["supervisor", "hierarchical", "handoff", "swarm", "network", "saga", "custom"])
async def test_the_built_in_names_are_reserved(client: Client, name: str) -> None:
    error = await client.error("pattern.register", registration(name=name))
    assert (error["code"], error["data"]["code"]) == (-32009, "PATTERN_NAME_CONFLICT")


async def test_a_version_never_changes(client: Client) -> None:
    await client.result("pattern.register", registration())
    error = await client.error("pattern.register", registration(description="another"))
    assert error["code"] == -32009
    answer = await client.http.post("/api/v1/patterns", json=registration(description="another"))
    assert answer.status_code == 409


async def test_an_invalid_program_is_refused_with_every_problem_located(client: Client, gateway: Gateway) -> None:
    logic = {"start": "a", "states": {"a": {"do": "route", "cases": [{"when": "1 +", "next": "b"}], "otherwise": "a"}}}
    error = await client.error("pattern.register", registration(coordination_logic=logic))
    assert error["code"] == -32010
    found = {(item["code"], item["location"]) for item in error["data"]["errors"]}
    assert ("UNKNOWN_STATE", "coordination_logic.states.a.cases[0].next") in found
    assert ("EXPRESSION_SYNTAX", "coordination_logic.states.a.cases[0].when") in found
    assert not gateway.patterns.rows


async def test_a_pattern_is_its_tenants_own(client: Client, client_of: ClientOf) -> None:
    await client.result("pattern.register", registration())
    other = client_of(tenant="other")
    assert len((await other.result("pattern.list"))["patterns"]) == 7
    assert (await other.error("pattern.get", {"name": "relay"}))["code"] == -32003
    error = await other.error("workflow.create", using())
    assert error["data"]["errors"][0]["code"] == "UNKNOWN_PATTERN"
    await other.result("pattern.register", registration(description="my own"))


async def test_a_definitions_settings_are_checked_by_the_patterns_schema(client: Client) -> None:
    await client.result("pattern.register", registration())
    error = await client.error("workflow.create", using(pattern_config={"rounds": 0, "speed": 1}))
    assert error["code"] == -32602
    found = {(item["code"], item["location"]) for item in error["data"]["errors"]}
    assert found == {
        ("MISSING_FIELD", "pattern_config.role"),
        ("INVALID_VALUE", "pattern_config.rounds"),
        ("UNKNOWN_FIELD", "pattern_config.speed"),
    }
    error = await client.error("workflow.create", using(pattern_config={"role": "nobody"}))
    assert [item["code"] for item in error["data"]["errors"]] == ["UNKNOWN_AGENT_ROLE"]


async def test_an_execution_is_launched_with_the_program_and_complete_settings(
    client: Client, gateway: Gateway
) -> None:
    await client.result("pattern.register", registration())
    created = await client.result("workflow.create", using())
    await client.result("workflow.execute", {"workflow_id": created["workflow_id"], "input_data": {}})
    (launch,) = gateway.launcher.launched
    assert launch.pattern == "custom"
    assert launch.pattern_config["config"] == {"role": "worker", "rounds": 3}
    assert launch.pattern_config["logic"]["start"] == "work"
    assert (launch.pattern_config["name"], launch.pattern_config["version"]) == ("relay", "1.0")


async def test_registering_is_audited(client: Client, gateway: Gateway) -> None:
    await client.result("pattern.register", registration())
    await client.error("pattern.register", registration(name="saga"))
    assert [o for o in gateway.outcomes() if o[0] == "pattern.register"] == [
        ("pattern.register", "ok"),
        ("pattern.register", "PATTERN_NAME_CONFLICT"),
    ]
