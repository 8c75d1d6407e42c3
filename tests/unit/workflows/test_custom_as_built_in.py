"""Built-in patterns written in the coordination language do what the built-in ones do."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput, KernelTask
from tests.unit.workflows import drill as drills
from tests.unit.workflows import test_kernel
from tests.unit.workflows.drill import launch_input, task
from tests.unit.workflows.stage import Broken, Call, Stage
from workflows.policies.custom import CustomPolicy

SUPERVISOR: dict[str, Any] = {
    "start": "work",
    "states": {"work": {"do": "assign", "own": True, "next": "end"}, "end": {"do": "finish"}},
}
"""Each task goes to the least-loaded agent of its role; its result is the task's."""

WITHOUT_JUDGEMENT = {
    # Of a judged end the tick says that it was submitted and settled, not that the task was done.
    "test_a_diamond_runs_its_branches_together_and_joins_after_both",
    "test_a_result_that_comes_with_the_news_of_its_hosts_death_counts",
    "test_a_vanished_agents_tasks_go_to_another_at_once_and_its_late_result_is_refused",
    "test_pause_starts_nothing_new_records_late_results_and_resumes_where_it_was",
    "test_times_are_clamped_between_assignment_and_receipt",
    "test_what_people_see_names_what_happened",
    # A task that the pattern completes is completed a moment after the interval's checkpoint was looked at.
    "test_a_checkpoint_is_made_each_interval_when_something_was_done",
}
"""What these say of a tick's form is true of patterns that do not judge ends; none of them is about what happens."""

SUPERVISOR_TESTS = [
    test
    for name, test in inspect.getmembers(test_kernel, inspect.isfunction)
    if name.startswith("test_") and not inspect.signature(test).parameters and name not in WITHOUT_JUDGEMENT
]


