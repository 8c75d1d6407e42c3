"""The hierarchical pattern's decisions: failures go up level by level, tasks go down, each within its authority."""

from typing import Any

import pytest

from engine.contracts.definition import RetryPolicy
from engine.contracts.execution import ExecutionStatus
from tests.unit.workflows.drill import Drill, task
from tests.unit.workflows.hierarchy_drill import TEAMS, answer, decided, fail, hierarchy_drill, note_of, raised
from workflows.kernel.state import Phase

ONCE = RetryPolicy(max_attempts=1)
ASKED = "a-escalation-1"
DELEGATING: dict[str, Any] = {**TEAMS, "crew": {**TEAMS["crew"], "delegation": "lead"}}


def failed_once(**fields: Any) -> Drill:
    """The worker's task has failed, and the chief is asked."""
    run = hierarchy_drill(task("a", retry=ONCE), task("b", (0,)), **fields)
    fail(run, run.attempt("a"))
    return run


# Up -----------------------------------------------------------------------------------------------------------------


def test_a_failure_is_retried_as_its_policy_says_before_anybody_is_asked() -> None:
    run = hierarchy_drill(task("a", retry=RetryPolicy(max_attempts=2, initial_delay_seconds=1)))
    run.receive(run.failed(run.attempt("a")))
    run.tick()
    assert raised(run) == []
    run.tick(after_ms=2_000)
    run.receive(run.failed(run.attempt("a")))
    run.tick()
    assert raised(run) == [("a", "L3", "L2")]


def test_the_superior_gets_the_error_the_attempts_and_what_it_may_decide() -> None:
    run = failed_once()
    assert run.attempt(ASKED).agent_id == "chief-1"
    told = note_of(run, ASKED)["escalation"]
    assert told["error"] == {"code": "BROKEN", "message": "a is broken"}
    assert (told["attempts"], told["agent_id"], told["role"]) == (1, "worker-1", "worker")
    assert (told["from_level"], told["level"], told["team"]) == ("L3", "L2", "crew")
    assert told["decisions"] == ["retry", "reassign", "resolve", "fail", "escalate"]
    assert told["reassign_to"] == ["chief", "helper", "worker"]
    assert told["history"] == []
    [body] = [b for d in run.decisions if d.writes for b in d.writes.bodies]
    assert (body.body["action"], body.body["concerning"]) == ("escalation", "a")


def test_a_retry_changes_the_input_and_tells_the_agent_why() -> None:
    run = failed_once()
    answer(run, ASKED, decision="retry", input={"fast": False}, feedback="be careful")
    [again] = run.deltas[-1].assigned
    assert (again.task_id, again.attempt, again.overlay) == ("a", 2, {"fast": False})
    assert again.note["escalation"] == {
        "level": "L2",
        "decision": "retry",
        "feedback": "be careful",
        "error": {"code": "BROKEN", "message": "a is broken"},
    }
    assert run.phase(ASKED) is Phase.COMPLETED
    resent = run.tick(after_ms=20_000).delta.resent
    assert [item.overlay for item in resent if item.task_id == "a"] == [{"fast": False}], "also when sent again"
    assert run.finish() is ExecutionStatus.COMPLETED


def test_what_is_laid_over_the_input_adds_up() -> None:
    run = failed_once()
    answer(run, ASKED, decision="retry", input={"x": 1, "y": 1})
    fail(run, run.attempt("a"))
    answer(run, "a-escalation-2", decision="retry", input={"y": 2})
    assert run.deltas[-1].assigned[0].overlay == {"x": 1, "y": 2}


@pytest.mark.parametrize(("to", "agent"), [("helper", "helper-1"), ("worker-2", "worker-2"), ("chief", "chief-1")])
def test_a_task_is_given_to_another_agent_or_role(to: str, agent: str) -> None:
    run = failed_once()
    answer(run, ASKED, decision="reassign", to=to)
    assert run.attempt("a").agent_id == agent
    run.continue_as_new()
    run.receive(run.completed(run.attempt("a"), "done"))
    run.tick()
    assert run.phase("a") is Phase.COMPLETED
    assert run.attempt("b").agent_id == "worker-1", "others stay where they were"


