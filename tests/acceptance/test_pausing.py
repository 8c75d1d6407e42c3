"""Pause, resume and cancel: by Temporal's own command, over JSON-RPC and over REST."""

from collections import Counter
from typing import Any

import pytest

from tests.acceptance.audit import assert_completed, assert_sound, of_type, status_changes, successes
from tests.acceptance.caller import Caller, Refused
from tests.acceptance.journal import assert_journal_and_history_agree
from tests.acceptance.running import RunningEngine, until
from tests.acceptance.shapes import chain, held_at

pytestmark = pytest.mark.acceptance

CHAIN = chain(6)
HELD = ("t2", "t4")


def start_chain(caller: Caller) -> str:
    """A chain of recorded tasks, of which two are done when this returns; the third runs until it is released."""
    execution_id = caller.execute(caller.create(*held_at(CHAIN, HELD), agent_type="recorder"))
    caller.until_event(execution_id, "agent.task_started", task_id="t2")
    return execution_id


def begun(engine: RunningEngine, execution_id: str) -> Counter[str]:
    return Counter(line["task_id"] for line in engine.recorded(execution_id) if line["what"] == "began")


def until_nothing_runs(caller: Caller, execution_id: str) -> dict[str, Any]:
    until(lambda: caller.status(execution_id)["task_counts"]["running"] == 0, "what ran at the pause has ended")
    return caller.status(execution_id)


def assert_rests(engine: RunningEngine, caller: Caller, execution_id: str) -> None:
    """Paused, with a checkpoint; and what follows the last finished task has not been started since."""
    engine.release(execution_id, "t2")
    resting = until_nothing_runs(caller, execution_id)
    assert resting["status"] == "paused"
    [checkpoint] = caller.checkpoints(execution_id)
    assert checkpoint["reason"] == "pause"
    assert checkpoint["checkpoint_id"] == resting["latest_checkpoint_id"]
    events = caller.events(execution_id)
    [paused] = [e for e in of_type(events, "workflow.status_changed") if e["payload"]["new_status"] == "paused"]
    assert [e for e in of_type(events, "agent.task_assigned") if e["sequence"] > paused["sequence"]] == []
    done = set(successes(events))
    assert done >= set(checkpoint["completed_tasks"])
    assert set(begun(engine, execution_id)) == done
    # Another execution comes and goes meanwhile; this one still rests.
    caller.until_completed(caller.execute(caller.create({"id": "other"})))
    assert caller.events(execution_id) == events


def assert_went_on(engine: RunningEngine, caller: Caller, execution_id: str) -> None:
    engine.release(execution_id, *HELD)
    caller.until_completed(execution_id)
    events = caller.events(execution_id)
    assert_completed(events, CHAIN)
    assert begun(engine, execution_id) == dict.fromkeys(CHAIN, 1)
    assert status_changes(events)[-4:] == ["executing", "paused", "executing", "completed"]
    assert_journal_and_history_agree(engine, caller.tenant, execution_id)
    assert engine.replays(caller.tenant, execution_id)


def test_temporals_own_command_pauses_and_resumes(engine: RunningEngine, caller: Caller) -> None:
    execution_id = start_chain(caller)
    engine.temporal("signal", f"default/{execution_id}", "--name", "pause")
    caller.until_status(execution_id, "paused")
    assert_rests(engine, caller, execution_id)
    engine.temporal("signal", f"default/{execution_id}", "--name", "resume")
    assert_went_on(engine, caller, execution_id)


def test_json_rpc_pauses_and_resumes(engine: RunningEngine, caller: Caller) -> None:
    execution_id = start_chain(caller)
    answer = caller.rpc("workflow.pause", execution_id=execution_id)
    assert answer["status"] == "paused"
    assert_rests(engine, caller, execution_id)
    assert answer["checkpoint_id"] == caller.status(execution_id)["latest_checkpoint_id"]
    resumed = caller.rpc("workflow.resume", execution_id=execution_id)
    assert resumed["status"] == "executing"
    assert resumed["recovered_tasks"] >= 2
    assert resumed["repeated_side_effects"] == []
    assert_went_on(engine, caller, execution_id)


def test_rest_pauses_and_resumes(engine: RunningEngine, caller: Caller) -> None:
    execution_id = start_chain(caller)
    paused = caller.rest("POST", f"/executions/{execution_id}/pause", json={"reason": "lunch"})
    assert paused.status_code == 200
    assert paused.json()["status"] == "paused"
    assert_rests(engine, caller, execution_id)
    resumed = caller.rest("POST", f"/executions/{execution_id}/resume")
    assert resumed.status_code == 200
    assert resumed.json()["status"] == "executing"
    assert_went_on(engine, caller, execution_id)


