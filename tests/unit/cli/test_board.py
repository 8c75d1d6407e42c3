from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cli.board import Board
from tests.unit.cli.fake_engine import EXECUTION_ID, status_of

TASKS = ("a", "b", "c")


def message(kind: str, at: str = "2026-01-01T00:00:00Z", **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": {"execution_id": EXECUTION_ID, "timestamp": at, **data}, "timestamp": at}


def assigned(task_id: str, at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return message("agent.task_assigned", at, task_id=task_id, agent_id="worker-1", dependencies=[])


def completed(task_id: str, at: str = "2026-01-01T00:00:02.5Z", **data: Any) -> dict[str, Any]:
    return message("task.completed", at, task_id=task_id, agent_id="worker-1", result={}, **data)


def test_a_task_runs_from_its_assignment_to_its_completion() -> None:
    board = Board(EXECUTION_ID)
    assert board.take_message(assigned("a")) == "a assigned to worker-1"
    assert board.tasks["a"].state == "running"
    assert board.tasks["a"].seconds(datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)) == 1.0
    assert board.take_message(completed("a")) == "a completed in 2.50 s by worker-1"
    assert board.counts() == {"completed": 1}


def test_a_second_assignment_is_told_as_another_attempt() -> None:
    board = Board(EXECUTION_ID)
    board.take_message(assigned("a"))
    assert board.take_message(assigned("a")) == "a assigned to worker-1 (attempt 2)"


def test_a_completion_that_says_failed_is_a_failure() -> None:
    board = Board(EXECUTION_ID)
    board.take_message(completed("a", status="failed"))
    assert board.tasks["a"].state == "failed"


def test_the_beginning_is_old_news_once_a_snapshot_says_more() -> None:
    board = Board(EXECUTION_ID)
    board.take_snapshot(status_of("executing", a="running"))
    assert board.take_message(message("workflow.status_changed", previous_status=None, new_status="planning")) is None
    assert board.status == "executing"


def test_progress_after_the_end_is_late_and_says_nothing() -> None:
    board = Board(EXECUTION_ID)
    assert board.take_message(message("task.progress_update", task_id="a", progress=0.5)) == "a 50%"
    board.take_message(completed("a"))
    assert board.take_message(message("task.progress_update", task_id="a", progress=0.9)) is None
    assert board.tasks["a"].progress == 1.0


def test_an_error_is_kept_with_its_task() -> None:
    board = Board(EXECUTION_ID)
    line = board.take_message(message("error.occurred", task_id="a", error_type="boom", error_message="no"))
    assert line == "a boom: no"
    assert board.tasks["a"].error == "boom: no"
    assert board.take_message(message("error.occurred", error_type="stall", error_message="x")) == "stall: x"


def test_a_status_told_twice_is_news_once() -> None:
    board = Board(EXECUTION_ID)
    change = message("workflow.status_changed", previous_status="planning", new_status="executing")
    assert board.take_message(change) == "planning -> executing"
    assert board.take_message(change) is None


def test_checkpoints_and_hooks_are_told_and_unknown_messages_are_not() -> None:
    board = Board(EXECUTION_ID)
    assert board.take_message(message("checkpoint.created", checkpoint_id="c1")) == "checkpoint c1"
    assert board.take_message(message("hook.executed", hook_name="h", status="failed")) == "hook h failed"
    assert board.take_message(message("something.new")) is None
    assert board.checkpoints == 1


def test_a_message_without_a_usable_time_is_still_taken() -> None:
    board = Board(EXECUTION_ID)
    board.take_message({"type": "agent.task_assigned", "data": {"task_id": "a"}})
    board.take_message({"type": "task.completed", "data": {"task_id": "a"}, "timestamp": "yesterday"})
    assert board.tasks["a"].state == "completed"


def test_a_snapshot_names_the_agent_of_a_running_task_and_the_error() -> None:
    board = Board(EXECUTION_ID)
    view = status_of("failed", a="running") | {
        "agents": [{"agent_id": "w1", "current_task": "a"}, {"agent_id": "w2", "current_task": None}],
        "error_details": {"error_code": "STALLED"},
    }
    board.take_snapshot(view)
    assert board.tasks["a"].agent_id == "w1"
    assert board.closed
    assert board.error == {"error_code": "STALLED"}


MESSAGES = st.one_of(
    st.sampled_from(TASKS).map(assigned),
    st.sampled_from(TASKS).map(completed),
    st.sampled_from(TASKS).map(lambda task: message("task.progress_update", task_id=task, progress=0.5)),
    st.sampled_from(TASKS).map(lambda task: message("error.occurred", task_id=task)),
    st.sampled_from(["executing", "paused", "completed"]).map(
        lambda status: message("workflow.status_changed", new_status=status)
    ),
)


@given(st.lists(MESSAGES), st.dictionaries(st.sampled_from(TASKS), st.sampled_from(["pending", "completed", "failed"])))
def test_after_any_messages_a_snapshot_decides(messages: list[dict[str, Any]], states: dict[str, str]) -> None:
    board = Board(EXECUTION_ID)
    for each in messages:
        board.take_message(each)
    board.take_snapshot(status_of("completed", **states))
    assert {task_id: board.tasks[task_id].state for task_id in states} == states
    assert board.status == "completed"