def test_a_task_given_to_a_busy_agent_waits_for_it() -> None:
    run = hierarchy_drill(task("a", retry=ONCE), task("h", role="helper"))
    fail(run, run.attempt("a"))
    answer(run, ASKED, decision="reassign", to="helper-1")
    assert run.phase("a") is Phase.READY
    run.receive(run.completed(run.attempt("h")))
    run.tick()
    assert run.attempt("a").agent_id == "helper-1"


def test_a_superior_resolves_with_a_result_of_its_own() -> None:
    run = failed_once()
    answer(run, ASKED, decision="resolve", result={"value": 7}, reason="known")
    assert run.phase("a") is Phase.COMPLETED
    assert run.phase("b") is Phase.ASSIGNED
    assert [r.result for r in run.decisions[-1].results if r.task_id == "a"] == [{"value": 7}]
    assert decided(run) == [("L2", "resolve", "carried_out")]
    ends = [(e["attempt"], e["status"], e.get("agent_id")) for e in run.audit("task.completed") if e["task_id"] == "a"]
    assert ends == [(1, "failed", "worker-1"), (0, "success", None)], "each attempt ends once in the audit log"


def test_a_superior_fails_the_branch_and_the_others_go_on() -> None:
    run = hierarchy_drill(task("a", retry=ONCE), task("b", (0,)), task("c"), task("d", (2,)))
    fail(run, run.attempt("a"))
    answer(run, ASKED, decision="fail", reason="no use")
    assert run.phase("a") is Phase.FAILED
    assert run.phase("b") is Phase.SKIPPED
    assert not run.state.closed, "although the definition says fail_fast"
    assert run.finish() is ExecutionStatus.FAILED
    assert run.phase("d") is Phase.COMPLETED
    [error] = [e for e in run.audit("error.occurred") if e.get("task_id") == "a" and e["error_type"] == "BROKEN"]
    assert error["error_message"] == "no use; a is broken"


def test_what_no_level_solves_fails_as_it_would_have_without_levels() -> None:
    run = failed_once()
    answer(run, ASKED, decision="escalate", reason="above me")
    assert run.attempt("a-escalation-2").agent_id == "director-1"
    history = note_of(run, "a-escalation-2")["escalation"]["history"]
    assert [(h["level"], h["decision"], h["reason"], h["error"]["code"]) for h in history] == [
        ("L2", "escalate", "above me", "BROKEN")
    ]
    answer(run, "a-escalation-2", decision="escalate")
    assert raised(run) == [("a", "L3", "L2"), ("a", "L2", "L1")]
    assert run.state.status is ExecutionStatus.FAILED
    error = run.deltas[-1].error
    assert error is not None
    assert (error.error_code, error.failed_task, error.details["code"]) == ("TASK_FAILED", "a", "BROKEN")
    ends = [e for e in run.audit("task.completed") if e["task_id"] == "a"]
    assert len(ends) == 1, "each attempt ends once in the audit log"


def test_a_failure_after_a_level_has_decided_goes_past_it() -> None:
    run = failed_once()
    answer(run, ASKED, decision="retry")
    fail(run, run.attempt("a"), "WORSE")
    assert raised(run) == [("a", "L3", "L2"), ("a", "L2", "L1")]
    answer(run, "a-escalation-2", decision="retry")
    fail(run, run.attempt("a"))
    assert run.state.status is ExecutionStatus.FAILED


def test_a_level_may_be_given_several_decisions() -> None:
    run = failed_once(escalation={"interventions_max": 2})
    answer(run, ASKED, decision="retry")
    fail(run, run.attempt("a"))
    answer(run, "a-escalation-2", decision="retry")
    fail(run, run.attempt("a"))
    assert [to for _, _, to in raised(run)] == ["L2", "L2", "L1"]