@pytest.mark.parametrize("test", SUPERVISOR_TESTS, ids=lambda test: test.__name__)
def test_the_supervisors_tests_pass_when_it_is_written_in_the_language(
    test: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(*tasks: KernelTask, **fields: Any) -> ExecutionInput:
        settings = {"name": "p", "version": "1", "config": {}, "logic": SUPERVISOR}
        return launch_input(*tasks, **{"pattern_config": settings, **fields})

    monkeypatch.setattr(test_kernel, "launch_input", launch)
    monkeypatch.setattr(drills, "SupervisorPolicy", CustomPolicy)
    test()


def test_most_of_the_supervisors_tests_are_among_them() -> None:
    assert len(SUPERVISOR_TESTS) >= 35
    assert {name for name, _ in inspect.getmembers(test_kernel, inspect.isfunction)} >= WITHOUT_JUDGEMENT


HANDOFF: dict[str, Any] = {
    "start": "stages",
    "variables": {"at": 0, "context": {}, "history": [], "answer": None, "good": False, "feedback": None},
    "states": {
        "stages": {"do": "loop", "max": 50, "while": "at < size(config.stages)", "body": "tries", "next": "end"},
        "tries": {"do": "loop", "max": 20, "while": "not good and loops.tries < config.tries", "body": "hand",
                  "next": "after"},
        "hand": {"do": "assign", "role": "config.stages[at]", "action": "config.stages[at]",
                 "input": "{context: context, history: history, feedback: feedback}", "save": "answer",
                 "next": "gate"},
        "gate": {"do": "route", "cases": [{"when": "size(answer.text) >= config.least", "next": "take"}],
                 "otherwise": "reject"},
        "take": {"do": "set", "values": {"good": "true", "context": "answer", "feedback": "null",
                                         "history": "history + [{by: config.stages[at], added: answer.text}]"},
                 "next": "tries"},
        "reject": {"do": "set", "values": {"feedback": "'at least ' + 'so many characters'"}, "next": "tries"},
        "after": {"do": "route", "cases": [{"when": "good", "next": "onward"}], "otherwise": "stay"},
        "onward": {"do": "set", "values": {"at": "at + 1", "good": "false"}, "next": "stages"},
        "stay": {"do": "finish", "result": "{context: context, history: history, stopped_at: config.stages[at]}"},
        "end": {"do": "finish", "result": "{context: context, history: history}"},
    },
}  # fmt: skip
STAGES = ("draft", "edit", "proof")


def handoff(agent: Callable[[Call], Any], tries: int = 3) -> Stage:
    roles = [task(name, role=name) for name in STAGES]
    config = {"stages": list(STAGES), "tries": tries, "least": 3}
    logic = {**HANDOFF, "handles": "task.id == 't'"}
    return Stage(logic, agent, task("t", role="draft"), *roles, config=config)


def test_a_handoff_carries_the_context_from_agent_to_agent_with_who_added_what() -> None:
    def agent(call: Call) -> Any:
        if "context" not in call.input:
            return None  # the roles' own tasks
        return {"text": call.input["context"].get("text", "") + call.action}

    stage = handoff(agent)
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"]["context"] == {"text": "drafteditproof"}
    assert [entry["by"] for entry in stage.results["t"]["history"]] == list(STAGES)
    heard = [call for call in stage.calls if "context" in call.input]
    assert [len(call.input["history"]) for call in heard] == [0, 1, 2]


def test_a_rejected_handover_goes_back_with_feedback_and_after_its_tries_the_last_accepted_state_stands() -> None:
    def agent(call: Call) -> Any:
        if call.action == "edit" and "context" in call.input:
            return {"text": "x"}
        return {"text": "good"}

    stage = handoff(agent, tries=2)
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == {
        "context": {"text": "good"}, "history": [{"by": "draft", "added": "good"}], "stopped_at": "edit"
    }  # fmt: skip
    edits = [call for call in stage.calls if call.action == "edit" and "context" in call.input]
    assert [call.input["feedback"] is None for call in edits] == [True, False]


SWARM: dict[str, Any] = {
    "start": "rounds",
    "variables": {"seen": {}, "poll": None},
    "states": {
        "rounds": {"do": "loop", "max": 10, "while": "loops.rounds < config.rounds", "body": "poll", "next": "none"},
        "poll": {"do": "vote", "action": "task.id", "input": "{round: loops.rounds, seen: seen}",
                 "choice": "ballot.vote", "save": "poll", "decided": "end", "undecided": "remember"},
        "remember": {"do": "set", "values": {"seen": "poll.votes"}, "next": "rounds"},
        "none": {"do": "finish", "outcome": "fail", "error": "'no decision: ' + poll.verdict"},
        "end": {"do": "finish", "result": "{decision: poll.decision, rounds: loops.rounds, votes: poll.votes}"},
    },
}  # fmt: skip


def test_a_swarm_votes_in_rounds_and_its_decision_is_the_tasks_result() -> None:
    def agent(call: Call) -> Any:
        if call.input["round"] == 1:
            return {"vote": ["red", "blue", "green"][int(call.agent_id[-1]) - 1]}
        return {"vote": call.input["seen"]["worker-1"]}

    stage = Stage(SWARM, agent, config={"rounds": 3})
    assert stage.play() is ExecutionStatus.COMPLETED
    assert stage.results["t"] == {
        "decision": "red", "rounds": 2, "votes": dict.fromkeys(("worker-1", "worker-2", "worker-3"), "red")
    }  # fmt: skip
    assert len(stage.audit("vote.counted")) == 2
    assert len(stage.calls) == 6, "one vote a member a round"


def test_a_swarm_that_never_agrees_makes_no_decision() -> None:
    stage = Stage(SWARM, lambda call: {"vote": call.agent_id}, config={"rounds": 2})
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.failures["t"] == ("PATTERN_FAILED", "no decision: below_threshold")


SAGA: dict[str, Any] = {
    "start": "steps",
    "variables": {"at": 0},
    "states": {
        "steps": {"do": "loop", "max": 50, "while": "at < size(config.steps)", "body": "step", "next": "end"},
        "step": {"do": "assign", "action": "config.steps[at]", "undo": "'undo-' + config.steps[at]", "attempts": 1,
                 "next": "onward", "on_failure": "back"},
        "onward": {"do": "set", "values": {"at": "at + 1"}, "next": "steps"},
        "back": {"do": "compensate", "save": "undone", "next": "failed", "on_failure": "partial"},
        "failed": {"do": "finish", "outcome": "fail", "error": "error.message"},
        "partial": {"do": "finish", "outcome": "fail", "error": "'left: ' + undone.left[0]"},
        "end": {"do": "finish"},
    },
}  # fmt: skip


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_saga_undoes_what_was_done_in_reverse_and_names_what_is_left(stubborn: bool) -> None:
    def agent(call: Call) -> Any:
        if call.action == "pay" or (stubborn and call.action == "undo-flight"):
            raise Broken

    stage = Stage(SAGA, agent, config={"steps": ["flight", "hotel", "pay"]})
    assert stage.play() is ExecutionStatus.FAILED
    assert stage.actions() == ["flight", "hotel", "pay", "undo-hotel", "undo-flight"]
    assert stage.failures["t"][1] == ("left: t-step-2-0" if stubborn else "t-step-8-0 is broken")
