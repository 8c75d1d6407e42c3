"""Programs of the coordination language, state by state, on the kernel."""

from typing import Any

import pytest

import workflows.kernel.desk
from engine.contracts.execution import ExecutionStatus
from engine.contracts.limits import EXPRESSION_STEPS_MAX
from tests.unit.workflows.drill import task
from tests.unit.workflows.stage import Broken, Call, Stage
from workflows.kernel.state import Phase

DONE = {"end": {"do": "finish"}}


def program(start: str, states: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"start": start, "states": states, **more}


def answering(value: Any = None) -> Any:
    return lambda call: value


def test_work_is_given_to_an_agent_and_its_result_is_the_tasks() -> None:
    logic = program("ask", {
        "ask": {"do": "assign", "action": "'look'", "input": "{of: task.id}", "save": "seen", "next": "end"},
        "end": {"do": "finish", "result": "{seen: seen}"},
    })  # fmt: skip
    stage = Stage(logic, lambda call: {"action": call.action, **call.input})
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == {"seen": {"action": "look", "of": "t"}}
    assert stage.state.board == {}, "nothing is remembered of what is over"


def test_the_tasks_own_work_is_done_by_its_agent_and_accepted_as_it_is() -> None:
    logic = program("ask", {"ask": {"do": "assign", "own": True, "next": "end"}, **DONE})
    stage = Stage(logic, answering("own"), task("a"), task("b", (0,)))
    assert stage.play() is ExecutionStatus.COMPLETED
    assert [call.task_id for call in stage.calls] == ["a", "b"]
    assert stage.audit("task.completed")[-1]["result"] == "own"


def test_own_work_is_done_again_with_a_note_until_it_is_good_enough() -> None:
    logic = program("again", {
        "again": {"do": "loop", "max": 5, "while": "draft == null or draft < 3", "body": "ask", "next": "end"},
        "ask": {"do": "assign", "own": True, "note": "{round: loops.again, last: draft}", "save": "draft",
                "next": "again"},
        "end": {"do": "finish", "result": "{draft: draft, rounds: 3}"},
    })  # fmt: skip
    stage = Stage(logic, lambda call: call.attempt)
    assert stage.play() is ExecutionStatus.COMPLETED
    assert [call.note for call in stage.calls] == [{"round": n, "last": n - 1 or None} for n in (1, 2, 3)]
    assert stage.results["t"] == {"draft": 3, "rounds": 3}


def test_a_gather_begins_all_at_once_and_takes_the_results_in_order() -> None:
    logic = program("all", {
        "all": {"do": "gather", "each": "config.parts", "action": "'part'", "input": "{n: item, at: index}",
                "save": "found", "next": "end"},
        "end": {"do": "finish", "result": "map(found, f => f.result)"},
    })  # fmt: skip
    stage = Stage(logic, lambda call: call.input["n"] * 10, config={"parts": [3, 1, 2]})
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == [30, 10, 20]
    assert len(stage.deltas[0].assigned) == 3


@pytest.mark.parametrize(("need", "good"), [("2", True), ("3", False)])
def test_a_gather_needs_so_many_that_succeed(need: str, good: bool) -> None:
    logic = program("all", {
        "all": {"do": "gather", "each": "[1, 2, 3]", "input": "{n: item}", "need": need, "save": "found",
                "next": "end", "on_failure": "bad"},
        "end": {"do": "finish", "result": "size(filter(found, f => f.ok))"},
        "bad": {"do": "finish", "outcome": "fail", "error": "error.message"},
    })  # fmt: skip

    def agent(call: Call) -> Any:
        if call.input["n"] == 2:
            raise Broken
        return "ok"

    stage = Stage(logic, agent)
    assert stage.play() is (ExecutionStatus.COMPLETED if good else ExecutionStatus.FAILED)
    if good:
        assert stage.results["t"] == 2
    else:
        code, message = stage.failures["t"]
        assert code == "PATTERN_FAILED"
        assert message.startswith("2 of 3 succeeded, 3 are needed")


