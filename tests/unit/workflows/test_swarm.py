"""Swarm: rounds, votes, decisions, and what is refused."""

from typing import Any

import pytest

from engine.contracts.execution import ExecutionStatus
from tests.unit.workflows.assembly_drill import AssemblyDrill, assembly_input
from tests.unit.workflows.drill import launch_input, task
from workflows.kernel.state import Phase
from workflows.policies.swarm import SwarmPolicy


def drill(config: dict[str, Any], members: int = 3, *tasks: str, **fields: Any) -> AssemblyDrill:
    return AssemblyDrill(assembly_input(config, *tasks, members=members, **fields), SwarmPolicy())


def votes(*choices: Any) -> Any:
    """worker-1 votes for the first, and so on."""
    return lambda agent_id, _: {"vote": choices[int(agent_id.rpartition("-")[2]) - 1]}


def test_all_members_are_asked_and_their_votes_decide() -> None:
    swarm = drill({"options": ["a", "b"]})
    swarm.tick()
    assert {a.agent_id for a in swarm.in_flight()} == {"worker-1", "worker-2", "worker-3"}
    assert swarm.told["q[0]"] == {"round": 1, "phase": "vote"}
    swarm.answer_all(votes("a", "b", "a"))
    swarm.tick()
    assert swarm.state.status is ExecutionStatus.COMPLETED
    result = swarm.result()
    assert (result["decision"], result["verdict"], result["rounds"]) == ("a", "decided", 1)
    assert result["tally"] == [{"choice": "a", "weight": 2}, {"choice": "b", "weight": 1}]
    assert result["dissent"] == [{"agent_id": "worker-2", "choices": "b"}]


def test_each_vote_is_in_the_audit_log_and_so_is_the_count() -> None:
    swarm = drill({"options": ["a", "b"]})
    swarm.run(lambda agent_id, _: {"vote": "a", "reason": f"{agent_id} says so"})
    cast = [event.payload for event in swarm.facts("vote.cast")]
    assert [(c["task_id"], c["round"], c["agent_id"], c["choices"], c["reason"]) for c in cast] == [
        ("q", 1, f"worker-{n}", ["a"], f"worker-{n} says so") for n in (1, 2, 3)
    ]
    (counted,) = swarm.facts("vote.counted")
    assert counted.payload["final"] is True
    assert counted.payload["decision"] == "a"
    assert counted.payload["candidates"] == ["a", "b"]


def test_dependents_get_the_decision_and_nothing_is_remembered() -> None:
    swarm = drill({"options": ["a"]}, 2, "q", "r")
    swarm.run(votes("a", "a"))
    assert swarm.result("q")["decision"] == swarm.result("r")["decision"] == "a"
    assert swarm.state.board == {}
    assert swarm.state.submitted == {}


def test_a_question_that_waits_for_another_is_asked_of_all_members_too() -> None:
    specs = [task("q"), task("r", deps=(0,))]
    swarm = AssemblyDrill(launch_input(*specs, agents=2, pattern_config={}), SwarmPolicy(), slots=4)
    swarm.run(votes("a", "a"))
    assert swarm.result("r")["voted"] == 2
    assert set(swarm.assigned()) == {"q[0]", "q[1]", "r[0]", "r[1]"}


def test_without_a_decision_there_is_another_round_in_which_members_see_the_votes() -> None:
    swarm = drill({"options": ["a", "b", "c"], "convergence": {"rounds": 5}})
    swarm.tick()
    swarm.answer_all(votes("a", "b", "c"))
    swarm.tick()
    assert swarm.told["q[0]"] == {
        "round": 2, "phase": "vote", "own": "a", "seen": {"worker-2": "b", "worker-3": "c"}
    }  # fmt: skip
    swarm.answer_all(votes("a", "b", "b"))
    swarm.tick()
    assert swarm.result()["decision"] == "b"
    assert [event.payload["final"] for event in swarm.facts("vote.counted")] == [False, True]


def test_a_member_sees_its_neighbours_only() -> None:
    config = {"topology": {"kind": "ring"}, "voting": {"rule": "unanimous"}}
    swarm = drill(config, 5)
    swarm.tick()
    swarm.answer_all(votes(1, 2, 3, 4, 5))
    swarm.tick()
    assert swarm.told["q[0]"]["seen"] == {"worker-2": 2, "worker-5": 5}
    assert swarm.told["q[2]"]["seen"] == {"worker-2": 2, "worker-4": 4}