def test_a_lead_that_fails_at_deciding_leaves_it_to_the_next_level() -> None:
    run = failed_once()
    fail(run, run.attempt(ASKED), "CONFUSED")
    assert run.phase(ASKED) is Phase.CANCELLED
    assert raised(run)[-1] == ("a", "L2", "L1")
    assert decided(run) == [("L2", None, "unsolved")]
    answer(run, "a-escalation-2", decision="resolve", result=1)
    assert run.finish() is ExecutionStatus.COMPLETED


def test_a_leads_own_task_escalates_to_the_lead_above() -> None:
    run = hierarchy_drill(task("plan", role="chief", retry=ONCE))
    fail(run, run.attempt("plan"))
    assert raised(run) == [("plan", "L2", "L1")]


def test_the_top_has_nobody_above() -> None:
    run = hierarchy_drill(task("plan", role="director", retry=ONCE))
    fail(run, run.attempt("plan"))
    assert raised(run) == []
    assert run.state.status is ExecutionStatus.FAILED


def test_without_teams_nothing_escalates() -> None:
    run = hierarchy_drill(task("a", retry=ONCE), teams={})
    fail(run, run.attempt("a"))
    assert run.state.status is ExecutionStatus.FAILED


def test_an_execution_that_may_add_no_more_tasks_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    run = hierarchy_drill(task("a", retry=ONCE))
    monkeypatch.setattr("workflows.kernel.desk.TASKS_DYNAMIC_MAX", 0)
    fail(run, run.attempt("a"))
    error = run.deltas[-1].error
    assert error is not None
    assert "not escalated" in error.error_message


def test_where_nothing_more_may_be_asked_tasks_go_to_any_of_their_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.kernel.desk.TASKS_DYNAMIC_MAX", 0)
    run = hierarchy_drill(task("a"), teams=DELEGATING)
    assert run.attempt("a").agent_id == "worker-1"


# Nonsense -----------------------------------------------------------------------------------------------------------

NONSENSE: list[Any] = [
    None,
    "retry",
    [],
    {},
    {"decision": "perhaps"},
    {"decision": "retry", "to": "helper"},
    {"decision": "reassign"},
    {"decision": "reassign", "to": "nobody"},
    {"decision": "reassign", "to": "director"},
    {"decision": "resolve"},
    {"decision": "fail", "input": {}},
    {"decision": "escalate", "result": 1},
    {"decision": "retry", "input": [1]},
    {"decision": "retry", "input": {"resources": "all"}},
    {"decision": "retry", "input": {"text": "x" * 20_000}},
    {"decision": "retry", "surprise": True},
    {"decision": 7},
]


@pytest.mark.parametrize("document", NONSENSE)
def test_nonsense_is_refused_asked_again_and_then_goes_up(document: Any) -> None:
    run = failed_once()
    run.receive(run.completed(run.attempt(ASKED), document))
    run.tick()
    assert run.attempt(ASKED).attempt == 2
    assert note_of(run, ASKED)["refused"]
    assert run.phase("a") is Phase.SUBMITTED
    run.receive(run.completed(run.attempt(ASKED), document))
    run.tick()
    assert [outcome for _, _, outcome in decided(run)] == ["refused", "refused"]
    assert all(e["reason"] for e in run.audit("escalation.decided"))
    assert raised(run)[-1] == ("a", "L2", "L1")
    assert run.finish() is ExecutionStatus.FAILED, "the director answers nonsense too"


def test_a_large_answer_is_fetched() -> None:
    run = failed_once()
    attempt = run.attempt(ASKED)
    run.receive(run.completed(attempt).model_copy(update={"result_ref": "r1"}))
    run.tick()
    [errand] = run.deltas[-1].errands
    assert (errand.key, errand.kind, errand.input["refs"]) == (f"{ASKED}/answer", "judge", {"answer": "r1"})
    run.continue_as_new()
    run.answer(errand.key, {"ok": True, "taken": {"decision": "resolve", "result": "x" * 5_000}})
    run.tick()
    assert run.phase("a") is Phase.COMPLETED