def test_resuming_from_an_earlier_checkpoint_repeats_what_came_after_it_in_the_next_epoch(
    engine: RunningEngine, caller: Caller
) -> None:
    execution_id = start_chain(caller)
    earlier = caller.rest("POST", f"/executions/{execution_id}/checkpoints")
    assert earlier.status_code == 201, earlier.text
    kept = set(earlier.json()["completed_tasks"])
    engine.release(execution_id, "t2")
    caller.until_event(execution_id, "agent.task_started", task_id="t4")
    caller.rpc("workflow.pause", execution_id=execution_id)
    engine.release(execution_id, "t4")
    until_nothing_runs(caller, execution_id)
    done = set(successes(caller.events(execution_id)))
    answer = caller.rpc(
        "workflow.resume", execution_id=execution_id, checkpoint_id=earlier.json()["checkpoint_id"]
    )  # fmt: skip
    assert answer["repeated_side_effects"] == sorted(done - kept)
    assert answer["recovered_tasks"] == len(kept)
    status = caller.until_completed(execution_id)
    assert (status["execution_id"], status["epoch"]) == (execution_id, 2)
    events = caller.events(execution_id)
    assert_sound(events, CHAIN)
    assert successes(events) == {task_id: 2 if task_id in done - kept else 1 for task_id in CHAIN}
    [back] = of_type(events, "workflow.resumed_from_checkpoint")
    assert {e["epoch"] for e in events if e["sequence"] < back["sequence"]} == {1}
    assert {e["epoch"] for e in events if e["sequence"] > back["sequence"]} == {2}
    assert begun(engine, execution_id) == {task_id: 2 if task_id in done - kept else 1 for task_id in CHAIN}
    assert_journal_and_history_agree(engine, "default", execution_id)
    assert engine.replays("default", execution_id)


def test_temporals_own_cancellation_ends_in_order(engine: RunningEngine, caller: Caller) -> None:
    execution_id = start_chain(caller)
    engine.temporal("cancel", f"default/{execution_id}")
    assert_cancelled(caller, execution_id)
    assert engine.replays("default", execution_id)


def test_termination_in_temporal_reaches_the_read_model(engine: RunningEngine, caller: Caller) -> None:
    execution_id = start_chain(caller)
    engine.temporal("terminate", f"default/{execution_id}", "--reason", "by hand")
    caller.until_status(execution_id, "cancelled")
    assert status_changes(caller.events(execution_id))[-1] == "cancelled"
    assert caller.status(execution_id)["completed_at"] is not None


@pytest.mark.parametrize("paused_before", [False, True])
@pytest.mark.parametrize("transport", ["json-rpc", "rest"])
def test_the_api_cancels_and_says_so_once_it_is_done(caller: Caller, transport: str, paused_before: bool) -> None:
    execution_id = start_chain(caller)
    if paused_before:
        caller.rpc("workflow.pause", execution_id=execution_id)
    if transport == "rest":
        response = caller.rest("POST", f"/executions/{execution_id}/cancel")
        assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    else:
        assert caller.rpc("workflow.cancel", execution_id=execution_id)["status"] == "cancelled"
    assert_cancelled(caller, execution_id)


def assert_cancelled(caller: Caller, execution_id: str) -> None:
    status = caller.until_status(execution_id, "cancelled")
    states = set(status["task_states"].values())
    assert states <= {"completed", "cancelled", "skipped"}, states
    assert status["completed_at"] is not None
    events = caller.events(execution_id)
    assert_sound(events, CHAIN)
    assert status_changes(events)[-1] == "cancelled"
    assert "t5" not in successes(events)


def refusal(caller: Caller, method: str, **params: Any) -> int:
    with pytest.raises(Refused) as refused:
        caller.rpc(method, **params)
    code: int = refused.value.code
    return code


def test_what_the_present_state_forbids_is_refused(caller: Caller) -> None:
    execution_id = start_chain(caller)
    assert refusal(caller, "workflow.resume", execution_id=execution_id) == -32007
    caller.rpc("workflow.pause", execution_id=execution_id)
    assert refusal(caller, "workflow.pause", execution_id=execution_id) == -32007
    unknown = "00000000-0000-4000-8000-000000000000"
    assert refusal(caller, "workflow.resume", execution_id=execution_id, checkpoint_id=unknown) == -32008
    assert caller.status(execution_id)["status"] == "paused"
    caller.rpc("workflow.cancel", execution_id=execution_id)
    for method in ("pause", "resume", "cancel"):
        assert refusal(caller, f"workflow.{method}", execution_id=execution_id) == -32007
        assert caller.rest("POST", f"/executions/{execution_id}/{method}").status_code == 409
        assert refusal(caller, f"workflow.{method}", execution_id=unknown) == -32003
        assert caller.rest("POST", f"/executions/{unknown}/{method}").status_code == 404


def test_a_pause_repeated_with_its_key_names_the_same_checkpoint(caller: Caller) -> None:
    execution_id = start_chain(caller)
    first = caller.rpc("workflow.pause", execution_id=execution_id, idempotency_key="once")
    again = caller.rpc("workflow.pause", execution_id=execution_id, idempotency_key="once")
    assert again == first
    assert len(caller.checkpoints(execution_id)) == 1
    caller.rpc("workflow.cancel", execution_id=execution_id)
