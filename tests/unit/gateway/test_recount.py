"""Votes counted again: from what was kept, without the agents."""

from typing import Any
from uuid import UUID

from engine.contracts.events import AuditEventType
from tests.unit.gateway.conftest import Client, Gateway

VOTES = {"voter-1": ["a"], "voter-2": ["b", "a"], "voter-3": ["b"], "voter-4": []}


def keep_votes(gateway: Gateway, execution_id: str, task_id: str = "ask", round_number: int = 1, **cast: Any) -> None:
    row = gateway.executions.row("default", UUID(execution_id))
    for agent_id, choices in (cast or VOTES).items():
        where = {"task_id": task_id, "round": round_number, "agent_id": agent_id}
        row.add_event(AuditEventType.VOTE_CAST.value, {**where, "choices": choices})
    counted = {
        "task_id": task_id, "round": round_number, "role": "voter", "rule": {"rule": "majority"}, "final": True,
        "candidates": ["a", "b"], "verdict": "below_threshold", "decision": None, "tally": [], "voted": 3, "members": 4,
    }  # fmt: skip
    row.add_event(AuditEventType.VOTE_COUNTED.value, counted)


async def test_votes_are_counted_under_another_rule(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    keep_votes(gateway, execution_id)
    counts = await client.result("swarm.recount", {"execution_id": execution_id, "voting": {"rule": "quorum"}})
    (item,) = counts["items"]
    assert (item["task_id"], item["round"], item["changed"]) == ("ask", 1, True)
    assert item["recorded"]["decision"] is None
    assert (item["recounted"]["decision"], item["recounted"]["voted"]) == ("b", 3)
    assert item["dissent"] == ["voter-1"]
    answer = await client.http.post(f"/api/v1/executions/{execution_id}/recount", json={"voting": {"of": "votes"}})
    assert answer.status_code == 200
    assert answer.json()["items"][0]["recounted"]["verdict"] == "decided"
    assert gateway.launcher.signals == []


async def test_one_question_and_one_round_can_be_chosen(client: Client, gateway: Gateway) -> None:
    execution_id = await client.execution()
    keep_votes(gateway, execution_id, "ask", 1)
    keep_votes(gateway, execution_id, "ask", 2, **{"voter-1": ["a"], "voter-2": ["a"]})
    keep_votes(gateway, execution_id, "other", 1)
    voting = {"rule": "quorum"}
    every = await client.result("swarm.recount", {"execution_id": execution_id, "voting": voting})
    assert [(item["task_id"], item["round"]) for item in every["items"]] == [("ask", 2), ("other", 1)]
    wanted = {"execution_id": execution_id, "voting": voting, "task_id": "ask", "round": 1}
    one = await client.result("swarm.recount", wanted)
    assert [(item["round"], item["recounted"]["decision"]) for item in one["items"]] == [(1, "b")]


async def test_what_was_not_voted_on_cannot_be_counted(client: Client) -> None:
    execution_id = await client.execution()
    error = await client.error("swarm.recount", {"execution_id": execution_id, "voting": {"rule": "quorum"}})
    assert error["data"]["code"] == "NOT_FOUND"
    error = await client.error("swarm.recount", {"execution_id": execution_id, "voting": {"rule": "loudest"}})
    assert error["code"] == -32602