def test_an_empty_list_of_work_is_done_at_once() -> None:
    logic = program("all", {"all": {"do": "gather", "each": "[]", "save": "found", "next": "end"},
                            "end": {"do": "finish", "result": "found"}})  # fmt: skip
    stage = Stage(logic, answering())
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == []


def test_what_a_gather_waits_for_no_longer_is_dropped() -> None:
    logic = program("all", {
        "all": {"do": "gather", "each": "[1, 2]", "need": "1", "input": "{n: item}", "wait_seconds": 60,
                "save": "found", "next": "end"},
        "end": {"do": "finish", "result": "size(filter(found, f => f.ok))"},
    })  # fmt: skip
    stage = Stage(logic, answering())
    stage.tick()
    first, second = stage.in_flight()
    stage.receive(stage.completed(first, "ok"))
    stage.tick()
    assert stage.state.status is ExecutionStatus.COMPLETED
    assert stage.phase(second.task_id) is Phase.CANCELLED
    assert stage.state.board == {}


def test_a_gather_gives_up_after_its_time_and_paused_time_does_not_count() -> None:
    logic = program("all", {
        "all": {"do": "gather", "each": "[1]", "wait_seconds": 10, "next": "end"},
        **DONE,
    })  # fmt: skip
    stage = Stage(logic, answering())
    stage.tick()
    stage.receive(stage.started(stage.in_flight()[0]))
    stage.control("pause")
    stage.tick(after_ms=1_000)
    stage.control("resume")
    stage.tick(after_ms=20_000)
    assert not stage.state.closed
    stage.tick(after_ms=9_500)
    assert stage.state.status is ExecutionStatus.FAILED
    assert stage.deltas[-1].error is not None
    assert stage.deltas[-1].error.details["code"] == "TOO_FEW_SUCCEEDED"


def test_spawned_work_runs_beside_what_comes_next_and_is_gathered_later() -> None:
    logic = program("fork", {
        "fork": {"do": "spawn", "each": "['x', 'y']", "group": "side", "input": "{n: item}", "next": "main"},
        "main": {"do": "assign", "save": "own", "next": "join"},
        "join": {"do": "gather", "group": "side", "save": "rest", "next": "end"},
        "end": {"do": "finish", "result": "[own] + map(rest, r => r.result)"},
    })  # fmt: skip
    stage = Stage(logic, lambda call: call.input.get("n", "main"))
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == ["main", "x", "y"]
    assert len(stage.deltas[0].assigned) == 3


def test_a_vote_is_counted_by_the_rule_and_kept() -> None:
    logic = program("poll", {
        "poll": {"do": "vote", "choice": "ballot.vote", "save": "poll", "decided": "end", "undecided": "none"},
        "end": {"do": "finish", "result": "{decision: poll.decision, votes: poll.votes}"},
        "none": {"do": "finish", "outcome": "fail"},
    })  # fmt: skip
    stage = Stage(logic, lambda call: {"vote": "tea" if call.agent_id != "worker-2" else "coffee"})
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == {
        "decision": "tea", "votes": {"worker-1": "tea", "worker-2": "coffee", "worker-3": "tea"}
    }  # fmt: skip
    (counted,) = stage.audit("vote.counted")
    assert counted["votes"] == stage.results["t"]["votes"]


def test_no_decision_is_made_below_the_threshold_and_what_is_no_vote_is_refused() -> None:
    logic = program("poll", {
        "poll": {"do": "vote", "count": {"rule": "unanimous"}, "decided": "end", "undecided": "none"},
        "none": {"do": "finish", "result": "'open'"}, **DONE,
    })  # fmt: skip
    stage = Stage(logic, lambda call: {"no": "vote"} if call.agent_id == "worker-2" else "yes")
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == "open"
    assert [item["agent_id"] for item in stage.audit("vote.refused")] == ["worker-2"]


def test_a_failure_is_escalated_with_what_went_wrong() -> None:
    logic = program("try", {
        "try": {"do": "assign", "action": "'try'", "attempts": 1, "save": "done", "next": "end", "on_failure": "up"},
        "up": {"do": "escalate", "role": "'lead'", "save": "done", "next": "end"},
        "end": {"do": "finish", "result": "done"},
    })  # fmt: skip

    def agent(call: Call) -> Any:
        if call.action == "try":
            raise Broken
        return call.input["error"]["code"]

    stage = Stage(logic, agent, task("t"), task("l", role="lead"), on_failure="finish_branches")
    stage.play()
    assert stage.results["t"] == "BROKEN"
    assert stage.audit("escalation.raised")[0]["to_role"] == "lead"