def test_in_a_large_full_swarm_a_member_sees_the_tally() -> None:
    swarm = drill({"voting": {"rule": "unanimous"}, "shown_max": 2}, 5)
    swarm.tick()
    swarm.answer_all(votes("a", "b", "a", "b", "a"))
    swarm.tick()
    assert swarm.told["q[3]"] == {
        "round": 2, "phase": "vote", "own": "b", "tally": [["a", 3], ["b", 2]]
    }  # fmt: skip


def test_the_hub_of_a_star_sees_how_its_neighbours_voted() -> None:
    swarm = drill({"voting": {"rule": "unanimous"}, "shown_max": 2, "topology": {"kind": "star"}}, 5)
    swarm.tick()
    swarm.answer_all(votes("x", "b", "a", "a", "a"))
    swarm.tick()
    assert swarm.told["q[0]"]["tally"] == [["a", 3], ["b", 1]]
    assert swarm.told["q[1]"]["seen"] == {"worker-1": "x"}


def test_members_propose_what_is_voted_on() -> None:
    swarm = drill({"proposals": "first", "candidates_max": 2}, 4)
    swarm.tick()
    assert swarm.told["q[0]"] == {"round": 1, "phase": "propose"}
    swarm.answer_all(
        lambda agent_id, _: {"proposal": {"worker-1": "z", "worker-2": "b", "worker-3": "b"}.get(agent_id)}
    )
    swarm.tick()
    assert swarm.told["q[3]"] == {"round": 1, "phase": "vote", "candidates": ["b", "z"]}
    swarm.answer_all(votes("z", "z", "z", "other"))
    swarm.tick()
    assert swarm.result()["decision"] == "z"
    assert len(swarm.facts("vote.proposed")) == 3
    assert [event.payload["reason"] for event in swarm.facts("vote.refused")] == ["invalid"]


def test_members_may_propose_anew_before_every_round() -> None:
    swarm = drill({"proposals": "every", "voting": {"rule": "unanimous"}}, 2)
    swarm.tick()
    swarm.answer_all(lambda agent_id, _: agent_id)
    swarm.tick()
    swarm.answer_all(votes("worker-1", "worker-2"))
    swarm.tick()
    assert swarm.told["q[0]"]["phase"] == "propose"
    assert swarm.told["q[0]"]["seen"] == {"worker-2": "worker-2"}
    swarm.answer_all(lambda *_: "c")
    swarm.tick()
    assert swarm.told["q[0]"]["candidates"] == ["c"]
    swarm.answer_all(votes("c", "c"))
    swarm.tick()
    assert swarm.result()["decision"] == "c"


def test_where_nobody_proposes_nothing_is_decided() -> None:
    swarm = drill({"proposals": "first"}, 2)
    swarm.run(lambda *_: None)
    assert swarm.state.status is ExecutionStatus.FAILED
    assert swarm.audit("error.occurred")[0]["error_type"] == "NO_DECISION"


def test_when_nobody_changes_the_vote_any_more_it_ends() -> None:
    swarm = drill({"rounds_max": 50, "on_undecided": "complete"}, 2)
    swarm.run(votes("a", "b"))
    result = swarm.result()
    assert (result["decision"], result["verdict"], result["rounds"]) == (None, "below_threshold", 2)
    assert result["converged"] is True
    assert swarm.state.status is ExecutionStatus.COMPLETED


def test_convergence_may_ask_for_more_rounds() -> None:
    swarm = drill({"rounds_max": 50, "on_undecided": "complete", "convergence": {"rounds": 3}}, 2)
    swarm.run(votes("a", "b"))
    assert swarm.result()["rounds"] == 4


def test_without_a_decision_the_task_fails() -> None:
    swarm = drill({"rounds_max": 1}, 2)
    swarm.run(votes("a", "b"))
    assert swarm.state.status is ExecutionStatus.FAILED
    assert "no decision in 1 rounds" in str(swarm.audit("error.occurred")[0]["error_message"])


def test_what_is_no_vote_is_refused_and_recorded_and_counts_as_none() -> None:
    swarm = drill({"options": ["a", "b"], "voting": {"of": "votes"}})
    answers = {"worker-1": {"vote": "a"}, "worker-2": {"vote": "a", "member": "worker-3"}, "worker-3": "elsewhere"}
    swarm.run(lambda agent_id, _: answers[agent_id])
    assert swarm.result()["voted"] == 1
    refused = [(e.payload["agent_id"], e.payload["reason"]) for e in swarm.facts("vote.refused")]
    assert refused == [("worker-2", "invalid"), ("worker-3", "invalid")]


