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


def chained(task_id: str, after: str, attempt: int = 1, agent_id: str = "w-1") -> dict[str, object]:
    return {**assignment(task_id, attempt, agent_id), "after": [after]}


def names(attempts: list[Attempt]) -> list[str]:
    return [attempt.key.task_id for attempt in attempts]


def finish(board: Board, attempt: Attempt, result: bytes | None = b"1") -> list[str]:
    returned = board.ended(attempt, result)
    board.release(attempt)
    return names(returned)


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


def test_a_chain_takes_one_slot_and_goes_on_before_what_waits_with_its_predecessors_result() -> None:
    board = Board(2)
    board.take([entry(assign=[assignment("a"), chained("b", "a"), chained("c", "b"), assignment("x")])], 0.0)
    board.take([entry(assign=[assignment("y")])], 0.0)
    first, other = board.ready()
    assert names([first, other]) == ["a", "x"]
    assert finish(board, first, b'{"n": 1}') == []
    (second,) = board.ready()
    assert (second.key.task_id, second.inherited) == ("b", {"a": b'{"n": 1}'})
    assert (board.running, board.queued) == (2, 2)
    finish(board, second)
    assert started(board) == ["c"]
    finish(board, other)
    assert started(board) == ["y"]


def test_a_chain_goes_on_only_when_the_slot_of_its_predecessor_is_free() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), chained("b", "a")])], 0.0)
    (first,) = board.ready()
    board.ended(first, b"1")
    assert started(board) == []
    board.release(first)
    assert started(board) == ["b"]


def test_a_chain_may_come_in_several_entries() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a")])], 0.0)
    (first,) = board.ready()
    board.take([entry(assign=[chained("b", "a")]), entry(assign=[chained("c", "b")])], 0.0)
    finish(board, first)
    (second,) = board.ready()
    finish(board, second)
    assert started(board) == ["c"]


def test_what_waits_behind_a_failure_is_given_back_to_the_last_and_may_come_again() -> None:
    board = Board(1)
    chain = [assignment("a"), chained("b", "a"), chained("c", "b"), chained("d", "c")]
    board.take([entry(assign=chain)], 0.0)
    (first,) = board.ready()
    assert finish(board, first, None) == ["b", "c", "d"]
    assert (board.queued, board.remembered) == (0, 1)
    board.take([entry(assign=[assignment("b"), chained("c", "b")])], 0.0)
    (again,) = board.ready()
    finish(board, again)
    assert started(board) == ["c"]


def test_what_waits_behind_a_cancelled_attempt_is_given_back_unless_it_is_cancelled_as_well() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), chained("b", "a"), chained("c", "b"), chained("d", "c")])], 0.0)
    changes = board.take([entry(cancel=[["a", 1, 1], ["b", 1, 1]])], 0.0)
    assert names(changes.returned) == ["c", "d"]
    assert (started(board), board.queued) == ([], 0)


def test_cancelling_in_the_middle_leaves_the_beginning_of_a_chain() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), chained("b", "a"), chained("c", "b")])], 0.0)
    (first,) = board.ready()
    assert names(board.take([entry(cancel=[["b", 1, 1]])], 0.0).returned) == ["c"]
    assert finish(board, first) == []
    assert started(board) == []


def test_cancelling_an_execution_gives_nothing_of_its_chains_back() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), chained("b", "a"), chained("c", "b")])], 0.0)
    (first,) = board.ready()
    changes = board.take([entry(control="cancel")], 0.0)
    assert (changes.stopped, changes.returned, board.queued) == ([first], [], 0)
    assert finish(board, first) == []


def test_a_pause_stops_between_the_tasks_of_a_chain() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), chained("b", "a"), chained("c", "b")])], 0.0)
    (first,) = board.ready()
    assert names(board.take([entry(control="pause")], 0.0).returned) == ["b", "c"]
    assert finish(board, first) == []
    assert started(board) == []


def test_a_host_that_closes_gives_the_rest_of_its_chains_back() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), chained("b", "a")])], 0.0)
    board.ready()
    board.closing = True
    assert names(board.give_back_all()) == ["b"]


def test_an_unknown_predecessor_gives_the_task_back() -> None:
    board = Board(1)
    changes = board.take([entry(assign=[chained("c", "nobody"), chained("d", "c")])], 0.0)
    assert names(changes.returned) == ["c", "d"]
    assert board.remembered == 0