def test_what_was_done_is_undone_the_last_first_and_what_cannot_be_is_named() -> None:
    logic = program("one", {
        "one": {"do": "assign", "action": "'book'", "input": "{n: 1}", "undo": "'unbook'", "next": "two"},
        "two": {"do": "assign", "action": "'book'", "input": "{n: 2}", "undo": "'unbook'", "next": "three"},
        "three": {"do": "assign", "action": "'book'", "input": "{n: 3}", "undo": "'unbook'", "next": "end",
                  "on_failure": "back"},
        "back": {"do": "compensate", "save": "undone", "next": "sorry"},
        "sorry": {"do": "finish", "outcome": "fail", "error": "error.message"}, **DONE,
    })  # fmt: skip

    def agent(call: Call) -> Any:
        if call.input.get("n") == 3 or (call.action == "unbook" and call.input["input"]["n"] == 2):
            raise Broken
        return call.input.get("n")

    stage = Stage(logic, agent)
    assert stage.play() is ExecutionStatus.FAILED
    undone = [call for call in stage.calls if call.action == "unbook"]
    assert [call.input["input"]["n"] for call in undone] == [2, 1]
    assert undone[1].input["result"] == 1


def test_a_route_takes_the_first_case_that_holds_and_variables_change_together() -> None:
    logic = program("swap", {
        "swap": {"do": "set", "values": {"a": "b", "b": "a"}, "next": "which"},
        "which": {"do": "route", "cases": [{"when": "a == 1", "next": "bad"}, {"when": "a == 2", "next": "end"}],
                  "otherwise": "bad"},
        "end": {"do": "finish", "result": "[a, b]"}, "bad": {"do": "finish", "outcome": "fail"},
    }, variables={"a": 1, "b": 2})  # fmt: skip
    stage = Stage(logic, answering())
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == [2, 1]
    assert stage.calls == []


def test_a_loop_ends_at_its_bound_and_begins_anew_when_it_is_entered_again() -> None:
    logic = program("outer", {
        "outer": {"do": "loop", "max": 2, "body": "inner", "next": "end"},
        "inner": {"do": "loop", "max": 3, "body": "count", "next": "outer"},
        "count": {"do": "set", "values": {"n": "n + 1"}, "next": "inner"},
        "end": {"do": "finish", "result": "n"},
    }, variables={"n": 0})  # fmt: skip
    stage = Stage(logic, answering())
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == 6


def test_a_program_that_takes_too_many_steps_is_stopped_with_its_limit() -> None:
    states = {
        "a": {"do": "loop", "max": 1000, "body": "b", "next": "end"},
        "b": {"do": "loop", "max": 1000, "body": "c", "next": "a"},
        "c": {"do": "loop", "max": 1000, "body": "d", "next": "b"},
        "d": {"do": "set", "values": {"n": "1"}, "next": "c"}, **DONE,
    }  # fmt: skip
    stage = Stage(program("a", states, steps_max=5_000), answering())
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.failures["t"][0] == "PATTERN_STEPS_EXCEEDED"
    assert len(stage.deltas) > 5_000 // 500, "a tick takes a bounded number of states"


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("config.n + 'x'", "EXPRESSION_TYPE"),
        ("1 / (config.n - 1)", "EXPRESSION_DIVISION"),
        ("sum(map(range(90000), x => x * 2))", "EXPRESSION_TOO_LONG"),
        ("map(range(5000), x => 'something long')", "VALUE_TOO_LARGE"),
    ],
)
def test_an_expression_that_cannot_be_evaluated_fails_its_task_and_says_where(expression: str, code: str) -> None:
    logic = program("try", {"try": {"do": "set", "values": {"v": expression}, "next": "end"}, **DONE})
    stage = Stage(logic, answering(), config={"n": 1})
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.failures["t"][0] == code
    assert stage.failures["t"][1].startswith("state try of the pattern: ")
    assert EXPRESSION_STEPS_MAX >= 50_000


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"agent": "'nobody'"}, "UNKNOWN_AGENT"),
        ({"role": "'nobody'"}, "UNKNOWN_AGENT_ROLE"),
        ({"role": "config.n"}, "EXPRESSION_TYPE"),
        ({"input": "config.n"}, "EXPRESSION_TYPE"),
        ({"undo": "config.n"}, "EXPRESSION_TYPE"),
    ],
)
def test_work_that_nobody_could_do_fails_the_task(fields: dict[str, str], code: str) -> None:
    logic = program("try", {"try": {"do": "assign", "next": "end", **fields}, **DONE})
    stage = Stage(logic, answering(), config={"n": 1})
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.failures["t"][0] == code


