from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from orchestration_agent.board import Attempt, Board
from orchestration_agent.wire import Entry, Key, decode_entry


def entry(execution_id: str = "x", **fields: Any) -> Entry:
    document = {"v": 1, "execution_id": execution_id, "reply_to": "in", **fields}
    return decode_entry({b"b": orjson.dumps(document)})


def assignment(task_id: str, attempt: int = 1, agent_id: str = "w-1") -> dict[str, object]:
    return {"task_id": task_id, "agent_id": agent_id, "epoch": 1, "attempt": attempt}


def started(board: Board) -> list[str]:
    return [attempt.key.task_id for attempt in board.ready()]


def test_an_agent_runs_as_many_tasks_as_it_has_slots_and_the_rest_waits_in_order() -> None:
    board = Board(2)
    board.take([entry(assign=[assignment(t) for t in "abcd"])], 0.0)
    running = board.ready()
    assert [a.key.task_id for a in running] == ["a", "b"]
    assert (board.running, board.queued) == (2, 2)
    board.ended(running[1])
    board.release(running[1])
    assert started(board) == ["c"]


def test_agents_do_not_share_slots() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), assignment("b", agent_id="w-2"), assignment("c")])], 0.0)
    assert started(board) == ["a", "b"]


def test_a_slot_is_freed_once() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), assignment("b"), assignment("c")])], 0.0)
    (first,) = board.ready()
    board.release(first)
    board.release(first)
    assert started(board) == ["b"]


def test_an_attempt_that_it_has_had_is_not_started_again() -> None:
    board = Board(8)
    again = entry(assign=[assignment("a")])
    board.take([again], 0.0)
    assert not board.take([again], 0.0).again_running  # still queued: nothing to report
    (attempt,) = board.ready()
    assert board.take([again], 0.0).again_running == [attempt]
    board.ended(attempt)
    board.release(attempt)
    assert board.take([again], 0.0).again_done == [Key("x", "a", 1, 1)]
    assert started(board) == []


def test_a_later_attempt_of_the_same_task_is_new() -> None:
    board = Board(8)
    board.take([entry(assign=[assignment("a"), assignment("a", attempt=2)])], 0.0)
    assert started(board) == ["a", "a"]


def test_a_cancellation_in_the_same_read_prevents_the_start() -> None:
    board = Board(8)
    board.take([entry(assign=[assignment("a"), assignment("b")]), entry(cancel=[["a", 1, 1]])], 0.0)
    assert started(board) == ["b"]


def test_a_cancellation_that_comes_first_prevents_a_later_start() -> None:
    board = Board(8)
    changes = board.take([entry(cancel=[["a", 1, 1]])], 0.0)
    assert changes.dropped_results == [Key("x", "a", 1, 1)]
    board.take([entry(assign=[assignment("a")])], 0.0)
    assert started(board) == []


def test_a_running_attempt_that_is_cancelled_is_to_be_stopped_and_keeps_its_slot_until_then() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), assignment("b")])], 0.0)
    (attempt,) = board.ready()
    assert board.take([entry(cancel=[["a", 1, 1]])], 0.0).stopped == [attempt]
    assert not attempt.wanted
    assert started(board) == []
    board.release(attempt)
    assert started(board) == ["b"]


def test_a_pause_gives_back_what_has_not_started_and_what_still_comes() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), assignment("b")])], 0.0)
    board.ready()
    assert [a.key.task_id for a in board.take([entry(control="pause")], 0.0).returned] == ["b"]
    assert [a.key.task_id for a in board.take([entry(assign=[assignment("c")])], 0.0).returned] == ["c"]


def test_a_pause_in_the_same_read_comes_before_its_assignments() -> None:
    board = Board(8)
    changes = board.take([entry(assign=[assignment("a")]), entry(control="pause")], 0.0)
    assert [a.key.task_id for a in changes.returned] == ["a"]
    assert started(board) == []


def test_the_last_control_of_a_read_counts() -> None:
    board = Board(8)
    changes = board.take([entry(assign=[assignment("a")], control="pause"), entry(control="run")], 0.0)
    assert not changes.returned
    assert started(board) == ["a"]