@pytest.mark.parametrize(
    "outcome", [{"value": {"ok": False, "reasons": ["too large"]}}, {"ok": False, "code": "PAYLOAD_GONE"}]
)
def test_a_large_answer_that_cannot_be_read_is_refused(outcome: dict[str, Any]) -> None:
    run = failed_once(escalation={"answers_max": 1})
    run.receive(run.completed(run.attempt(ASKED)).model_copy(update={"result_ref": "r1"}))
    run.tick()
    run.answer(f"{ASKED}/answer", **outcome)
    run.tick()
    assert decided(run) == [("L2", None, "refused")]
    assert raised(run)[-1] == ("a", "L2", "L1")


# Authority ----------------------------------------------------------------------------------------------------------


def test_a_superior_may_not_decide_what_its_level_may_not() -> None:
    run = failed_once(authority={"levels": {"L2": {"decisions": ["retry"]}}}, escalation={"answers_max": 1})
    assert note_of(run, ASKED)["escalation"]["decisions"] == ["retry", "escalate"]
    answer(run, ASKED, decision="resolve", result=1)
    [refused] = run.audit("escalation.decided")
    assert refused["outcome"] == "refused"
    assert "NOT_AUTHORISED" in str(refused["reason"])
    assert run.phase("a") is Phase.SUBMITTED
    answer(run, "a-escalation-2", decision="resolve", result=1)
    assert run.phase("a") is Phase.COMPLETED


def test_a_task_is_not_given_to_a_role_that_may_not_do_it() -> None:
    run = hierarchy_drill(
        task("a", retry=ONCE, action="deploy"),
        authority={"roles": {"helper": {"actions": ["test"]}}},
        escalation={"answers_max": 1},
    )
    fail(run, run.attempt("a"))
    assert note_of(run, ASKED)["escalation"]["reassign_to"] == ["chief", "worker"]
    answer(run, ASKED, decision="reassign", to="helper-1")
    assert decided(run) == [("L2", "reassign", "refused")]
    assert not [a for d in run.deltas for a in d.assigned if a.agent_id == "helper-1"]


def test_a_changed_input_may_not_name_resources_that_the_role_may_not_use() -> None:
    run = failed_once(authority={"levels": {"L3": {"resources": ["staging-*"]}}})
    answer(run, ASKED, decision="retry", input={"resources": ["production"]})
    assert decided(run) == [("L2", "retry", "refused")]
    answer(run, ASKED, decision="retry", input={"resources": ["staging-1"]})
    assert run.attempt("a").attempt == 2


def test_tasks_that_a_result_adds_must_be_allowed_to_their_role() -> None:
    run = hierarchy_drill(task("a", retry=ONCE), authority={"roles": {"helper": {"actions": ["test"]}}})
    spawn = ({"id": "n", "agent": "helper", "action": "deploy"},)
    run.receive(run.completed(run.attempt("a")).model_copy(update={"spawn": spawn}))
    run.tick()
    assert "n" not in run.state.index
    [failed] = [e for e in run.audit("task.completed") if e["task_id"] == "a"]
    assert failed["error"]["code"] == "SPAWN_REFUSED"  # type: ignore[index]
    assert "NOT_AUTHORISED: n: the role helper may not deploy" in failed["error"]["message"]  # type: ignore[index]
    assert raised(run) == [("a", "L3", "L2")]


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"id": "n", "agent": "director"}, "which is above it"),
        ({"id": "n", "agent": "worker", "input": {"resources": 7}}, "not a list of names"),
        ({"id": "n", "agent": "worker", "compensation_action": "undo"}, "may not undo"),
    ],
)
def test_other_tasks_that_a_result_may_not_add(document: dict[str, Any], why: str) -> None:
    run = hierarchy_drill(task("a", retry=ONCE), authority={"roles": {"worker": {"actions": ["a", "n"]}}})
    run.receive(run.completed(run.attempt("a")).model_copy(update={"spawn": (document,)}))
    run.tick()
    [failed] = [e for e in run.audit("task.completed") if e["task_id"] == "a"]
    assert why in failed["error"]["message"]  # type: ignore[index]