def test_a_result_that_travels_by_reference_is_no_vote() -> None:
    swarm = drill({"voting": {"of": "votes"}}, 2)
    swarm.tick()
    first, second = swarm.in_flight()
    swarm.receive(swarm.completed(first, "a").model_copy(update={"result": None, "result_ref": "x"}))
    swarm.say(second, "a")
    swarm.tick()
    assert swarm.result()["voted"] == 1


def test_a_member_that_fails_for_good_has_no_vote_in_that_round() -> None:
    swarm = drill({"voting": {"of": "votes"}, "rounds_max": 2}, 3)
    swarm.tick()
    one, two, three = swarm.in_flight()
    swarm.receive(swarm.failed(one, retryable=False))
    swarm.say(two, "a")
    swarm.say(three, "b")
    swarm.tick()
    assert len(swarm.in_flight()) == 3, "it is asked again in the next round"
    swarm.answer_all(lambda *_: "b")
    swarm.tick()
    assert swarm.result()["decision"] == "b"


def test_a_round_ends_when_its_time_is_over_and_late_votes_are_refused() -> None:
    swarm = drill({"round_seconds": 10, "voting": {"rule": "quorum", "quorum": "2/3"}}, 3)
    swarm.tick()
    one, two, three = swarm.in_flight()
    swarm.say(one, "a")
    swarm.tick(1_000)
    assert swarm.policy.next_due_ms(swarm.state) == swarm.now_ms - 1_000 + 10_000
    swarm.tick(10_000)
    assert swarm.facts("vote.counted")[0].payload["verdict"] == "no_quorum"
    assert swarm.told["q[0]"]["round"] == 2
    assert swarm.told["q[1]"]["round"] == 1, "it still works on the first round"
    swarm.say(two, "b")
    swarm.tick()
    (late,) = swarm.facts("vote.refused")
    assert (late.payload["agent_id"], late.payload["reason"], late.payload["round"]) == ("worker-2", "late", 1)
    assert swarm.told["q[1]"]["round"] == 2, "and is asked for the present one"
    for attempt in swarm.in_flight():
        if attempt.task_id != three.task_id:
            swarm.say(attempt, "a")
    swarm.tick()
    swarm.tick(10_000)
    assert swarm.result()["decision"] == "a"
    assert swarm.phase(three.task_id) is Phase.CANCELLED


def test_the_time_of_a_round_stands_still_while_paused() -> None:
    swarm = drill({"round_seconds": 10}, 2)
    swarm.tick()
    swarm.control("pause")
    swarm.tick()
    swarm.tick(60_000)
    assert swarm.facts("vote.counted") == []
    swarm.control("resume")
    swarm.tick()
    swarm.tick(5_000)
    assert swarm.facts("vote.counted") == []
    swarm.tick(5_000)
    assert len(swarm.facts("vote.counted")) == 1


def test_an_early_decision_stops_those_who_have_not_voted() -> None:
    swarm = drill({"early": True, "options": ["a", "b"]}, 5)
    swarm.tick()
    flying = swarm.in_flight()
    for attempt in flying[:3]:
        swarm.say(attempt, "a")
    swarm.tick()
    assert swarm.result()["decision"] == "a"
    swarm.say(flying[4], "b")
    swarm.tick()
    assert swarm.facts("task.late_result_refused") or swarm.state.closed
    assert swarm.phase(flying[4].task_id) is Phase.CANCELLED


def test_a_vote_by_a_stranger_or_twice_changes_nothing_and_is_recorded() -> None:
    swarm = drill({"options": ["a", "b"], "voting": {"rule": "quorum"}}, 3)
    swarm.tick()
    one, two, three = swarm.in_flight()
    swarm.say(one, "a")
    swarm.tick()
    swarm.receive(swarm.completed(one, "b"))  # a second vote of the same attempt
    swarm.receive(swarm.completed(two.model_copy(update={"agent_id": "worker-1"}), "b"))  # in another's name
    swarm.receive(swarm.completed(two.model_copy(update={"agent_id": "stranger-1"}), "b"))
    swarm.receive(swarm.completed(three.model_copy(update={"task_id": "q[7]"}), "b"))
    swarm.tick()
    assert len(swarm.facts("task.late_result_refused")) == 3
    swarm.say(two, "a")
    swarm.say(three, "b")
    swarm.tick()
    assert swarm.result()["tally"] == [{"choice": "a", "weight": 2}, {"choice": "b", "weight": 1}]
    assert len(swarm.facts("vote.cast")) == 3