def test_a_result_by_reference_is_a_failure_that_the_program_sees() -> None:
    logic = program("try", {
        "try": {"do": "assign", "save": "x", "next": "end", "on_failure": "big"},
        "big": {"do": "finish", "result": "error.code"}, **DONE,
    })  # fmt: skip
    stage = Stage(logic, answering())
    stage.tick()
    (attempt,) = stage.in_flight()
    stage.receive(stage.completed(attempt).model_copy(update={"result": None, "result_ref": "sha"}))
    decision = stage.tick()
    assert [r.result for r in decision.results if r.task_id == "t"] == ["RESULT_TOO_LARGE_FOR_PATTERN"]


def test_tasks_that_the_pattern_does_not_handle_just_run() -> None:
    logic = program("no", {"no": {"do": "finish", "outcome": "fail"}}, handles="task.role == 'judge'")
    stage = Stage(logic, answering("plain"), task("a"), task("b", (0,)))
    assert stage.play() is ExecutionStatus.COMPLETED
    assert [call.task_id for call in stage.calls] == ["a", "b"]


def test_a_wait_for_a_time_ends_when_it_is_over() -> None:
    logic = program("rest", {"rest": {"do": "wait", "seconds": 30, "next": "end"}, **DONE})
    stage = Stage(logic, answering())
    stage.tick()
    assert stage.policy.next_due_ms(stage.state) == stage.now_ms + 30_000
    stage.tick(after_ms=29_000)
    assert not stage.state.closed
    stage.tick(after_ms=1_000)
    assert stage.state.status is ExecutionStatus.COMPLETED


def test_an_event_ends_a_wait_once_and_each_takes_its_own() -> None:
    logic = program("ring", {"ring": {"do": "wait", "event": "bell", "seconds": 60, "next": "end"}, **DONE})
    stage = Stage(logic, answering(), task("a"), task("b"))
    stage.tick()
    stage.happen("e1", "bell")
    stage.tick()
    assert [stage.phase(name) for name in "ab"] == [Phase.COMPLETED, Phase.SUBMITTED]
    stage.happen("e2", "other")
    stage.happen("e3", "bell")
    stage.tick()
    assert stage.state.status is ExecutionStatus.COMPLETED


def test_an_events_payload_is_looked_up_tested_and_saved() -> None:
    logic = program("ring", {
        "ring": {"do": "wait", "event": "bell", "when": "event.n > 1", "save": "heard", "seconds": 60, "next": "end"},
        "end": {"do": "finish", "result": "heard.n"},
    })  # fmt: skip
    stage = Stage(logic, answering())
    stage.happen("e1", "bell", {"n": 1})
    stage.happen("e2", "bell", {"n": 2})
    stage.tick()
    for event_id, n in (("e1", 1), ("e2", 2)):
        (errand,) = stage.state.errands.values()
        assert (errand.kind, errand.input) == ("program_event", {"event_id": event_id})
        stage.continue_as_new()
        stage.answer(errand.key, {"n": n})
        decision = stage.tick()
    assert stage.state.status is ExecutionStatus.COMPLETED
    assert [r.result for r in decision.results] == [2]


