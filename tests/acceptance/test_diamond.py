"""The main path over JSON-RPC: what ran, when, and that everybody is told the same."""

from datetime import datetime
from typing import Any

import pytest

from tests.acceptance.audit import assert_completed, happened_at, of_type
from tests.acceptance.caller import Caller
from tests.acceptance.journal import assert_journal_and_history_agree
from tests.acceptance.running import RunningEngine, until

pytestmark = pytest.mark.acceptance

DIAMOND = {"A": [], "B": ["A"], "C": ["A"], "D": ["B", "C"]}
DURATIONS_MS = {"A": 100, "B": 1200, "C": 1500, "D": 50}

MESSAGE_OF = {
    "workflow.status_changed": "workflow.status_changed",
    "agent.task_assigned": "agent.task_assigned",
    "task.completed": "task.completed",
    "error.occurred": "error.occurred",
    "workflow.checkpoint_created": "checkpoint.created",
}


def diamond_tasks() -> list[dict[str, Any]]:
    return [
        {
            "id": task_id,
            "depends_on": needed,
            "input": {"duration_ms": DURATIONS_MS[task_id], "result": f"result of {task_id}", "progress": 4},
        }
        for task_id, needed in DIAMOND.items()
    ]


def test_b_and_c_overlap_d_starts_after_both_and_all_accounts_agree(engine: RunningEngine, caller: Caller) -> None:
    workflow_id = caller.create(*diamond_tasks())
    execution_id = caller.execute(workflow_id, checkpoint_interval=1)
    with caller.watching(execution_id) as watcher:
        status = caller.until_completed(execution_id)
        messages = watcher.until_closed()
    assert watcher.close_code == 1000
    events = caller.events(execution_id)

    # The audit log.
    assert_completed(events, DIAMOND)
    started = {e["payload"]["task_id"]: happened_at(e) for e in of_type(events, "agent.task_started")}
    ended = {e["payload"]["task_id"]: happened_at(e) for e in of_type(events, "task.completed")}
    assert max(started["B"], started["C"]) < min(ended["B"], ended["C"])
    assert started["D"] >= max(ended["B"], ended["C"])

    # The status.
    assert status["task_states"] == dict.fromkeys(DIAMOND, "completed")
    assert status["performance_metrics"]["tasks_completed"] == 4
    assert status["performance_metrics"]["tasks_failed"] == 0
    assert status["completed_at"] is not None
    tasks = {t["task_id"]: t for t in caller.rest("GET", f"/executions/{execution_id}/tasks").json()["items"]}
    assert {task_id: datetime.fromisoformat(t["started_at"]) for task_id, t in tasks.items()} == started
    assert {task_id: datetime.fromisoformat(t["completed_at"]) for task_id, t in tasks.items()} == ended
    assert {task_id: t["result"] for task_id, t in tasks.items()} == {t: f"result of {t}" for t in DIAMOND}

    # The WebSocket.
    assert messages[0]["type"] == "workflow.snapshot"
    assert messages[0]["data"]["execution_id"] == execution_id
    told = [m for m in messages if m["sequence"] is not None]
    assert [(m["sequence"], m["type"]) for m in told] == [
        (e["sequence"], MESSAGE_OF[e["event_type"]]) for e in events if e["event_type"] in MESSAGE_OF
    ]
    facts = {e["sequence"]: e["payload"] for e in events}
    for message in told:
        assert message["data"]["execution_id"] == execution_id
        for name in ("task_id", "agent_id", "attempt", "new_status", "previous_status", "checkpoint_id", "result"):
            if name in message["data"]:
                assert message["data"][name] == facts[message["sequence"]].get(name), message
    kinds = {m["type"] for m in messages}
    assert kinds >= {"workflow.status_changed", "agent.task_assigned", "task.completed", "task.progress_update"}
    assert "checkpoint.created" in kinds, "the interval of one second has passed while C ran"
    updates = [m["data"] for m in messages if m["type"] == "task.progress_update"]
    assert {update["task_id"] for update in updates} >= {"B", "C"}
    assert all(0.0 < update["progress"] <= 1.0 for update in updates)

    # Temporal and the journal.
    assert_journal_and_history_agree(engine, "default", execution_id)
    assert engine.replays("default", execution_id)


def test_a_watcher_that_comes_back_gets_the_rest_and_nothing_twice(caller: Caller) -> None:
    execution_id = caller.execute(caller.create(*diamond_tasks()))
    with caller.watching(execution_id) as first:
        caller.until_event(execution_id, "task.completed", task_id="A")
        until(lambda: any(m["sequence"] is not None for m in first.messages), "the watcher has heard something")
    seen = [m["sequence"] for m in first.messages if m["sequence"] is not None]
    caller.until_completed(execution_id)
    with caller.watching(f"{execution_id}?after={seen[-1]}") as second:
        rest = [m["sequence"] for m in second.until_closed() if m["sequence"] is not None]
    expected = [e["sequence"] for e in caller.events(execution_id) if e["event_type"] in MESSAGE_OF]
    assert seen + rest == expected


def test_what_an_agent_gets_are_the_results_of_its_direct_dependencies(engine: RunningEngine, caller: Caller) -> None:
    tasks = [{"id": task_id, "depends_on": needed} for task_id, needed in DIAMOND.items()]
    execution_id = caller.execute(caller.create(*tasks, agent_type="recorder"))
    caller.until_completed(execution_id)
    results = {
        e["payload"]["task_id"]: e["payload"]["result"]["results"]
        for e in of_type(caller.events(execution_id), "task.completed")
    }
    assert results == DIAMOND
    began = [line["task_id"] for line in engine.recorded(execution_id) if line["what"] == "began"]
    assert sorted(began) == sorted(DIAMOND)