def test_allowed_tasks_are_added_and_a_failure_of_theirs_knows_their_action() -> None:
    run = hierarchy_drill(
        task("a"), authority={"roles": {"helper": {"actions": ["test"]}, "worker": {"resources": ["disk"]}}}
    )
    spawn = (
        {"id": "n", "agent": "worker", "action": "test", "retry_policy": "none", "input": {"resources": ["disk"]}},
    )
    run.receive(run.completed(run.attempt("a")).model_copy(update={"spawn": spawn}))
    run.tick()
    fail(run, run.attempt("n"))
    answer(run, "n-escalation-1", decision="reassign", to="helper")
    assert run.attempt("n").agent_id == "helper-1"


# Down ---------------------------------------------------------------------------------------------------------------


def test_the_lead_says_who_does_a_task_and_with_what_input() -> None:
    run = hierarchy_drill(task("a"), task("b", (0,)), teams=DELEGATING)
    asked = run.attempt("a-delegation-1")
    assert asked.agent_id == "chief-1"
    assert run.assigned() == ["a-delegation-1"], "b is not asked about before it is ready"
    told = note_of(run, "a-delegation-1")["delegation"]
    assert [m["agent_id"] for m in told["members"]] == ["worker-1", "worker-2", "helper-1"]
    run.continue_as_new()
    answer(run, "a-delegation-1", to="helper", input={"n": 1}, feedback="quickly")
    [sent] = run.deltas[-1].assigned
    assert (sent.agent_id, sent.overlay, sent.note["delegation"]["feedback"]) == ("helper-1", {"n": 1}, "quickly")
    [said] = run.audit("delegation.decided")
    assert (said["to"], said["outcome"], said["level"]) == ("helper", "carried_out", "L2")
    run.receive(run.completed(run.attempt("a")))
    run.tick()
    answer(run, "b-delegation-1", to="worker-2")
    assert run.attempt("b").agent_id == "worker-2"
    assert run.finish() is ExecutionStatus.COMPLETED


def test_a_retry_of_a_delegated_task_asks_nobody_again() -> None:
    run = hierarchy_drill(task("a", retry=RetryPolicy(max_attempts=2)), teams=DELEGATING)
    answer(run, "a-delegation-1", to="worker-2")
    run.receive(run.failed(run.attempt("a")))
    run.tick()
    run.tick(after_ms=2_000)
    assert run.attempt("a").agent_id == "worker-2"


@pytest.mark.parametrize(
    "document",
    [{"to": "nobody"}, {"to": "director"}, {"to": "board"}, {"to": "worker", "input": {"resources": 1}}, {"who": "me"}],
)
def test_a_lead_that_cannot_delegate_leaves_it_to_the_level_above(document: dict[str, Any]) -> None:
    run = hierarchy_drill(task("a"), teams=DELEGATING)
    for _ in range(2):
        answer(run, "a-delegation-1", **document)
    assert [e["outcome"] for e in run.audit("delegation.decided")] == ["refused", "refused"]
    assert raised(run) == [("a", "L2", "L1")]
    assert note_of(run, "a-escalation-1")["escalation"]["error"]["code"] == "DELEGATION_FAILED"
    answer(run, "a-escalation-1", decision="reassign", to="worker")
    assert run.attempt("a").agent_id == "worker-1"
    assert run.finish() is ExecutionStatus.COMPLETED


def test_a_lead_that_fails_at_delegating_leaves_it_to_the_level_above() -> None:
    run = hierarchy_drill(task("a"), teams=DELEGATING)
    fail(run, run.attempt("a-delegation-1"))
    assert raised(run) == [("a", "L2", "L1")]
    answer(run, "a-escalation-1", decision="escalate")
    assert run.state.status is ExecutionStatus.FAILED
    error = run.deltas[-1].error
    assert error is not None
    assert error.details["code"] == "DELEGATION_FAILED"


