"""The handoff: the context travels and grows, gates judge, what is refused goes back and at last rolls back."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.definition import RetryPolicy
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Attempt, ExecutionInput, KernelPlan, KernelRole
from engine.contracts.limits import NOTE_BYTES_MAX
from engine.contracts.patterns.handoff import HandoffConfig
from tests.unit.workflows.drill import Drill, launch_input, task
from workflows.kernel.due import next_due_ms
from workflows.kernel.state import Phase
from workflows.policies.handoff import HandoffPolicy

ONCE = RetryPolicy(max_attempts=1)
CHAIN = (task("draft", retry=ONCE), task("edit", (0,), retry=ONCE), task("print", (1,), retry=ONCE))


def handoff(*tasks: Any, agents: int = 2, on_failure: str = "fail_fast", **config: Any) -> Drill:
    """Workers, and roles that nothing in the plan is for."""
    made = launch_input(*(tasks or CHAIN), agents=agents, pattern_config=config, on_failure=on_failure)
    more = {"judge": KernelRole(type="synthetic", count=1), "expert": KernelRole(type="synthetic", count=2)}
    plan = KernelPlan(tasks=made.plan.tasks, roles={**made.plan.roles, **more}, on_failure=made.plan.on_failure)
    launch: ExecutionInput = made.model_copy(update={"plan": plan})
    run = Drill(launch, policy=HandoffPolicy(HandoffConfig.model_validate(config)))
    run.tick()
    return run


def end(run: Drill, task_id: str, result: Any = None, **more: Any) -> None:
    """This attempt brings that."""
    event = run.completed(run.attempt(task_id), result)
    run.receive(event.model_copy(update=more))
    run.tick()


def given_to(run: Drill, task_id: str) -> Attempt:
    """What goes out with the last assignment of this task."""
    return next(a for d in reversed(run.deltas) for a in d.assigned if a.task_id == task_id)


def context(run: Drill, task_id: str) -> Any:
    return given_to(run, task_id).note["context"]


def judge(run: Drill, ok: bool = True, *reasons: str, **taken: Any) -> None:
    """The errand that looks at what was handed over comes back."""
    [key] = run.state.errands
    run.answer(key, {"ok": ok, "reasons": list(reasons), "taken": taken})
    run.tick()


# The context -----------------------------------------------------------------------------------------------------


def test_the_context_travels_along_the_graph_and_says_who_added_what() -> None:
    run = handoff(context={"topic": "rivers", "draft": True})
    assert context(run, "draft") == {"topic": "rivers", "draft": True}
    end(run, "draft", {"context": {"text": "The Nile", "draft": None}})
    assert context(run, "edit") == {"topic": "rivers", "text": "The Nile"}
    end(run, "edit", {"context": {"text": "The Nile is long"}, "remarks": 3})
    note = given_to(run, "print").note
    assert note["context"] == {"topic": "rivers", "text": "The Nile is long"}
    assert [(h["task"], h["agent"], h["added"]) for h in note["history"]] == [
        ("draft", "worker-1", ["draft", "text"]),
        ("edit", "worker-1", ["text"]),
    ]
    assert (note["hop"], note["hand_overs"], note["feedback"]) == (1, 2, [])
    end(run, "print", "any result will do")
    assert run.state.status is ExecutionStatus.COMPLETED
    assert [item["task_id"] for item in run.audit("handoff.accepted")] == ["draft", "edit", "print"]


def test_where_branches_meet_their_contexts_are_one_in_the_order_of_the_plan() -> None:
    run = handoff(task("a"), task("b", (0,)), task("c", (0,)), task("d", (1, 2)))
    end(run, "a", {"context": {"x": "a", "of_a": 1}})
    # The later one in the plan comes in first: the order of the plan counts, not that of time.
    end(run, "c", {"context": {"x": "c", "of_c": 1}})
    end(run, "b", {"context": {"x": "b", "of_b": 1}})
    assert context(run, "d") == {"x": "c", "of_a": 1, "of_b": 1, "of_c": 1}


def test_a_branch_does_not_see_what_another_adds() -> None:
    run = handoff(task("a"), task("b", (0,)), task("c", (0,)), task("after_c", (2,)))
    end(run, "a", {"context": {"of_a": 1}})
    end(run, "b", {"context": {"of_b": 1}})
    end(run, "c", {"context": {"of_c": 1}})
    assert context(run, "after_c") == {"of_a": 1, "of_c": 1}


@pytest.mark.parametrize("added", ["text", 7, ["a"], True])
def test_a_context_that_is_no_object_goes_back(added: Any) -> None:
    run = handoff()
    end(run, "draft", {"context": added})
    assert given_to(run, "draft").note["feedback"] == [{"agent": "worker-1", "feedback": "context is no object"}]
    assert given_to(run, "draft").attempt == 2


def test_a_context_above_its_limit_goes_back_and_nothing_of_it_stays() -> None:
    run = handoff(context={"old": "x" * 50}, context_bytes_max=200)
    end(run, "draft", {"context": {"text": "y" * 150}})
    assert "at most 200" in given_to(run, "draft").note["feedback"][0]["feedback"]
    end(run, "draft", {"context": {"old": None, "text": "y" * 150}})
    assert context(run, "edit") == {"text": "y" * 150}


def test_a_context_that_is_too_large_only_where_branches_meet_fails_the_task_there() -> None:
    run = handoff(task("a"), task("b"), task("c", (0, 1)), context_bytes_max=200)
    end(run, "a", {"context": {"a": "x" * 120}})
    end(run, "b", {"context": {"b": "x" * 120}})
    assert next_due_ms(run.state, run.policy) == run.now_ms
    run.continue_as_new()
    run.tick()
    assert run.deltas[-1].error is not None
    assert (run.deltas[-1].error.failed_task, run.deltas[-1].error.details["code"]) == ("c", "CONTEXT_TOO_LARGE")


def fails_with(run: Drill, task_id: str, code: str) -> None:
    error = run.deltas[-1].error
    assert error is not None
    assert (error.failed_task, error.details["code"]) == (task_id, code)


@pytest.mark.parametrize(("size", "limit"), [(120, 200), (40_000, 48 * 1024)])
def test_a_context_that_is_too_large_once_a_branch_is_done_again_fails_the_task_that_waits_for_it(
    size: int, limit: int
) -> None:
    run = handoff(task("a"), task("b"), task("c", (0, 1)), rejections_max=0, context_bytes_max=limit)
    end(run, "b", {"context": {"b": "x" * size}})
    end(run, "a", {"context": {"a": "small"}})
    reject(run, "c", 1)
    end(run, "a-again-1", {"context": {"a": "x" * size}})
    fails_with(run, "c", "CONTEXT_TOO_LARGE")
    assert run.state.closed


def grown_meanwhile(**stations: Any) -> Drill:
    """`c` and `d` have the context of `a` and `b`; then `a` is done again for `d`, and is too large for both."""
    run = handoff(task("a"), task("b"), task("c", (0, 1)), task("d", (0,)), agents=4, context_bytes_max=48 * 1024,
                  on_failure="finish_branches",
                  stations={"c": stations.get("c", {}), "d": {"rejections_max": 0}})  # fmt: skip
    end(run, "b", {"context": {"b": "x" * 40_000}})
    end(run, "a", {"context": {"a": "small"}})
    return run


def grow(run: Drill) -> None:
    reject(run, "d", 1)
    end(run, "a-again-1", {"context": {"a": "x" * 40_000}})
    assert run.phase("d") is Phase.ASSIGNED


def failed_of(run: Drill, task_id: str) -> list[str]:
    return [item.code for delta in run.deltas for item in delta.failed if item.task_id == task_id]


def test_what_would_go_back_with_a_context_that_has_grown_too_large_meanwhile_fails() -> None:
    run = grown_meanwhile()
    grow(run)
    end(run, "c", "text")
    assert failed_of(run, "c") == ["CONTEXT_TOO_LARGE"]
    end(run, "d", "text")
    assert run.state.status is ExecutionStatus.FAILED


def test_what_would_be_judged_with_a_context_that_has_grown_too_large_meanwhile_fails() -> None:
    run = grown_meanwhile(c=JUDGED)
    grow(run)
    end(run, "c", {"context": {"b": None}})
    assert failed_of(run, "c") == ["CONTEXT_TOO_LARGE"]
    assert "c-judge-1" not in run.state.index


def test_what_would_be_handed_on_with_a_context_that_has_grown_too_large_meanwhile_fails() -> None:
    run = grown_meanwhile(c={**JUDGED, **DESK})
    end(run, "c", {"handoff_to": "expert"})
    grow(run)
    end(run, "c-judge-1", {"verdict": "accept"})
    assert failed_of(run, "c") == ["CONTEXT_TOO_LARGE"]
    assert "c-hand-2" not in run.state.index


def test_what_would_be_done_again_with_a_context_that_has_grown_too_large_meanwhile_fails_what_waits_for_it() -> None:
    tasks = (task("a"), task("b"), task("c", (0, 1)), task("d", (0,)), task("e", (2,)))
    run = handoff(*tasks, agents=4, context_bytes_max=200, on_failure="finish_branches",
                  stations={name: {"rejections_max": 0} for name in "de"})  # fmt: skip
    end(run, "b", {"context": {"b": "x" * 120}})
    end(run, "a", {"context": {"a": "small"}})
    end(run, "c", {"context": {"b": None}})
    grow_to = {"context": {"a": "x" * 120}}
    reject(run, "d", 1)
    end(run, "a-again-1", grow_to)
    reject(run, "e", 1)
    assert failed_of(run, "e") == ["CONTEXT_TOO_LARGE"]
    assert "c-again-1" not in run.state.index


def test_what_goes_with_a_task_fits_however_long_the_history_is() -> None:
    names = [f"{n:02}-" + "n" * 200 for n in range(60)]
    tasks = [task(name, (n - 1,) if n else ()) for n, name in enumerate(names)]
    run = handoff(*tasks, context={"text": "x" * 47_000}, context_bytes_max=48 * 1024, history_shown_max=100)
    for n, name in enumerate(names[:-1]):
        end(run, name, {"context": {f"key-{n % 3}-{'k' * 90}": n}})
    note = given_to(run, names[-1]).note
    assert len(json.dumps(note, ensure_ascii=False).encode()) <= NOTE_BYTES_MAX
    assert (note["hand_overs"], note["history"][-1]["task"]) == (59, names[-2])


def test_a_task_that_an_agent_adds_is_handed_the_context_too() -> None:
    run = handoff()
    more = {"id": "check", "agent": "worker", "depends_on": ["draft"], "blocks": ["edit"]}
    end(run, "draft", {"context": {"text": "first"}}, spawn=(more,))
    assert context(run, "check") == {"text": "first"}
    end(run, "check", {"context": {"checked": True}})
    assert context(run, "edit") == {"text": "first", "checked": True}


# Gates -----------------------------------------------------------------------------------------------------------

GATE: dict[str, Any] = {"gate": {"expressions": ["result.words > 2"], "json_schema": {"type": "object"}}}


def test_a_gate_of_expressions_and_a_schema_is_an_errand_that_is_told_all_it_needs() -> None:
    run = handoff(context={"limit": 5}, stations={"draft": GATE})
    end(run, "draft", {"words": 3, "context": {"text": "a b c"}})
    [errand] = run.deltas[-1].errands
    assert (errand.kind, errand.task_id) == ("judge", "draft")
    assert errand.input == {
        "expressions": ["result.words > 2"],
        "json_schema": {"type": "object"},
        "values": {"context": {"limit": 5}, "result": {"words": 3, "context": {"text": "a b c"}}},
        "refs": {},
        "take": ["context", "handoff_to"],
        "take_bytes_max": 33 * 1024,
    }
    assert run.phase("draft") is Phase.SUBMITTED
    run.continue_as_new()
    judge(run, context={"text": "a b c"})
    assert context(run, "edit") == {"limit": 5, "text": "a b c"}


def test_a_large_result_is_looked_at_where_it_is_stored_also_without_a_gate() -> None:
    run = handoff()
    end(run, "draft", result_ref="sha256:1")
    [errand] = run.deltas[-1].errands
    assert errand.input["refs"] == {"result": "sha256:1"}
    judge(run, context={"text": "long"})
    assert context(run, "edit") == {"text": "long"}


def test_what_a_gate_refuses_goes_back_to_the_same_agent_with_the_reasons() -> None:
    run = handoff(stations={"draft": GATE}, agents=3)
    end(run, "draft", {"words": 1})
    judge(run, False, "not so: result.words > 2", "too dull")
    again = given_to(run, "draft")
    assert (again.agent_id, again.attempt) == ("worker-1", 2)
    assert again.note["feedback"] == [{"agent": "worker-1", "feedback": "not so: result.words > 2; too dull"}]
    assert again.note["rejections_left"] == 2
    assert run.audit("handoff.rejected")[0]["rejections"] == 1


def test_a_gate_that_cannot_judge_fails_the_task() -> None:
    run = handoff(stations={"draft": GATE})
    end(run, "draft", {"words": 1})
    [key] = run.state.errands
    run.answer(key, ok=False, code="INVALID_SCHEMA", message="no schema")
    run.tick()
    assert run.deltas[-1].error is not None
    assert run.deltas[-1].error.details["code"] == "INVALID_SCHEMA"


JUDGED: dict[str, Any] = {"gate": {"judge": {"agent": "judge", "criteria": "is it kind?"}}}


def test_a_judging_agent_sees_what_is_handed_over_and_decides() -> None:
    run = handoff(context={"topic": "rivers"}, stations={"draft": JUDGED})
    end(run, "draft", {"context": {"text": "rude"}})
    asked = given_to(run, "draft-judge-1")
    assert asked.agent_id == "judge-1"
    assert asked.note == {
        "task": "draft",
        "agent": "worker-1",
        "criteria": "is it kind?",
        "verdicts": ["accept", "reject"],
        "context": {"topic": "rivers"},
        "result": {"context": {"text": "rude"}},
    }
    end(run, "draft-judge-1", {"verdict": "reject", "feedback": "be kind"})
    assert given_to(run, "draft").note["feedback"][0]["feedback"] == "be kind"
    end(run, "draft", {"context": {"text": "kind"}})
    run.continue_as_new()
    end(run, "draft-judge-1-2", {"verdict": "accept"})
    assert context(run, "edit") == {"topic": "rivers", "text": "kind"}


def test_a_judging_agent_sees_a_large_result_by_where_it_is_stored() -> None:
    run = handoff(stations={"draft": JUDGED})
    end(run, "draft", result_ref="sha256:1")
    judge(run)
    assert given_to(run, "draft-judge-1").note["stored"] == {"result": "sha256:1"}


@pytest.mark.parametrize(
    "answer",
    [None, "accept", 1, [], {}, {"verdict": "spawn"}, {"verdict": "maybe"}, {"verdict": "reject", "feedback": []}],
)
def test_a_judging_agent_that_makes_no_sense_is_asked_again_and_at_last_the_task_fails(answer: Any) -> None:
    judge_settings = {"agent": "judge", "bad_answers_max": 1}
    run = handoff(stations={"draft": {"gate": {"judge": judge_settings}}})
    end(run, "draft", "text")
    end(run, "draft-judge-1", answer)
    assert given_to(run, "draft-judge-1-2").note["problem"]
    assert not run.state.closed
    run.receive(run.failed(run.attempt("draft-judge-1-2"), retryable=False))
    run.tick()
    assert run.deltas[-1].error is not None
    assert (run.deltas[-1].error.failed_task, run.deltas[-1].error.details["code"]) == ("draft", "NO_VERDICT")


def test_a_verdict_that_is_too_large_makes_no_sense() -> None:
    run = handoff(stations={"draft": JUDGED})
    end(run, "draft", "text")
    end(run, "draft-judge-1", result_ref="sha256:1")
    assert "too large" in given_to(run, "draft-judge-1-2").note["problem"]


# Choosing who is next --------------------------------------------------------------------------------------------

DESK: dict[str, Any] = {"to": ["expert", "worker-2"], "hops_max": 3}


def test_an_agent_may_hand_over_to_a_role_that_is_allowed_and_the_last_result_is_the_tasks() -> None:
    run = handoff(stations={"draft": DESK})
    assert given_to(run, "draft").note["may_hand_to"] == ["expert", "worker-2"]
    end(run, "draft", {"context": {"case": 7}, "handoff_to": "expert"})
    taken = given_to(run, "draft-hand-2")
    assert (taken.agent_id, taken.note["hop"], taken.note["context"]) == ("expert-1", 2, {"case": 7})
    assert run.decisions[-1].writes is not None
    assert run.decisions[-1].writes.bodies[0].body["about"] == "draft"
    run.continue_as_new()
    end(run, "draft-hand-2", {"context": {"found": 8}, "handoff_to": "worker-2"})
    last = given_to(run, "draft-hand-3")
    assert (last.agent_id, last.note["may_hand_to"]) == ("worker-2", [])
    assert [h["agent"] for h in last.note["history"]] == ["worker-1", "expert-1"]
    end(run, "draft-hand-3", {"context": {"answer": 9}})
    assert run.phase("draft") is Phase.COMPLETED
    assert [r.result for r in run.decisions[-1].results if r.task_id == "draft"] == [{"context": {"answer": 9}}]
    assert context(run, "edit") == {"case": 7, "found": 8, "answer": 9}


@pytest.mark.parametrize("to", ["judge", "worker-1", "nobody", 7, ["expert"], {"role": "expert"}, ""])
def test_handing_over_to_someone_else_is_refused(to: Any) -> None:
    run = handoff(stations={"draft": DESK})
    end(run, "draft", {"handoff_to": to})
    assert "expert, worker-2" in given_to(run, "draft").note["feedback"][0]["feedback"]


def test_handing_over_beyond_the_number_of_hands_is_refused() -> None:
    run = handoff(stations={"draft": {"to": ["expert"], "hops_max": 1}})
    end(run, "draft", {"handoff_to": "expert"})
    assert "through 1 hands" in given_to(run, "draft").note["feedback"][0]["feedback"]


def test_a_large_last_result_is_the_tasks_by_where_it_is_stored() -> None:
    run = handoff(stations={"draft": DESK})
    end(run, "draft", {"handoff_to": "expert"})
    end(run, "draft-hand-2", result_ref="sha256:9")
    judge(run)
    assert [r.result_ref for r in run.decisions[-1].results if r.task_id == "draft"] == ["sha256:9"]


def test_an_agent_that_fails_for_good_with_what_it_took_over_fails_the_task() -> None:
    run = handoff(stations={"draft": DESK})
    end(run, "draft", {"handoff_to": "expert"})
    run.receive(run.failed(run.attempt("draft-hand-2"), "TIRED", retryable=False))
    run.tick()
    assert run.deltas[-1].error is not None
    assert (run.deltas[-1].error.failed_task, run.deltas[-1].error.details["code"]) == ("draft", "TIRED")
    assert run.phase("draft-hand-2") is Phase.CANCELLED


# Rolling back ----------------------------------------------------------------------------------------------------


def reject(run: Drill, task_id: str, times: int) -> None:
    for _ in range(times):
        end(run, task_id, {"context": "no object"})


def test_after_too_many_rejections_the_one_before_does_it_again_and_its_new_work_replaces_the_old() -> None:
    run = handoff(context={"topic": "rivers"}, rejections_max=1, agents=3)
    end(run, "draft", {"context": {"text": "bad", "only_once": 1}})
    reject(run, "edit", 2)
    assert run.audit("handoff.rolled_back") == [
        {"task_id": "edit", "back_to": "draft", "agent_id": "worker-1", "hop": 1}
    ]
    again = given_to(run, "draft-again-1")
    assert again.agent_id == "worker-1"
    assert again.note["context"] == {"topic": "rivers"}
    assert again.note["feedback"] == [{"agent": "worker-1", "feedback": "context is no object"}]
    assert run.decisions[-1].writes is not None
    assert run.decisions[-1].writes.bodies[0].body["about"] == "draft"
    assert run.phase("draft") is Phase.COMPLETED
    run.continue_as_new()
    end(run, "draft-again-1", {"context": {"text": "good"}})
    assert context(run, "edit") == {"topic": "rivers", "text": "good"}
    assert given_to(run, "edit").note["rejections_left"] == 1
    end(run, "edit", {"context": {"text": "better"}})
    assert context(run, "print") == {"topic": "rivers", "text": "better"}


def test_within_a_task_it_goes_back_to_the_hand_before() -> None:
    run = handoff(stations={"draft": {**DESK, "rejections_max": 0, "rollbacks_max": 2}})
    end(run, "draft", {"context": {"a": 1}, "handoff_to": "expert"})
    end(run, "draft-hand-2", {"context": {"b": 2}, "handoff_to": "worker-2"})
    reject(run, "draft-hand-3", 1)
    back = given_to(run, "draft-again-1")
    assert (back.agent_id, back.note["hop"], back.note["context"]) == ("expert-1", 2, {"a": 1})
    reject(run, "draft-again-1", 1)
    first = given_to(run, "draft")
    assert (first.attempt, first.note["hop"], first.note["context"]) == (2, 1, {})
    end(run, "draft", {"context": {"c": 3}})
    assert run.phase("draft") is Phase.COMPLETED
    assert context(run, "edit") == {"c": 3}, "nothing is left of the hands that were rolled back"


def test_it_goes_back_to_the_branch_that_handed_over_last() -> None:
    run = handoff(task("a"), task("b"), task("c", (0, 1)), rejections_max=0)
    end(run, "b", {"context": {"b": 1}})
    end(run, "a", {"context": {"a": 1}})
    reject(run, "c", 1)
    assert given_to(run, "a-again-1").note["context"] == {}


def test_the_first_cannot_go_back_and_fails() -> None:
    run = handoff(rejections_max=2)
    reject(run, "draft", 3)
    error = run.deltas[-1].error
    assert error is not None
    assert (error.failed_task, error.details["code"]) == ("draft", "HANDOFF_REJECTED")
    assert "rejected 3 times" in error.error_message


def test_a_task_rolls_back_only_so_often() -> None:
    run = handoff(rejections_max=0, rollbacks_max=1)
    end(run, "draft", {"context": {"text": "bad"}})
    reject(run, "edit", 1)
    end(run, "draft-again-1", {"context": {"text": "no better"}})
    reject(run, "edit", 1)
    assert run.deltas[-1].error is not None
    assert run.deltas[-1].error.details["code"] == "HANDOFF_REJECTED"


def test_what_is_done_again_passes_its_own_gate_and_goes_nowhere_else() -> None:
    run = handoff(stations={"draft": {**GATE, "to": ["expert"], "rejections_max": 1}, "edit": {"rejections_max": 0}})
    end(run, "draft", {"words": 3})
    judge(run)
    reject(run, "edit", 1)
    end(run, "draft-again-1", {"words": 3, "handoff_to": "expert"})
    judge(run, handoff_to="expert")
    assert "goes nowhere else" in given_to(run, "draft-again-1").note["feedback"][-1]["feedback"]
    end(run, "draft-again-1", {"words": 1})
    judge(run, False, "too short")
    assert run.deltas[-1].error is not None
    assert run.deltas[-1].error.failed_task == "edit"
    assert run.phase("draft-again-1") is Phase.CANCELLED


def test_other_branches_go_on_when_one_fails_and_they_may() -> None:
    run = handoff(task("a"), task("b", (0,)), task("c", (0,)), rejections_max=0, rollbacks_max=0,
                  on_failure="finish_branches")  # fmt: skip
    end(run, "a", {"context": {"a": 1}})
    reject(run, "b", 1)
    assert run.phase("b") is Phase.FAILED
    end(run, "c", "done")
    assert run.state.status is ExecutionStatus.FAILED
    assert run.phase("c") is Phase.COMPLETED


def test_going_back_to_a_checkpoint_takes_what_was_added_since_out_of_the_context() -> None:
    run = handoff(stations={"edit": DESK})
    end(run, "draft", {"context": {"text": "first"}})
    end(run, "edit", {"context": {"more": 1}, "handoff_to": "expert"})
    run.control("pause")
    run.tick()
    run.rewind_to("00000000-0000-4000-8000-000000000009")
    run.tick()
    assert "edit-hand-2" not in run.state.index
    assert context(run, "edit") == {"text": "first"}


def test_the_tasks_that_an_execution_may_add_are_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.kernel.desk.TASKS_DYNAMIC_MAX", 0)
    cases: tuple[tuple[dict[str, Any], Any], ...] = ((DESK, {"handoff_to": "expert"}), (JUDGED, "text"))
    for config, result in cases:
        run = handoff(stations={"draft": config})
        end(run, "draft", result)
        assert run.deltas[-1].error is not None
        assert run.deltas[-1].error.details["code"] == "NO_ROOM"
    run = handoff(rejections_max=0)
    end(run, "draft", "text")
    reject(run, "edit", 1)
    assert run.deltas[-1].error is not None
    assert run.deltas[-1].error.details["code"] == "NO_ROOM"


# Whatever happens ------------------------------------------------------------------------------------------------

RESULTS = st.sampled_from(
    [
        {"context": {"x": 1}},
        {"context": {"x": None, "y": 2}},
        {"context": {"z": 3}, "handoff_to": "expert"},
        {"context": "no object"},
        {"handoff_to": "nobody"},
        "text",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_handed_over_the_context_holds_what_was_accepted_and_all_ends(data: st.DataObject) -> None:
    retry = RetryPolicy(max_attempts=2, initial_delay_seconds=0.1)
    tasks = (task("a", retry=retry), task("b", (0,), retry=retry), task("c", (0,), retry=retry),
             task("d", (1, 2), retry=retry))  # fmt: skip
    config: dict[str, Any] = {
        "to": ["expert"],
        "rejections_max": data.draw(st.integers(0, 1)),
        "rollbacks_max": data.draw(st.integers(0, 2)),
        "stations": {"b": {"gate": {"judge": {"agent": "judge"}}}, "c": {"gate": {"expressions": ["result != null"]}}},
    }
    run = handoff(*tasks, **config)

    def step(calm: bool) -> None:
        for attempt in run.in_flight():
            kind = "done" if calm else data.draw(st.sampled_from(["wait", "done", "done", "fail"]))
            if kind == "fail":
                run.receive(run.failed(attempt))
            elif kind == "done" and "-judge-" in attempt.task_id:
                verdicts = ["accept"] if calm else ["accept", "reject", "nonsense"]
                run.receive(run.completed(attempt, {"verdict": data.draw(st.sampled_from(verdicts))}))
            elif kind == "done":
                run.receive(run.completed(attempt, {"context": {"calm": 1}} if calm else data.draw(RESULTS)))
        for key in sorted(run.state.errands):
            if calm or data.draw(st.booleans()):
                ok = calm or data.draw(st.booleans())
                run.answer(key, {"ok": ok, "reasons": [] if ok else ["no"], "taken": {"context": {"e": 1}}})
        if not calm and data.draw(st.integers(0, 9)) == 0:
            run.control("resume" if run.state.paused else "pause")
        if not calm and data.draw(st.integers(0, 9)) == 0:
            run.continue_as_new()
        run.tick(after_ms=100)
        for i, spec in enumerate(run.state.specs[:4]):
            added = [key for key in run.state.board if key.startswith(f"{spec.id}/added-")]
            assert len(added) <= 10
            if run.state.tasks[i].phase is Phase.COMPLETED:
                assert added, "no task is completed but by an accepted hand-over"

    for _ in range(60):
        if not run.state.closed:
            step(calm=False)
    if run.state.paused:
        run.control("resume")
        run.tick()
    for _ in range(200):
        if not run.state.closed:
            step(calm=True)
    assert run.state.closed