def test_a_vote_in_anothers_name_does_not_stop_the_one_who_is_asked() -> None:
    swarm = drill({}, 2)
    swarm.tick()
    _, two = swarm.in_flight()
    swarm.receive(swarm.completed(two.model_copy(update={"agent_id": "worker-1"}), "b"))
    swarm.receive(swarm.completed(two.model_copy(update={"attempt": 0}), "b"))
    decision = swarm.tick()
    assert [(attempt.agent_id, attempt.attempt) for attempt in decision.cancel] == [("worker-2", 0)]


def test_a_repeated_report_of_a_vote_that_counts_is_no_news() -> None:
    swarm = drill({}, 2)
    swarm.tick()
    one, _ = swarm.in_flight()
    swarm.say(one, "a")
    swarm.tick()
    swarm.say(one, "a")
    swarm.tick()
    assert swarm.facts("task.late_result_refused") == []


def test_each_question_may_have_settings_of_its_own() -> None:
    config = {"rounds_max": 1, "questions": {"r": {"voting": {"rule": "quorum"}}}, "on_undecided": "complete"}
    swarm = drill(config, 2, "q", "r")
    swarm.run(votes("a", "b"))
    assert swarm.result("q")["decision"] is None
    assert swarm.result("r")["decision"] == "a"


def test_more_members_than_an_execution_may_ask_fail_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.kernel.desk.TASKS_DYNAMIC_MAX", 3)
    swarm = drill({}, 2, "q", "r", on_failure="finish_branches")
    swarm.run(votes("a", "a"))
    assert [error["error_type"] for error in swarm.audit("error.occurred")][0:1] == ["TOO_MANY_MEMBERS"]
    assert swarm.result("q")["decision"] == "a", "the other question is decided"


def test_what_one_tick_sends_is_bounded() -> None:
    swarm = drill({"proposals": "first", "candidates_max": 100}, 150)
    swarm.tick()
    swarm.answer_all(lambda agent_id, _: agent_id.ljust(150, "x"))
    swarm.tick()
    notes = [len(delta.model_dump_json(exclude_defaults=True)) for delta in swarm.deltas]
    assert max(notes) < 2 * 1024 * 1024 / 2
    assert swarm.policy.next_due_ms(swarm.state) == 0, "the others are due at once"
    swarm.run(lambda _, told: told["candidates"][0])
    assert swarm.result()["voted"] == 150


def test_a_rewind_asks_the_question_anew() -> None:
    swarm = drill({}, 2, "q", "r")
    swarm.control("checkpoint", checkpoint_id="c1")
    swarm.tick()
    for attempt in swarm.in_flight():
        if attempt.task_id.startswith("q["):
            swarm.say(attempt, "a")
    swarm.tick()
    assert swarm.phase("q") is Phase.COMPLETED
    swarm.control("pause")
    swarm.tick()
    swarm.rewind_to("c1", "q", "q[0]", "q[1]")
    swarm.tick()
    assert swarm.state.epoch == 2
    swarm.run(lambda *_: "b")
    assert swarm.result("q")["decision"] == "b"


def test_going_back_does_not_ask_again_for_a_question_that_stays_decided() -> None:
    config = {"early": True, "options": ["a", "b"]}
    swarm = AssemblyDrill(
        launch_input(task("q"), task("r", deps=(0,)), agents=5, pattern_config=config), SwarmPolicy(), slots=4
    )
    swarm.tick()
    late = swarm.in_flight()[3:]
    for attempt in swarm.in_flight()[:3]:
        swarm.say(attempt, "a")
    swarm.tick()
    assert swarm.phase("q") is Phase.COMPLETED
    swarm.control("pause", checkpoint_id="c1")
    swarm.tick()
    swarm.rewind_to("c1")
    swarm.tick()
    assert [swarm.phase(attempt.task_id) for attempt in late] == [Phase.CANCELLED, Phase.CANCELLED]
    assert {attempt.task_id for attempt in swarm.in_flight()} == {f"r[{n}]" for n in range(5)}
    swarm.continue_as_new()
    swarm.run(lambda *_: "b")
    assert swarm.state.status is ExecutionStatus.COMPLETED
    assert swarm.result("r")["decision"] == "b"