@pytest.mark.parametrize("answered", [True, False])
def test_a_wait_for_an_event_that_does_not_come_times_out(answered: bool) -> None:
    ring = {"do": "wait", "event": "bell", "seconds": 5, "next": "end"} | ({"on_timeout": "late"} if answered else {})
    states = {"ring": ring, "late": {"do": "finish", "result": "error.code"}, **DONE}
    if not answered:
        del states["late"]
    stage = Stage(program("ring", states), answering())
    assert stage.play() is (ExecutionStatus.COMPLETED if answered else ExecutionStatus.FAILED)
    assert stage.results.get("t") == ("EVENT_TIMEOUT" if answered else None)


def test_input_and_results_are_looked_up_once_when_the_program_reads_them() -> None:
    logic = program("all", {
        "all": {"do": "gather", "each": "input.parts + keys(results)", "input": "{n: item}", "save": "found",
                "next": "end"},
        "end": {"do": "finish", "result": "map(found, f => f.result)"},
    })  # fmt: skip
    stage = Stage(logic, lambda call: call.input["n"])
    stage.tick()
    (errand,) = stage.state.errands.values()
    assert (errand.kind, errand.task_id) == ("program_context", "t")
    stage.answer(errand.key, {"input": {"parts": ["p"]}, "results": {"before": 1}})
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == ["p", "before"]


def test_input_that_cannot_be_looked_up_fails_the_task() -> None:
    logic = program("end", {"end": {"do": "finish", "result": "input"}})
    stage = Stage(logic, answering())
    stage.tick()
    stage.answer("t/context", ok=False, code="CONTEXT_TOO_LARGE", message="too much")
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.failures["t"] == ("CONTEXT_TOO_LARGE", "input and results: too much")


def test_a_program_goes_on_in_the_next_run_and_after_going_back_it_begins_anew() -> None:
    logic = program("one", {
        "one": {"do": "assign", "input": "{n: 1}", "save": "a", "next": "two"},
        "two": {"do": "assign", "input": "{n: 2}", "save": "b", "next": "end"},
        "end": {"do": "finish", "result": "[a, b]"},
    })  # fmt: skip
    stage = Stage(logic, lambda call: call.input["n"])
    stage.step()
    stage.control("checkpoint", checkpoint_id="c")
    stage.step()
    assert stage.calls[-1].input == {"n": 2}
    stage.continue_as_new()
    stage.control("pause")
    stage.tick()
    done = [spec.id for i, spec in enumerate(stage.state.specs) if stage.state.tasks[i].phase is Phase.COMPLETED]
    stage.rewind_to("c", *[spec.id for spec in stage.state.specs if spec.id not in done], *done)
    stage.tick()
    stage.calls.clear()
    assert stage.play() is ExecutionStatus.COMPLETED
    assert [call.input["n"] for call in stage.calls] == [1, 2]
    assert stage.results["t"] == [1, 2]


def test_a_task_that_becomes_ready_when_another_ends_is_the_programs_at_once() -> None:
    logic = program("one", {"one": {"do": "assign", "action": "'work'", "next": "end"}, **DONE})
    stage = Stage(logic, answering(), task("a"), task("b", (0,)), task("c", (1,)))
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.actions() == ["work"] * 3


def test_a_chain_of_tasks_without_work_is_done_in_one_tick_and_a_long_one_in_several() -> None:
    logic = program("end", DONE)
    short = Stage(logic, answering(), *[task(f"t{n}", (n - 1,) if n else ()) for n in range(100)])
    short.tick()
    assert short.state.status is ExecutionStatus.COMPLETED
    long = Stage(logic, answering(), *[task(f"t{n}", (n - 1,) if n else ()) for n in range(1_200)])
    assert long.play() is ExecutionStatus.COMPLETED
    assert 2 < len(long.deltas) < 10


def test_variables_together_are_bounded() -> None:
    values = {f"v{n}": "map(range(1000), x => 'ten chars.')" for n in range(6)}
    logic = program("try", {"try": {"do": "set", "values": values, "next": "end"}, **DONE})
    stage = Stage(logic, answering())
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.failures["t"][0] == "VALUE_TOO_LARGE"
    assert "the variables would hold" in stage.failures["t"][1]