def test_what_was_given_back_may_come_again() -> None:
    board = Board(8)
    board.take([entry(assign=[assignment("a")], control="pause")], 0.0)
    board.take([entry(control="run")], 0.0)
    board.take([entry(assign=[assignment("a")])], 0.0)
    assert started(board) == ["a"]


def test_a_pause_of_one_execution_leaves_the_others_alone() -> None:
    board = Board(8)
    board.take([entry("x", control="pause"), entry("y", assign=[assignment("a")])], 0.0)
    assert started(board) == ["a"]


def test_cancelling_an_execution_stops_all_of_it() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), assignment("b")])], 0.0)
    (running,) = board.ready()
    changes = board.take([entry(control="cancel")], 0.0)
    assert changes.stopped == [running]
    assert changes.cancelled_executions == ["x"]
    board.release(running)
    assert started(board) == []


def test_a_closing_host_gives_everything_back() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), assignment("b")])], 0.0)
    board.ready()
    board.closing = True
    assert [a.key.task_id for a in board.give_back_all()] == ["b"]
    assert [a.key.task_id for a in board.take([entry(assign=[assignment("c")])], 0.0).returned] == ["c"]


def test_a_host_that_was_given_up_forgets_everything_and_reports_nothing() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), assignment("b")])], 0.0)
    (running,) = board.ready()
    assert board.abandon() == [running]
    assert not running.wanted
    assert board.remembered == 0
    assert started(board) == []
    board.release(running)
    assert board.running == 0


def test_idle_executions_are_forgotten_after_a_while() -> None:
    board = Board(8, expiry_seconds=10)
    board.take([entry("old", assign=[assignment("a")])], 0.0)
    for attempt in board.ready():
        board.ended(attempt)
        board.release(attempt)
    board.take([entry("new")], 11.0)
    assert board.remembered == 0


def test_memory_is_bounded_and_the_longest_idle_execution_goes_first_but_none_that_has_work() -> None:
    board = Board(1, remembered_max=3)
    board.take([entry("busy", assign=[assignment("a")])], 0.0)
    board.take([entry("idle", cancel=[["b", 1, 1], ["c", 1, 1]])], 1.0)
    board.take([entry("late", cancel=[["d", 1, 1]])], 2.0)
    assert board.remembered == 2
    board.take([entry("idle", assign=[assignment("b")])], 3.0)
    assert sorted(started(board)) == ["a", "b"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("assign"), st.sampled_from("abcd"), st.integers(1, 3), st.sampled_from(["w-1", "w-2"])),
            st.tuples(st.just("cancel"), st.sampled_from("abcd"), st.integers(1, 3), st.none()),
            st.tuples(st.just("control"), st.sampled_from(["run", "pause", "cancel"]), st.none(), st.none()),
            st.tuples(st.just("end"), st.none(), st.none(), st.none()),
        ),
        max_size=40,
    ),
    st.integers(1, 2),
)
def test_no_attempt_starts_twice_unless_given_back_and_no_agent_exceeds_its_slots(steps: list[Any], slots: int) -> None:
    board = Board(slots)
    running: list[Attempt] = []
    may_start: dict[Key, int] = {}
    for kind, what, attempt, agent_id in steps:
        document: dict[str, Any] = {}
        if kind == "assign":
            document = {"assign": [assignment(what, attempt, agent_id)]}
            may_start.setdefault(Key("x", what, 1, attempt), 1)
        elif kind == "cancel":
            document = {"cancel": [[what, 1, attempt]]}
        elif kind == "control":
            document = {"control": what}
        elif running:
            done = running.pop(0)
            board.ended(done)
            board.release(done)
        changes = board.take([entry(**document)], 0.0)
        for returned in changes.returned:
            may_start[returned.key] = 1
        for begun in board.ready():
            assert may_start[begun.key] == 1
            may_start[begun.key] = 0
            running.append(begun)
        for agent in {a.agent for a in running}:
            assert sum(a.agent is agent for a in running) == agent.running <= slots
    assert board.running == len(running)