def test_what_waits_behind_tasks_of_several_agents_starts_after_the_last_with_the_results_of_all() -> None:
    board = Board(1)
    join = {**assignment("join", agent_id="w-3"), "after": ["a", "b"]}
    board.take([entry(assign=[assignment("a"), assignment("b", agent_id="w-2"), join])], 0.0)
    first, second = board.ready()
    finish(board, first, b"1")
    assert board.ready() == []
    finish(board, second, b"2")
    (third,) = board.ready()
    assert (third.key.task_id, third.inherited) == ("join", {"a": b"1", "b": b"2"})


def test_what_waits_behind_several_is_given_back_once_when_one_of_them_fails() -> None:
    board = Board(2)
    join = {**assignment("join"), "after": ["a", "b"]}
    board.take([entry(assign=[assignment("a"), assignment("b"), join, chained("end", "join")])], 0.0)
    first, second = board.ready()
    assert names(board.ended(first)) == ["join", "end"]
    assert board.ended(second, b"2") == []
    board.release(first)
    board.release(second)
    assert (board.ready(), board.queued) == ([], 0)


def test_a_predecessor_that_has_ended_gives_its_kept_result_or_the_task_goes_back() -> None:
    kept = {Key("x", "a", 1, 2): b"7"}
    board = Board(1, kept_result=kept.get)
    board.take([entry(assign=[assignment("a", attempt=2)])], 0.0)
    (first,) = board.ready()
    finish(board, first, b"7")
    board.take([entry(assign=[chained("b", "a")])], 0.0)
    (second,) = board.ready()
    assert second.inherited == {"a": b"7"}
    kept.clear()  # consumed
    assert names(board.take([entry(assign=[chained("c", "a")])], 0.0).returned) == ["c"]


def test_a_chain_that_comes_again_is_not_done_again() -> None:
    board = Board(1)
    again = entry(assign=[assignment("a"), chained("b", "a")])
    board.take([again], 0.0)
    (first,) = board.ready()
    changes = board.take([again], 0.0)
    assert (changes.again_running, changes.returned) == ([first], [])
    finish(board, first)
    assert started(board) == ["b"]
    assert board.take([again], 0.0).again_done == [first.key]


def test_a_host_that_was_given_up_forgets_its_chains() -> None:
    board = Board(1)
    board.take([entry(assign=[assignment("a"), chained("b", "a")])], 0.0)
    (first,) = board.ready()
    board.abandon()
    assert finish(board, first) == []
    assert started(board) == []


def test_agents_take_turns() -> None:
    board = Board(2)
    board.take([entry(assign=[assignment(t, agent_id=w) for w in ("w-1", "w-2") for t in "ab"])], 0.0)
    board.take([entry("y", assign=[assignment("z")])], 0.0)
    assert started(board) == ["a", "z", "b"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["assign", "complete", "fail", "cancel", "pause", "run"]),
            st.integers(0, 4),
            st.integers(1, 2),
        ),
        max_size=40,
    ),
    st.integers(1, 2),
)
def test_every_task_of_a_chain_starts_after_its_predecessor_completed_or_is_given_back_or_cancelled(
    steps: list[tuple[str, int, int]], slots: int
) -> None:
    """Task n follows task n-1; a result is kept for ever, so that the last completed attempt always counts."""
    results: dict[Key, bytes] = {}
    board = Board(slots, kept_result=results.get)
    running: list[Attempt] = []
    there: set[Key] = set()
    for kind, number, attempt in steps:
        document: dict[str, Any] = {}
        returned: list[Attempt] = []
        key = Key("x", f"t{number}", 1, attempt)
        if kind == "assign":
            item = assignment(key.task_id, attempt)
            document = {"assign": [{**item, "after": [f"t{number - 1}"]} if number else item]}
            there.add(key)
        elif kind == "cancel":
            document = {"cancel": [[key.task_id, 1, attempt]]}
            there.discard(key)
        elif kind in ("pause", "run"):
            document = {"control": kind}
        elif running:
            done = running.pop(number % len(running))
            result = done.key.task_id.encode() if kind == "complete" and done.wanted else None
            if result is not None:
                results[done.key] = result
            returned = board.ended(done, result)
            board.release(done)
            there.discard(done.key)
        returned += board.take([entry(**document)], 0.0).returned
        assert len({a.key for a in returned}) == len(returned)
        there -= {a.key for a in returned}
        for begun in board.ready():
            if begun.key.task_id != "t0":
                before = f"t{int(begun.key.task_id[1]) - 1}"
                assert begun.inherited == {before: before.encode()}
            running.append(begun)
        there_now = {a.key for a in _open(board)}
        assert there_now <= there
    assert board.running == len(running)
    assert board.queued == len({a.key for a in _open(board) if not a.running})


def _open(board: Board) -> list[Attempt]:
    return [a for e in board._executions.values() for a in e.attempts.values() if a is not None]


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