def test_much_input_is_given_out_over_several_ticks() -> None:
    logic = program("all", {
        "all": {"do": "gather", "each": "range(20)", "input": "{n: item, text: config.long}", "save": "found",
                "next": "end"},
        "end": {"do": "finish", "result": "map(found, f => f.result)"},
    })  # fmt: skip
    stage = Stage(logic, lambda call: call.input["n"], config={"long": "x" * 20_000}, agents=1)
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == list(range(20))
    assert 1 < len([delta for delta in stage.deltas if delta.asked]) < 10


def test_spawned_work_too_is_given_out_over_several_ticks_and_a_group_may_be_begun_anew() -> None:
    logic = program("twice", {
        "twice": {"do": "loop", "max": 2, "body": "fork", "next": "join"},
        "fork": {"do": "spawn", "each": "range(10)", "group": "g", "input": "{n: item, text: config.long}",
                 "next": "twice"},
        "join": {"do": "gather", "group": "g", "save": "found", "next": "end"},
        "end": {"do": "finish", "result": "size(found)"},
    })  # fmt: skip
    stage = Stage(logic, answering(1), config={"long": "x" * 20_000})
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == 10
    assert len([delta for delta in stage.deltas if delta.asked]) > 2


def test_voters_are_those_that_are_named_in_one_role_and_once() -> None:
    def poll(**fields: Any) -> Stage:
        logic = program("poll", {
            "poll": {"do": "vote", "save": "p", "decided": "end", "undecided": "end", **fields},
            "end": {"do": "finish", "result": "p.members"},
        })  # fmt: skip
        return Stage(logic, answering("yes"))

    some = poll(voters="[agents.worker[0], agents.worker[2]]")
    some.play()
    assert (some.results["t"], [call.agent_id for call in some.calls]) == (2, ["worker-1", "worker-3"])
    named = poll(role="'worker'")
    named.play()
    assert named.results["t"] == 3
    for fields, code in (
        ({"voters": "['worker-1', 'worker-1']"}, "VOTER_TWICE"),
        ({"voters": "[1]"}, "EXPRESSION_TYPE"),
        ({"voters": "['stranger']"}, "UNKNOWN_AGENT"),
        ({"role": "'nobody'"}, "UNKNOWN_AGENT_ROLE"),
    ):
        stage = poll(**fields)
        assert stage.play() is ExecutionStatus.FAILED
        assert stage.failures["t"][0] == code


def test_who_does_not_vote_in_time_abstains() -> None:
    logic = program("poll", {
        "poll": {"do": "vote", "wait_seconds": 10, "count": {"rule": "majority", "of": "votes"}, "save": "p",
                 "decided": "end", "undecided": "end"},
        "end": {"do": "finish", "result": "p.votes"},
    })  # fmt: skip
    stage = Stage(logic, answering())
    stage.tick()
    first = stage.in_flight()[0]
    stage.receive(stage.completed(first, "yes"))
    stage.tick()
    assert not stage.state.closed
    decision = stage.tick(after_ms=10_000)
    assert [r.result for r in decision.results] == [{"worker-1": "yes", "worker-2": None, "worker-3": None}]


def test_a_ranking_is_a_list_of_choices() -> None:
    logic = program("poll", {
        "poll": {"do": "vote", "count": {"rule": "ranked_choice"}, "save": "p", "decided": "end", "undecided": "end"},
        "end": {"do": "finish", "result": "p.decision"},
    })  # fmt: skip
    rankings = {"worker-1": ["a", "c"], "worker-2": ["b", "c"], "worker-3": ["c", "b"]}
    stage = Stage(logic, lambda call: rankings[call.agent_id])
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] in ("a", "b", "c")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"each": "config.n"}, "EXPRESSION_TYPE"),
        ({"each": "[1]", "need": "config.half"}, "EXPRESSION_TYPE"),
        ({"each": "range(1001)"}, "TOO_MUCH_WORK"),
        ({"each": "[1]", "input": "{x: map(range(7000), x => 'ten chars')}"}, "VALUE_TOO_LARGE"),
    ],
)
def test_work_that_cannot_be_begun_fails_the_task(fields: dict[str, str], code: str) -> None:
    logic = program("all", {"all": {"do": "gather", "next": "end", **fields}, **DONE})
    stage = Stage(logic, answering(), config={"n": 1, "half": 0.5})
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.failures["t"][0] == code


