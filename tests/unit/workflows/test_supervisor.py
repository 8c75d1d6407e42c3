"""The supervisor with settings: strategies, limits, and a supervising agent that reviews what workers bring."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.definition import RetryPolicy
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Attempt, ExecutionInput, KernelPlan, KernelRole
from tests.unit.workflows.drill import Drill, launch_input, outcome, task
from workflows.kernel.state import Phase
from workflows.policies.supervisor import SupervisorPolicy, supervisor_policy

REVIEW: dict[str, Any] = {"review": {"agent": "lead"}}


def supervised(*tasks: Any, config: dict[str, Any], agents: int = 2, slots: int = 1, leads: int = 1) -> Drill:
    """Workers, and leads that nothing in the plan is for."""
    made = launch_input(*tasks, agents=agents, pattern_config=config)
    roles = {**made.plan.roles, "lead": KernelRole(type="synthetic", count=leads)}
    plan = KernelPlan(tasks=made.plan.tasks, roles=roles, on_failure=made.plan.on_failure)
    launch: ExecutionInput = made.model_copy(update={"plan": plan})
    return Drill(launch, slots=slots, policy=supervisor_policy(config))


def many(count: int, **fields: Any) -> list[Any]:
    return [task(f"t{n:02}", **fields) for n in range(count)]


def complete(run: Drill, *attempts: Attempt, after_ms: int) -> list[Attempt]:
    """These end after so long; what is assigned then."""
    run.now_ms += after_ms
    run.receive(*(run.completed(attempt) for attempt in attempts))
    return list(run.tick().delta.assigned)


def by_agent(attempts: list[Attempt]) -> dict[str, int]:
    return dict(Counter(attempt.agent_id for attempt in attempts))


# Strategies ------------------------------------------------------------------------------------------------------


def test_without_settings_the_policy_is_the_one_that_looks_ahead_and_does_not_coordinate() -> None:
    policy = supervisor_policy({})
    assert type(policy) is SupervisorPolicy
    assert (policy.looks_ahead, policy.fuses_chains, policy.coordinates) == (True, True, False)
    assert type(supervisor_policy({"strategy": "least_loaded", "review": None})) is SupervisorPolicy


@pytest.mark.parametrize(
    ("config", "coordinates"), [({"max_in_flight": 1}, False), ({"strategy": "round_robin"}, False), (REVIEW, True)]
)
def test_a_policy_with_settings_gives_nothing_ahead_and_coordinates_only_for_a_review(
    config: dict[str, Any], coordinates: bool
) -> None:
    policy = supervisor_policy(config)
    assert (policy.looks_ahead, policy.fuses_chains, policy.coordinates) == (False, False, coordinates)


def test_round_robin_gives_each_agent_its_turn_also_over_ticks_and_runs() -> None:
    run = supervised(*many(9), config={"strategy": "round_robin"}, agents=3)
    run.tick()
    order = [attempt.agent_id for attempt in run.deltas[-1].assigned]
    assert order == ["worker-1", "worker-2", "worker-3"]
    # Whose turn is longest ago is first, whatever its number, also in the next run.
    for name in ("worker-3", "worker-1"):
        run.continue_as_new()
        done = next(a for a in run.in_flight() if a.agent_id == name)
        order += [attempt.agent_id for attempt in complete(run, done, after_ms=5_000)]
    assert order[3:] == ["worker-3", "worker-1"]
    given = complete(run, *run.in_flight(), after_ms=5_000)
    assert [attempt.agent_id for attempt in given] == ["worker-2", "worker-3", "worker-1"]
    assert run.finish() is ExecutionStatus.COMPLETED


def test_round_robin_passes_over_agents_without_a_host() -> None:
    run = supervised(*many(4), config={"strategy": "round_robin"}, agents=3)
    run.bind("worker-2", host_id="host-2")
    run.inbox.bindings = [b for b in run.inbox.bindings if b.agent_id != "worker-2" or b.host_id == "host-2"]
    run.tick()
    run.host_lost("host-2")
    run.tick(after_ms=100)
    run.receive(*(run.completed(attempt) for attempt in run.in_flight()))
    run.tick(after_ms=5_000)
    assert by_agent(run.in_flight()).get("worker-2", 0) == 0


def test_weighted_by_speed_gives_the_faster_agent_more() -> None:
    run = supervised(*many(60), config={"strategy": "weighted"}, agents=2, slots=10)
    run.tick()
    assert by_agent(run.in_flight()) == {"worker-1": 10, "worker-2": 10}
    of = {name: [a for a in run.in_flight() if a.agent_id == name] for name in ("worker-1", "worker-2")}
    given = complete(run, *of["worker-1"], after_ms=100)
    assert by_agent(given) == {"worker-1": 10}
    run.continue_as_new()
    given = complete(run, *run.in_flight(), after_ms=300)
    paces = [run.state.agents[name].pace_ms or 0.0 for name in ("worker-1", "worker-2")]
    assert paces[0] < paces[1]
    # Of the first ones the faster agent has more.
    first = Counter(attempt.agent_id for attempt in given[:6])
    assert first["worker-1"] > first["worker-2"]


def test_an_agent_whose_speed_is_not_known_is_taken_for_average() -> None:
    run = supervised(*many(30), config={"strategy": "weighted"}, agents=3, slots=2)
    run.tick()
    complete(run, *(a for a in run.in_flight() if a.agent_id != "worker-3"), after_ms=1_000)
    assert run.state.agents["worker-3"].pace_ms is None
    assert by_agent(run.in_flight()) == {"worker-1": 2, "worker-2": 2, "worker-3": 2}


def test_weighted_by_capability_gives_a_task_to_whom_has_what_it_wants() -> None:
    config = {
        "strategy": "weighted",
        "weight_by": "capability",
        "capabilities": {"worker-2": ["sql"], "worker-3": ["sql", "python"]},
        "wanted": {"t00": ["sql", "python"], "t01": ["sql"], "t02": ["rust"]},
    }
    run = supervised(*many(4), config=config, agents=3, slots=1)
    run.tick()
    assert {a.task_id: a.agent_id for a in run.in_flight()} == {"t00": "worker-3", "t01": "worker-2", "t02": "worker-1"}
    assert run.finish() is ExecutionStatus.COMPLETED


def test_elements_of_a_list_want_what_their_task_wants() -> None:
    config = {
        "strategy": "weighted",
        "weight_by": "capability",
        "capabilities": {"worker-2": ["sql"]},
        "wanted": {"each": ["sql"]},
    }
    run = supervised(task("each", for_each=True), config=config, agents=2, slots=4)
    run.tick()
    run.evaluate(lambda task_id: outcome(task_id, "expand", size=3, items_ref="sha256:0"))
    run.tick()
    assert by_agent(run.in_flight()) == {"worker-2": 2, "worker-1": 1}


@pytest.mark.parametrize("strategy", ["least_loaded", "round_robin", "weighted"])
def test_no_agent_has_more_in_flight_than_the_limit(strategy: str) -> None:
    run = supervised(*many(20), config={"strategy": strategy, "max_in_flight": 2}, agents=2, slots=5)
    for _ in range(30):
        run.tick(after_ms=1)
        assert all(load <= 2 for load in by_agent(run.in_flight()).values())
        if run.state.closed:
            break
        run.receive(*(run.completed(attempt) for attempt in run.in_flight()))
    assert run.state.status is ExecutionStatus.COMPLETED


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_strategy_keeps_within_slots_and_loses_no_task(data: st.DataObject) -> None:
    strategy = data.draw(st.sampled_from(["least_loaded", "round_robin", "weighted"]))
    limit = data.draw(st.sampled_from([None, 1, 3]))
    config: dict[str, Any] = {"strategy": strategy, "max_in_flight": limit}
    run = supervised(*many(12), config=config, agents=3, slots=data.draw(st.integers(1, 3)))
    for _ in range(60):
        if run.state.closed:
            break
        for attempt in run.in_flight():
            match data.draw(st.sampled_from(["wait", "done", "fail"])):
                case "done":
                    run.receive(run.completed(attempt))
                case "fail":
                    run.receive(run.failed(attempt))
        if data.draw(st.integers(0, 7)) == 0:
            run.continue_as_new()
        run.tick(after_ms=data.draw(st.sampled_from([1, 50, 3_000])))
        for agent in run.state.agents.values():
            assert agent.load <= max(agent.slots, 1) + 500 if limit is None else agent.load <= limit
    assert run.state.closed or run.finish() in (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED)


# Reviews ---------------------------------------------------------------------------------------------------------


def reviewed(config: dict[str, Any] | None = None, **fields: Any) -> Drill:
    """A task whose first result lies before the reviewer."""
    retry = RetryPolicy(max_attempts=1)
    run = supervised(task("a", retry=retry), task("b", (0,), retry=retry), config=config or REVIEW, **fields)
    run.tick()
    run.receive(run.completed(run.attempt("a"), {"text": "draft"}))
    run.tick()
    return run


def say(run: Drill, answer: Any, after_ms: int = 1) -> None:
    """The review that is in flight ends so."""
    [review] = [a for a in run.in_flight() if "-review-" in a.task_id]
    run.receive(run.completed(review, answer))
    run.tick(after_ms)


def test_a_review_is_told_what_it_is_about_and_an_accepted_result_completes_its_task() -> None:
    run = reviewed()
    [asked] = run.deltas[-1].assigned
    assert (asked.task_id, asked.agent_id) == ("a-review-1", "lead-1")
    assert asked.note == {
        "task": "a",
        "agent": "worker-1",
        "attempt": 1,
        "review": 1,
        "reviews_max": 3,
        "verdicts": ["accept", "reject", "reassign", "spawn"],
        "agents": ["worker-1", "worker-2"],
        "feedback": [],
        "result": {"text": "draft"},
    }
    assert run.phase("b") is Phase.PENDING
    say(run, {"verdict": "accept"})
    assert run.phase("a") is Phase.COMPLETED
    assert run.phase("b") is Phase.ASSIGNED
    assert run.audit("review.given") == [
        {"task_id": "a", "agent_id": "worker-1", "attempt": 1, "verdict": "accept", "feedback": ""}
    ]


def test_a_large_result_is_shown_to_the_reviewer_by_where_it_is_stored() -> None:
    run = supervised(task("a"), config=REVIEW)
    run.tick()
    event = run.completed(run.attempt("a")).model_copy(update={"result_ref": "sha256:1"})
    run.receive(event)
    note = run.tick().delta.assigned[0].note
    assert note["stored"] == {"result": "sha256:1"}
    assert "result" not in note
    say(run, {"verdict": "reject", "feedback": "shorter"})
    assert run.deltas[-1].assigned[0].note["stored"] == {"result": "sha256:1"}


def test_a_rejected_result_goes_back_with_all_feedback_so_far_until_the_rounds_are_over() -> None:
    run = reviewed()
    for n, feedback in enumerate(["too long", "too short"], start=1):
        say(run, {"verdict": "reject", "feedback": feedback})
        [again] = run.deltas[-1].assigned
        assert (again.task_id, again.attempt) == ("a", n + 1)
        assert again.note["result"] == {"text": "draft"}
        assert [item["feedback"] for item in again.note["feedback"]] == ["too long", "too short"][:n]
        run.receive(run.completed(run.attempt("a"), {"text": "draft"}))
        run.tick()
    assert run.deltas[-1].assigned[0].note["review"] == 3
    say(run, {"verdict": "reject", "feedback": "no good"})
    assert run.state.status is ExecutionStatus.FAILED
    error = run.deltas[-1].error
    assert error is not None
    assert (error.failed_task, error.details["code"]) == ("a", "REVIEW_REJECTED")
    assert "no good" in error.error_message


def test_after_the_last_round_a_result_may_be_taken_as_it_is() -> None:
    run = reviewed({"review": {"agent": "lead", "rounds_max": 1, "on_exhausted": "accept"}})
    say(run, {"verdict": "reject", "feedback": "still not good"})
    assert run.phase("a") is Phase.COMPLETED


def test_a_reassigned_task_goes_to_the_agent_that_was_named() -> None:
    run = reviewed(agents=3)
    say(run, {"verdict": "reassign", "agent": "worker-3", "feedback": "ask another"})
    assert run.attempt("a").agent_id == "worker-3"


def test_a_reassigned_task_goes_to_any_other_agent_when_none_is_named() -> None:
    run = reviewed()
    for expected in ("worker-2", "worker-1"):
        say(run, {"verdict": "reassign"})
        assert run.attempt("a").agent_id == expected
        run.receive(run.completed(run.attempt("a"), "again"))
        run.tick()


def test_a_reassigned_task_waits_for_another_agent_rather_than_go_to_the_same() -> None:
    run = reviewed()
    run.inbox.batches.clear()
    run.state.agents["worker-2"].host_id = run.twin.agents["worker-2"].host_id = None
    say(run, {"verdict": "reassign"})
    assert run.phase("a") is Phase.READY
    run.bind("worker-2")
    run.tick()
    assert run.attempt("a").agent_id == "worker-2"


def test_a_review_may_add_tasks_which_others_then_wait_for() -> None:
    run = reviewed()
    more = {"id": "c", "agent": "worker", "depends_on": ["a"], "blocks": ["b"]}
    say(run, {"verdict": "spawn", "tasks": [more]})
    assert run.phase("a") is Phase.COMPLETED
    assert run.phase("c") is Phase.ASSIGNED
    assert run.phase("b") is Phase.PENDING
    run.receive(run.completed(run.attempt("c")))
    run.tick()
    assert run.attempt("c-review-1").agent_id == "lead-1"
    say(run, {"verdict": "accept"})
    assert run.phase("b") is Phase.ASSIGNED


NONSENSE: list[Any] = [
    None,
    "accept",
    42,
    [],
    {},
    {"verdict": None},
    {"verdict": "yes"},
    {"verdict": ["accept"]},
    {"verdict": {"accept": True}},
    {"verdict": "reject", "feedback": 7},
    {"verdict": "reassign", "agent": 7},
    {"verdict": "reassign", "agent": "lead-1"},
    {"verdict": "reassign", "agent": "worker-1"},
    {"verdict": "reassign", "agent": "nobody"},
    {"verdict": "spawn"},
    {"verdict": "spawn", "tasks": []},
    {"verdict": "spawn", "tasks": ["c"]},
    {"verdict": "spawn", "tasks": [{"id": "a", "agent": "worker"}]},
    {"verdict": "spawn", "tasks": [{"id": "c", "agent": "nobody"}]},
    {"verdict": "spawn", "tasks": [{"id": "c", "agent": "worker", "depends_on": ["c"]}]},
    {"verdict": "spawn", "tasks": [{}] * 1_001},
]


@pytest.mark.parametrize("answer", NONSENSE, ids=lambda answer: str(answer)[:60])
def test_an_answer_that_makes_no_sense_is_refused_and_asked_for_again_with_the_reason(answer: Any) -> None:
    run = reviewed()
    say(run, answer)
    [refused] = run.audit("review.refused")
    assert (refused["task_id"], refused["refused_in_a_row"]) == ("a", 1)
    [asked] = run.deltas[-1].assigned
    assert asked.task_id == "a-review-2"
    assert asked.note["problem"] == refused["reason"]
    assert asked.note["review"] == 1
    assert run.phase("a") is Phase.SUBMITTED
    assert "c" not in run.state.index
    say(run, {"verdict": "accept", "more": "is left alone"})
    assert run.phase("a") is Phase.COMPLETED


@pytest.mark.parametrize(("rule", "code"), [("fail", "NO_VERDICT"), ("accept", None)])
def test_after_too_many_bad_answers_the_settings_say_what_follows(rule: str, code: str | None) -> None:
    run = reviewed({"review": {"agent": "lead", "bad_answers_max": 1, "on_no_verdict": rule}})
    say(run, "nonsense")
    say(run, "more nonsense")
    if code is None:
        assert run.phase("a") is Phase.COMPLETED
    else:
        assert run.deltas[-1].error is not None
        assert run.deltas[-1].error.details["code"] == code


def test_a_review_that_fails_is_asked_for_again() -> None:
    run = reviewed()
    run.receive(run.failed(run.attempt("a-review-1"), retryable=False))
    run.tick()
    assert run.phase("a-review-1") is Phase.CANCELLED
    assert run.deltas[-1].assigned[0].task_id == "a-review-2"
    assert not run.state.closed


@pytest.mark.parametrize("ok", [True, False])
def test_a_large_answer_is_read_by_an_errand(ok: bool) -> None:
    run = reviewed()
    run.receive(run.completed(run.attempt("a-review-1")).model_copy(update={"result_ref": "sha256:2"}))
    [errand] = run.tick().delta.errands
    assert (errand.kind, errand.input["refs"]) == ("judge", {"result": "sha256:2"})
    run.continue_as_new()
    taken = {"verdict": "accept"} if ok else {}
    run.answer(errand.key, {"ok": ok, "reasons": [] if ok else ["too much"], "taken": taken})
    run.tick()
    assert run.phase("a") is (Phase.COMPLETED if ok else Phase.SUBMITTED)
    assert [item["reason"] for item in run.audit("review.refused")] == ([] if ok else ["too much"])


def test_an_errand_that_could_not_be_done_is_a_bad_answer() -> None:
    run = reviewed()
    run.receive(run.completed(run.attempt("a-review-1")).model_copy(update={"result_ref": "sha256:2"}))
    [errand] = run.tick().delta.errands
    run.answer(errand.key, ok=False, code="NOT_FOUND", message="no such payload")
    run.tick()
    assert run.audit("review.refused")[0]["reason"] == "no such payload"


def test_only_the_named_tasks_are_reviewed_and_never_the_supervisors_own() -> None:
    config = {"review": {"agent": "lead", "tasks": ["b"]}}
    run = supervised(task("a"), task("b", (0,)), task("own", role="lead"), config=config)
    assert run.state.plan.roles.keys() == {"worker", "lead"}
    run.tick()
    run.receive(*(run.completed(attempt) for attempt in run.in_flight()))
    run.tick()
    assert run.phase("a") is run.phase("own") is Phase.COMPLETED
    run.receive(run.completed(run.attempt("b")))
    run.tick()
    assert run.phase("b") is Phase.SUBMITTED


def test_a_failure_is_not_reviewed_unless_asked_for() -> None:
    run = reviewed()
    say(run, {"verdict": "accept"})
    run.receive(run.failed(run.attempt("b")))
    run.tick()
    assert run.deltas[-1].error is not None
    assert (run.deltas[-1].error.failed_task, run.deltas[-1].error.details["code"]) == ("b", "BROKEN")


@pytest.mark.parametrize("verdict", ["accept", "reassign", "reject"])
def test_a_failure_that_is_reviewed_stands_or_is_tried_again(verdict: str) -> None:
    config = {"review": {"agent": "lead", "failures": True}}
    run = supervised(task("a", retry=RetryPolicy(max_attempts=1)), config=config)
    run.tick()
    run.receive(run.failed(run.attempt("a"), "DISK_FULL"))
    note = run.tick().delta.assigned[0].note
    assert note["error"] == {"code": "DISK_FULL", "message": "a is broken"}
    assert note["verdicts"] == ["accept", "reject", "reassign"]
    say(run, {"verdict": "spawn", "tasks": [{"id": "c", "agent": "worker"}]})
    assert len(run.audit("review.refused")) == 1
    say(run, {"verdict": verdict, "feedback": "try the other disk"})
    if verdict == "accept":
        assert run.deltas[-1].error is not None
        assert run.deltas[-1].error.details["code"] == "DISK_FULL"
    else:
        assert run.attempt("a").attempt == 2
        assert run.deltas[-1].assigned[0].note["feedback"][0]["feedback"] == "try the other disk"


def test_a_failure_without_a_verdict_stands() -> None:
    config = {"review": {"agent": "lead", "failures": True, "bad_answers_max": 0, "on_no_verdict": "accept"}}
    run = supervised(task("a", retry=RetryPolicy(max_attempts=1)), config=config)
    run.tick()
    run.receive(run.failed(run.attempt("a"), "DISK_FULL"))
    run.tick()
    say(run, "nonsense")
    assert run.deltas[-1].error is not None
    assert run.deltas[-1].error.details["code"] == "DISK_FULL"


def test_feedback_of_any_size_fits_what_may_go_with_a_task() -> None:
    run = reviewed({"review": {"agent": "lead", "rounds_max": 20}})
    for _ in range(8):
        say(run, {"verdict": "reject", "feedback": "\x01\U0001f600" * 10_000})
        run.receive(run.completed(run.attempt("a"), "x" * 4_000))
        run.tick()
    assert not run.state.closed
    assert len(run.state.board["a/note"]["feedback"]) == 5


def test_going_back_to_a_checkpoint_forgets_reviews_of_what_runs_again() -> None:
    run = reviewed()
    run.control("pause")
    run.tick()
    run.rewind_to("00000000-0000-4000-8000-000000000009")
    run.tick()
    assert "a-review-1" not in run.state.index
    assert run.attempt("a").attempt == 2
    run.receive(run.completed(run.attempt("a"), "text"))
    run.tick()
    say(run, {"verdict": "accept"})
    assert run.phase("a") is Phase.COMPLETED


def test_the_tasks_that_an_execution_may_add_are_no_limit_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.kernel.desk.TASKS_DYNAMIC_MAX", 1)
    run = reviewed()
    say(run, {"verdict": "reject"})
    run.receive(run.completed(run.attempt("a"), "text"))
    run.tick()
    assert run.deltas[-1].error is not None
    assert run.deltas[-1].error.details["code"] == "NO_ROOM"


def test_an_id_that_is_taken_is_not_used_for_a_review() -> None:
    run = supervised(task("a"), task("a-review-1", (0,)), config=REVIEW)
    run.tick()
    run.receive(run.completed(run.attempt("a"), "text"))
    run.tick()
    assert run.in_flight()[0].task_id == "a-review-1-2"


ANSWERS = st.sampled_from(
    [
        {"verdict": "accept"},
        {"verdict": "reject", "feedback": "no"},
        {"verdict": "reassign"},
        {"verdict": "spawn", "tasks": [{"id": "more", "agent": "worker"}]},
        "nonsense",
    ]
)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_reviewers_say_no_task_is_completed_without_a_verdict_and_all_ends(data: st.DataObject) -> None:
    retry = RetryPolicy(max_attempts=2, initial_delay_seconds=0.1)
    config = {"strategy": data.draw(st.sampled_from(["least_loaded", "round_robin", "weighted"])), **REVIEW}
    run = supervised(task("a", retry=retry), task("b", retry=retry), task("c", (0, 1), retry=retry), config=config)
    for _ in range(80):
        if run.state.closed:
            break
        for attempt in run.in_flight():
            match data.draw(st.sampled_from(["wait", "done", "done", "fail"])):
                case "done":
                    answer = data.draw(ANSWERS) if "-review-" in attempt.task_id else "text"
                    run.receive(run.completed(attempt, answer))
                case "fail":
                    run.receive(run.failed(attempt))
        if data.draw(st.integers(0, 9)) == 0:
            run.control("resume" if run.state.paused else "pause")
        if data.draw(st.integers(0, 9)) == 0:
            run.continue_as_new()
        run.tick(after_ms=100)
        given_to = {str(item["task_id"]) for item in run.audit("review.given")}
        for i, spec in enumerate(run.state.specs):
            if run.state.tasks[i].phase is Phase.COMPLETED and not spec.asked:
                assert spec.id in given_to
    else:
        if run.state.paused:
            run.control("resume")
            run.tick()
        for _ in range(200):
            if run.state.closed:
                break
            run.receive(*(run.completed(a, {"verdict": "accept"}) for a in run.in_flight()))
            run.tick(after_ms=500)
    assert run.state.closed
    rounds: Counter[str] = Counter(str(item["task_id"]) for item in run.audit("review.given"))
    assert all(count <= 3 for count in rounds.values())


def test_what_a_worker_adds_is_added_when_its_result_is_accepted() -> None:
    run = supervised(task("a"), task("b", (0,)), config=REVIEW)
    run.tick()
    more = {"id": "c", "agent": "worker", "depends_on": ["a"], "blocks": ["b"]}
    run.receive(run.completed(run.attempt("a")).model_copy(update={"spawn": (more,)}))
    run.tick()
    assert "c" not in run.state.index
    run.continue_as_new()
    say(run, {"verdict": "accept"})
    assert (run.phase("c"), run.phase("b")) == (Phase.ASSIGNED, Phase.PENDING)


def test_a_result_whose_tasks_cannot_be_added_fails_when_it_is_accepted() -> None:
    run = supervised(task("a"), config=REVIEW)
    run.tick()
    run.receive(run.completed(run.attempt("a")).model_copy(update={"spawn": ({"id": "c", "agent": "nobody"},)}))
    run.tick()
    say(run, {"verdict": "accept"})
    assert run.deltas[-1].error is not None
    assert run.deltas[-1].error.details["code"] == "SPAWN_REFUSED"