def test_a_task_is_handed_down_through_a_team() -> None:
    teams = {
        "board": {"lead": "director", "members": ["crew", "helper"], "delegation": "lead"},
        "crew": {"lead": "chief", "members": ["worker"], "delegation": "lead"},
    }
    run = hierarchy_drill(task("a", role="helper"), teams=teams)
    assert note_of(run, "a-delegation-1")["delegation"]["teams"] == ["crew"]
    answer(run, "a-delegation-1", to="crew", input={"n": 1})
    assert run.attempt("a-delegation-2").agent_id == "chief-1"
    answer(run, "a-delegation-2", to="worker")
    assert (run.attempt("a").agent_id, run.deltas[-1].assigned[0].overlay) == ("worker-1", {"n": 1})


def test_a_team_whose_lead_is_not_asked_is_no_answer() -> None:
    teams = {
        "board": {"lead": "director", "members": ["crew", "helper"], "delegation": "lead"},
        "crew": {"lead": "chief", "members": ["worker"]},
    }
    run = hierarchy_drill(task("a", role="helper"), teams=teams)
    answer(run, "a-delegation-1", to="crew")
    [said] = run.audit("delegation.decided")
    assert "name one of its roles" in str(said["reason"])


def test_a_task_that_runs_alone_is_delegated_too() -> None:
    run = hierarchy_drill(task("a", alone=True), task("b", role="director"), teams=DELEGATING)
    answer(run, "a-delegation-1", to="worker-2")
    assert run.phase("a") is Phase.READY, "b runs"
    run.receive(run.completed(run.attempt("b")))
    run.tick()
    assert run.attempt("a").agent_id == "worker-2"


# Span of control ----------------------------------------------------------------------------------------------------


def test_work_in_flight_below_a_lead_is_limited() -> None:
    run = hierarchy_drill(*(task(f"t{n}") for n in range(6)), slots=4, span_of_control={"in_flight_max": 3})
    assert len(run.in_flight()) == 3
    run.receive(run.completed(run.in_flight()[0]))
    run.tick()
    assert len(run.in_flight()) == 3
    assert run.finish() is ExecutionStatus.COMPLETED


def test_what_a_lead_is_asked_does_not_count() -> None:
    run = hierarchy_drill(task("a", retry=ONCE), task("b"), task("c"), slots=4, span_of_control={"in_flight_max": 1})
    fail(run, run.attempt("a"))
    assert {a.task_id for a in run.in_flight()} == {ASKED, "b"}


# Going back, pausing ------------------------------------------------------------------------------------------------


def test_what_a_superior_decides_while_paused_starts_after_the_resumption() -> None:
    run = failed_once()
    run.control("pause")
    run.tick()
    answer(run, ASKED, decision="retry")
    assert run.phase("a") is Phase.READY
    run.control("resume")
    run.tick()
    assert run.attempt("a").attempt == 2


def test_going_back_forgets_a_case_whose_task_runs_again() -> None:
    run = failed_once()
    run.control("pause")
    run.tick()
    run.rewind_to("00000000-0000-4000-8000-000000000009")
    run.tick()
    assert ASKED not in run.state.index
    assert not [key for key in run.state.board if key.startswith("a/")]
    assert run.attempt("a").attempt == 2
    fail(run, run.attempt("a"))
    assert raised(run) == [("a", "L3", "L2"), ("a", "L3", "L2")]


def test_who_was_asked_in_vain_is_not_asked_again_when_what_it_was_about_stays_solved() -> None:
    """The chief was asked and failed, the director solved it; after going back to behind that, nobody waits for it."""
    run = failed_once()
    fail(run, run.attempt(ASKED))
    answer(run, "a-escalation-2", decision="resolve", result=1)
    run.control("pause")
    run.tick()
    run.rewind_to("00000000-0000-4000-8000-000000000009")
    run.tick()
    assert run.phase(ASKED) is Phase.CANCELLED
    assert run.phase("a") is Phase.COMPLETED
    assert [attempt.task_id for attempt in run.in_flight()] == ["b"]
    assert run.finish() is ExecutionStatus.COMPLETED