def test_an_execution_that_may_add_no_more_tasks_fails_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflows.kernel.desk, "TASKS_DYNAMIC_MAX", 1)
    logic = program("all", {"all": {"do": "gather", "each": "[1, 2]", "next": "end"}, **DONE})
    stage = Stage(logic, answering())
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.failures["t"][0] == "NO_ROOM"


def test_own_work_that_fails_for_good_goes_the_way_of_failures() -> None:
    logic = program("own", {
        "own": {"do": "assign", "own": True, "next": "end", "on_failure": "rescue"},
        "rescue": {"do": "assign", "action": "'rescue'", "save": "r", "next": "saved"},
        "saved": {"do": "finish", "result": "r"}, **DONE,
    })  # fmt: skip

    def agent(call: Call) -> Any:
        if call.action == "t":
            raise Broken
        return call.action

    stage = Stage(logic, agent)
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == "rescue"


def test_a_condition_must_be_one_and_handles_that_fails_handles() -> None:
    bad = program("which", {"which": {"do": "route", "cases": [{"when": "config.n", "next": "end"}],
                                      "otherwise": "end"}, **DONE})  # fmt: skip
    stage = Stage(bad, answering(), config={"n": 1})
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.failures["t"][0] == "EXPRESSION_TYPE"
    odd = Stage(program("end", DONE, handles="config.n / 0 > 1"), answering(), config={"n": 1})
    assert odd.play() is ExecutionStatus.COMPLETED
    assert odd.calls == []


def test_a_payload_that_cannot_be_read_fails_the_task_and_a_taken_event_is_gone() -> None:
    ring = {"do": "wait", "event": "bell", "save": "heard", "seconds": 60, "next": "end"}
    logic = program("ring", {"ring": ring, **DONE})
    stage = Stage(logic, answering(), task("a"), task("b"), on_failure="finish_branches")
    stage.happen("e1", "bell")
    stage.tick()
    first, second = sorted(stage.state.errands)
    stage.answer(first, {"n": 1})
    stage.tick()
    assert stage.phase("a") is Phase.COMPLETED
    stage.answer(second, {"n": 1})
    stage.tick()
    assert not stage.state.tasks[1].phase.over, "the event was the other's"
    assert stage.state.kept == {}
    stage.happen("e2", "bell")
    stage.tick()
    (errand,) = stage.state.errands
    stage.answer(errand, ok=False, code="EVENT_TOO_LARGE", message="too much")
    stage.play()
    assert stage.failures["b"][0] == "EVENT_TOO_LARGE"
    assert [item["task_id"] for item in stage.audit("task.triggered")] == ["a"]


def test_the_input_is_looked_up_once_for_all_tasks_that_come_later() -> None:
    logic = program("end", {"end": {"do": "finish", "result": "[input, results]"}})
    stage = Stage(logic, answering(), task("a"), task("b", (0,)))
    stage.tick()
    assert [e.input for e in stage.state.errands.values()] == [{"read": ["input", "results"]}]
    stage.answer("a/context", {"input": {"x": 1}, "results": {}})
    stage.tick()
    assert [e.input for e in stage.state.errands.values()] == [{"read": ["results"]}]
    stage.answer("b/context", {"results": {"a": 2}})
    decision = stage.tick()
    assert [r.result for r in decision.results] == [[{"x": 1}, {"a": 2}]]


def test_what_had_to_wait_for_the_next_tick_is_not_looked_at_for_ever() -> None:
    logic = program("ask", {"ask": {"do": "assign", "next": "end"}, **DONE})
    stage = Stage(logic, answering(), *[task(f"t{n}") for n in range(505)])
    stage.tick()
    assert stage.policy.next_due_ms(stage.state) is not None
    stage.tick()
    assert stage.policy.next_due_ms(stage.state) is None
    assert "/due" not in stage.state.board


