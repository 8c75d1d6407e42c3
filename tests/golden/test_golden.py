"""Every golden history replays against the present code; and a changed decision is noticed."""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory

from engine.temporal.connection import DATA_CONVERTER
from workflows.replay import replay_history

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def load(path: Path) -> WorkflowHistory:
    document = json.loads(path.read_text())
    return WorkflowHistory.from_json(document["workflow_id"], document["history"])


def test_there_are_histories() -> None:
    assert len(HISTORIES) >= 8


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_the_present_code_replays_what_was_recorded(path: Path) -> None:
    replayed = await replay_history(load(path), DATA_CONVERTER)
    assert replayed.failure is None
    assert replayed.ok


async def test_a_history_that_the_code_would_not_have_made_is_noticed() -> None:
    """Its timer is gone: the code asks for one where the history goes on without."""
    document = json.loads(next(path for path in HISTORIES if "timed_out" in path.stem).read_text())
    events = document["history"]["events"]
    timer = next(event for event in events if event["eventType"] == "EVENT_TYPE_TIMER_STARTED")
    timer["eventType"] = "EVENT_TYPE_ACTIVITY_TASK_SCHEDULED"
    del timer["timerStartedEventAttributes"]
    timer["activityTaskScheduledEventAttributes"] = {"activityId": "1", "activityType": {"name": "something_else"}}
    history = WorkflowHistory.from_json(document["workflow_id"], document["history"])
    replayed = await replay_history(history, DATA_CONVERTER)
    assert replayed.failure is not None
    assert not replayed.ok