@pytest.mark.parametrize("state", [{"do": "gather", "each": "range(6)"}, {"do": "vote", "voters": "agents.worker"}])
def test_work_whose_input_takes_two_ticks_is_then_only_waited_for(state: dict[str, Any]) -> None:
    ways = {"decided": "end", "undecided": "end"} if state["do"] == "vote" else {"next": "end"}
    logic = program("all", {"all": {**state, "input": "{text: config.text}", **ways}, **DONE})
    stage = Stage(logic, answering("ok"), config={"text": "x" * 50_000}, agents=6)
    stage.tick()
    assert stage.policy.next_due_ms(stage.state) is not None
    for _ in range(3):
        stage.tick()
    assert len(stage.in_flight()) == 6
    assert stage.policy.next_due_ms(stage.state) is None


def test_a_wait_that_is_gone_back_behind_is_forgotten() -> None:
    logic = program("which", {
        "which": {"do": "route", "cases": [{"when": "task.id == 'a'", "next": "ask"}], "otherwise": "rest"},
        "ask": {"do": "assign", "next": "end"},
        "rest": {"do": "wait", "event": "bell", "seconds": 60, "next": "end"},
        **DONE,
    })  # fmt: skip
    stage = Stage(logic, answering(), task("a"), task("b", (0,)))
    stage.tick()
    stage.control("checkpoint", checkpoint_id="c")
    stage.tick()
    stage.receive(*(stage.completed(attempt) for attempt in stage.in_flight()))
    stage.tick()
    assert set(stage.state.board["/due"]) == set(stage.state.board["/awaited"]) == {"b"}
    stage.control("pause")
    stage.tick()
    stage.rewind_to("c", *[spec.id for spec in stage.state.specs])
    stage.tick()
    assert not {"/due", "/awaited"} & stage.state.board.keys()
    assert stage.policy.next_due_ms(stage.state) is None


def test_nothing_is_over_while_the_execution_is_paused() -> None:
    logic = program("all", {"all": {"do": "gather", "each": "[1, 2]", "wait_seconds": 10, "next": "end"}, **DONE})
    stage = Stage(logic, answering())
    stage.tick()
    first, second = stage.in_flight()
    stage.receive(stage.started(first), stage.started(second))
    stage.control("pause")
    stage.tick()
    stage.receive(stage.completed(first))
    stage.tick(after_ms=20_000)
    assert second in stage.in_flight(), "what is not done is not dropped"
    stage.control("resume")
    stage.tick()
    stage.receive(stage.completed(second))
    stage.tick()
    assert stage.state.status is ExecutionStatus.COMPLETED


def test_an_event_that_does_not_fit_ends_no_wait_while_paused_and_waits_begun_then_last_their_time() -> None:
    logic = program("ring", {
        "ring": {"do": "wait", "event": "bell", "when": "event.ok", "seconds": 10, "next": "rest"},
        "rest": {"do": "wait", "seconds": 30, "next": "end"},
        **DONE,
    })  # fmt: skip
    stage = Stage(logic, answering())
    stage.tick()
    stage.control("pause")
    stage.tick()
    for event_id, ok in (("e1", False), ("e2", True)):
        stage.happen(event_id, "bell", {"ok": ok})
        stage.tick(after_ms=20_000)
        (errand,) = stage.state.errands.values()
        stage.answer(errand.key, {"ok": ok})
        stage.tick()
    assert stage.state.board["t/pc"]["s"] == "rest"
    stage.control("resume")
    stage.tick(after_ms=5_000)
    assert stage.policy.next_due_ms(stage.state) == stage.now_ms + 30_000


def test_an_errand_that_is_sent_again_after_going_back_is_another_one() -> None:
    stage = Stage(program("end", {"end": {"do": "finish", "result": "input"}}), answering())
    stage.control("checkpoint", checkpoint_id="c")
    stage.tick()
    (before,) = stage.state.errands
    stage.control("pause")
    stage.tick()
    stage.answer(before, {"input": "old"})
    stage.rewind_to("c", "t")
    stage.tick()
    (after,) = stage.state.errands
    assert after != before
    stage.answer(after, {"input": "new"})
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == "new"
