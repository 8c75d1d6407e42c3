"""What is undone, in which order, and what follows when a step cannot be undone; in every pattern."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.compensation import Compensated
from engine.contracts.definition import RetryPolicy
from engine.contracts.events import AgentEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Errand, KernelTask
from tests.unit.workflows.drill import Drill, launch_input, outcome, task
from workflows.kernel.desk import Desk
from workflows.kernel.due import next_due_ms
from workflows.kernel.policy import Policy
from workflows.kernel.state import Phase, RunState
from workflows.kernel.undoing import SIDE_BY_SIDE_MAX
from workflows.policies.saga import saga_policy

ONCE = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(max_attempts=2, initial_delay_seconds=1.0)


def step(task_id: str, deps: tuple[int, ...] = (), retry: RetryPolicy = ONCE, **fields: object) -> KernelTask:
    return task(task_id, deps, compensation=f"undo_{task_id}", retry=retry, **fields)


def saga(*tasks: KernelTask, config: dict[str, object] | None = None, **fields: object) -> Drill:
    plan: dict[str, Any] = {key: fields.pop(key) for key in ("compensates", "rolls_back") if key in fields}
    launch = launch_input(*tasks, pattern="saga", pattern_config=config or {}, **fields)  # type: ignore[arg-type]
    launch = launch.model_copy(update={"plan": launch.plan.model_copy(update=plan)})
    return Drill(launch, policy=saga_policy(launch))


def do(run: Drill, *names: str) -> None:
    """Complete them one after the other, a tick each."""
    for name in names:
        run.receive(run.completed(run.attempt(name), f"{name} is done"))
        run.tick()


def break_down(run: Drill, name: str) -> None:
    run.receive(run.failed(run.attempt(name)))
    run.tick()


def status_of(run: Drill) -> ExecutionStatus:
    return run.state.status


def undoing(run: Drill) -> list[str]:
    """Tasks whose compensation is under way."""
    return sorted(errand.task_id for errand in run.state.errands.values())


def errand_of(run: Drill, task_id: str) -> Errand:
    return next(errand for errand in run.state.errands.values() if errand.task_id == task_id)


def undone(run: Drill, task_id: str, value: str = "compensated") -> None:
    run.answer(errand_of(run, task_id).key, value)
    run.tick()


def not_undone(run: Drill, task_id: str, value: str | None = None) -> None:
    run.answer(errand_of(run, task_id).key, value, ok=False, code="BROKEN", message="it cannot be undone")
    run.tick()


def failed_after(*names: str, **fields: object) -> Drill:
    """T1, T2, T3 in a row; T3 fails."""
    run = saga(step("t1"), step("t2", (0,)), step("t3", (1,)), **fields)  # type: ignore[arg-type]
    run.tick()
    do(run, *names)
    break_down(run, "t3")
    return run


def error_of(run: Drill) -> dict[str, Any]:
    error = run.deltas[-1].error
    assert error is not None
    return error.model_dump(mode="json")


def test_what_was_done_is_undone_in_reverse_order_and_the_execution_fails_after_that() -> None:
    run = failed_after("t1", "t2")
    assert status_of(run) is ExecutionStatus.EXECUTING
    assert undoing(run) == ["t2"]
    assert run.decisions[-1].current_phase == "compensating: t2"
    undone(run, "t2")
    assert undoing(run) == ["t1"]
    undone(run, "t1")
    assert status_of(run) is ExecutionStatus.FAILED
    error = error_of(run)
    assert (error["error_code"], error["failed_task"]) == ("TASK_FAILED", "t3")
    assert error["compensation_status"] == "completed"
    assert error["details"]["compensated"] == ["t2", "t1"]
    (started,) = run.audit("saga.compensation_started")
    assert (started["failed_task_id"], started["compensation_tasks"]) == ("t3", ["t2", "t1"])
    assert [e["task_id"] for e in run.audit("saga.compensation_completed")] == ["t2", "t1"]
    assert [d.status for d in run.deltas if d.status] == [ExecutionStatus.EXECUTING, ExecutionStatus.FAILED]


def test_a_step_is_registered_in_the_very_tick_that_assigns_it() -> None:
    run = saga(step("t1"), task("plain"), step("t2", (0,)))
    run.tick()
    assert run.deltas[-1].registered == ("t1",)
    do(run, "t1")
    assert [a.task_id for a in run.deltas[-1].assigned] == ["t2"]
    assert run.deltas[-1].registered == ("t2",)


def test_what_was_in_flight_is_undone_first_since_it_may_have_happened() -> None:
    run = saga(step("a"), step("b"), step("c", (0,)), task("bad", (0,), retry=ONCE), agents=4)
    run.tick()
    do(run, "a")
    break_down(run, "bad")
    (started,) = run.audit("saga.compensation_started")
    assert started["compensation_tasks"] == ["c", "b", "a"]
    assert errand_of(run, "c").input["certain"] is False
    undone(run, "c", "never_happened")
    undone(run, "b")
    assert errand_of(run, "a").input["certain"] is True
    undone(run, "a")
    outcomes = [(e["task_id"], e["outcome"]) for e in run.audit("saga.compensation_completed")]
    assert outcomes == [("c", "never_happened"), ("b", "compensated"), ("a", "compensated")]


def test_a_step_whose_agent_said_that_it_failed_is_not_undone_unless_the_settings_doubt_it() -> None:
    assert run_order(failed_after("t1", "t2")) == ["t2", "t1"]
    assert run_order(failed_after("t1", "t2", config={"failed_steps": "compensate"})) == ["t3", "t2", "t1"]


def run_order(run: Drill) -> object:
    (started,) = run.audit("saga.compensation_started")
    return started["compensation_tasks"]


@pytest.mark.parametrize("how", ["timed out", "lost"])
def test_a_step_of_which_nobody_said_what_it_did_is_undone_too(how: str) -> None:
    run = saga(step("t1"), step("t2", (0,), timeout_ms=1_000, retry=RetryPolicy(max_attempts=1)))
    run.tick()
    do(run, "t1")
    for _ in range(5):
        if run.state.undoing is not None:
            break
        run.receive(run.started(run.attempt("t2")))
        run.tick()
        if how == "lost":
            run.host_lost()
            run.bind(*run.state.agents, host_id=f"next-{len(run.deltas)}")
        run.tick(after_ms=2_000)
    assert run_order(run) == ["t2", "t1"]
    assert errand_of(run, "t2").input["certain"] is False


def test_independent_branches_are_undone_in_reverse_order_of_their_completion() -> None:
    run = saga(step("a"), step("b"), step("c"), task("end", (0, 1, 2), retry=ONCE), agents=3)
    run.tick()
    do(run, "b", "c", "a")
    break_down(run, "end")
    assert run_order(run) == ["a", "c", "b"]


def test_side_by_side_only_what_nothing_undone_depends_on_is_undone() -> None:
    run = saga(
        step("root"), step("left", (0,)), task("between", (0,)), step("right", (2,)), task("end", (1, 3), retry=ONCE),
        agents=3, config={"undo_order": "side_by_side"},
    )  # fmt: skip
    run.tick()
    do(run, "root", "left", "between", "right")
    break_down(run, "end")
    assert undoing(run) == ["left", "right"]
    undone(run, "left")
    assert undoing(run) == ["right"]
    undone(run, "right")
    assert undoing(run) == ["root"]
    undone(run, "root")
    assert status_of(run) is ExecutionStatus.FAILED


def test_elements_are_undone_before_what_their_list_came_from_and_after_what_the_list_led_to() -> None:
    run = saga(step("list"), step("each", (0,), for_each=True), step("after", (1,)), task("end", (2,), retry=ONCE),
               agents=2, config={"undo_order": "side_by_side"})  # fmt: skip
    run.tick()
    do(run, "list")
    run.evaluate(lambda task_id: outcome(task_id, "expand", size=2))
    run.tick()
    do(run, "each[0]", "each[1]", "after")
    break_down(run, "end")
    assert undoing(run) == ["after"]
    undone(run, "after")
    assert undoing(run) == ["each[0]", "each[1]"]
    undone(run, "each[1]")
    undone(run, "each[0]")
    assert undoing(run) == ["list"]


def test_a_compensation_that_fails_is_tried_again_by_the_tasks_own_policy() -> None:
    run = saga(step("t1", retry=TWICE), task("t2", (0,), retry=ONCE))
    run.tick()
    do(run, "t1")
    break_down(run, "t2")
    not_undone(run, "t1")
    assert run.state.errands == {}
    assert next_due_ms(run.state, run.policy) == run.now_ms + 1_000
    assert [e["delay_seconds"] for e in run.audit("saga.compensation_retry_scheduled")] == [1.0]
    run.continue_as_new()
    run.tick(after_ms=1_000)
    assert errand_of(run, "t1").key == "compensate/t1/2"
    undone(run, "t1")
    assert error_of(run)["compensation_status"] == "completed"


def test_a_retry_that_is_due_waits_for_a_free_place_and_is_begun_before_what_has_not_been_tried() -> None:
    names = [f"s{n}" for n in range(SIDE_BY_SIDE_MAX + 2)]
    steps = [step(name, retry=TWICE) for name in names]
    run = saga(*steps, task("end", tuple(range(len(names))), retry=ONCE), agents=len(names),
               config={"undo_order": "side_by_side"})  # fmt: skip
    run.tick()
    run.receive(*(run.completed(attempt) for attempt in run.in_flight()))
    run.tick()
    break_down(run, "end")
    first, second, *_ = undoing(run)
    assert len(undoing(run)) == SIDE_BY_SIDE_MAX
    not_undone(run, first)
    assert len(undoing(run)) == SIDE_BY_SIDE_MAX, "another has its place"
    assert next_due_ms(run.state, run.policy) is None
    run.tick(after_ms=2_000)
    assert first not in undoing(run)
    assert next_due_ms(run.state, run.policy) is None, "no time is waited for, only a place"
    run.continue_as_new()
    undone(run, second)
    assert errand_of(run, first).key == f"compensate/{first}/2"
    while not run.state.closed:
        undone(run, undoing(run)[0])
    assert error_of(run)["compensation_status"] == "completed"


def test_what_cannot_be_undone_stays_with_all_that_it_depends_on_and_the_rest_is_undone() -> None:
    run = saga(step("base"), step("top", (0,)), step("other"), task("end", (1, 2), retry=ONCE), agents=3)
    run.tick()
    do(run, "other", "base", "top")
    break_down(run, "end")
    not_undone(run, "top")
    assert undoing(run) == ["other"]
    undone(run, "other")
    assert status_of(run) is ExecutionStatus.FAILED
    error = error_of(run)
    assert error["compensation_status"] == "partial"
    assert error["details"]["left"] == ["top", "base"]
    left = {item.task_id: item for item in run.deltas[-1].left}
    assert (left["top"].failed, left["top"].code, left["top"].attempts) == (True, "BROKEN", 1)
    assert (left["base"].failed, left["base"].blocked_by) == (False, ("top",))
    (alert,) = run.audit("saga.compensation_failed")
    assert (alert["task_id"], alert["error"]) == ("top", {"code": "BROKEN", "message": "it cannot be undone"})


def test_a_compensation_whose_agent_says_that_trying_again_is_useless_is_not_tried_again() -> None:
    run = saga(step("t1", retry=TWICE), task("t2", (0,), retry=ONCE))
    run.tick()
    do(run, "t1")
    break_down(run, "t2")
    not_undone(run, "t1", "final")
    assert status_of(run) is ExecutionStatus.FAILED
    assert error_of(run)["compensation_status"] == "partial"


def test_cancelling_undoes_first_and_cancels_then() -> None:
    run = saga(step("t1"), step("t2", (0,)))
    run.tick()
    do(run, "t1")
    run.control("cancel")
    decision = run.tick()
    assert [a.task_id for a in decision.cancel] == ["t2"]
    assert run_order(run) == ["t2", "t1"]
    undone(run, "t2", "never_happened")
    undone(run, "t1")
    assert status_of(run) is ExecutionStatus.CANCELLED
    error = error_of(run)
    assert (error["error_code"], error["compensation_status"]) == ("CANCELLED", "completed")
    assert not run.audit("error.occurred")


def test_a_paused_execution_that_is_cancelled_undoes_what_it_did() -> None:
    run = saga(step("t1"), step("t2", (0,)))
    run.tick()
    do(run, "t1")
    run.control("pause")
    run.tick()
    run.control("cancel")
    run.tick()
    assert status_of(run) is ExecutionStatus.EXECUTING
    assert undoing(run) == ["t2"]


def test_cancelling_does_not_stop_undoing() -> None:
    run = failed_after("t1", "t2")
    run.control("cancel")
    run.tick()
    assert undoing(run) == ["t2"]
    undone(run, "t2")
    undone(run, "t1")
    assert status_of(run) is ExecutionStatus.FAILED


def test_a_pause_holds_back_what_is_not_being_undone_yet_and_cancelling_lets_it_go_on() -> None:
    run = failed_after("t1", "t2")
    run.control("pause")
    run.tick()
    assert status_of(run) is ExecutionStatus.PAUSED
    undone(run, "t2")
    assert undoing(run) == []
    assert next_due_ms(run.state, run.policy) is None
    run.control("cancel")
    run.tick()
    assert undoing(run) == ["t1"]
    undone(run, "t1")
    assert status_of(run) is ExecutionStatus.FAILED


def test_undoing_is_not_gone_back_from() -> None:
    run = failed_after("t1", "t2")
    run.control("pause")
    run.tick()
    run.rewind_to("00000000-0000-4000-8000-000000000009", "t2")
    run.tick()
    assert run.state.epoch == 1
    assert status_of(run) is ExecutionStatus.EXECUTING
    assert undoing(run) == ["t2"]


def test_undoing_outlasts_the_executions_own_time() -> None:
    run = failed_after("t1", "t2")
    run.tick(after_ms=7_200_000)
    assert undoing(run) == ["t2"]
    assert next_due_ms(run.state, run.policy) is None


def test_time_running_out_is_a_failure_like_others() -> None:
    run = saga(step("t1"), step("t2", (0,)), timeout_ms=60_000)
    run.tick()
    do(run, "t1")
    run.tick(after_ms=60_000)
    assert run_order(run) == ["t2", "t1"]


@pytest.mark.parametrize("flags", [{"compensates": False}, {"rolls_back": False}])
def test_the_definitions_flags_switch_undoing_off(flags: dict[str, object]) -> None:
    run = failed_after("t1", "t2", **flags)
    assert status_of(run) is ExecutionStatus.FAILED
    assert not run.audit("saga.compensation_started")
    error = error_of(run)
    if "rolls_back" in flags:
        assert error["compensation_status"] == "skipped"
        assert error["details"]["left"] == ["t2", "t1"]
    else:
        assert error["compensation_status"] == "not_required"
        assert run.state.registered == {}


def test_without_rollback_a_cancelled_execution_says_what_it_leaves() -> None:
    run = saga(step("t1"), step("t2", (0,)), rolls_back=False)
    run.tick()
    do(run, "t1")
    run.control("cancel")
    run.tick()
    assert status_of(run) is ExecutionStatus.CANCELLED
    assert error_of(run)["compensation_status"] == "skipped"


def test_every_pattern_undoes_what_its_definition_can_undo() -> None:
    run = Drill(launch_input(step("t1"), step("t2", (0,)), task("t3", (1,), retry=ONCE)))
    run.tick()
    do(run, "t1", "t2")
    break_down(run, "t3")
    assert run_order(run) == ["t2", "t1"]


def test_work_sent_ahead_is_registered_before_it_goes() -> None:
    run = Drill(launch_input(step("a"), step("b", (0,)), step("c", (1,)), agents=1))
    run.state.pace_ms["worker"] = run.twin.pace_ms["worker"] = 1.0
    run.tick()
    assigned = {a.task_id for d in run.deltas for a in d.assigned}
    assert assigned == set(run.state.registered)


def test_steps_that_run_again_from_a_checkpoint_were_done_all_the_same() -> None:
    run = saga(step("t1"), step("t2", (0,)), task("t3", (1,), retry=ONCE))
    run.tick()
    do(run, "t1", "t2")
    run.control("pause")
    run.tick()
    run.rewind_to("00000000-0000-4000-8000-000000000009", "t2")
    run.tick()
    break_down(run, "t2")
    assert run_order(run) == ["t2", "t1"]


def test_a_step_that_was_given_up_is_done_again_before_anything_is_undone() -> None:
    run = saga(step("t1"), step("t2", (0,)), config={"forward_attempts": 2, "forward_delay_seconds": 3.0})
    run.tick()
    do(run, "t1")
    for n in range(2):
        break_down(run, "t2")
        assert run.phase("t2") is Phase.SUBMITTED
        assert next_due_ms(run.state, run.policy) == run.now_ms + 3_000
        run.continue_as_new()
        run.tick(after_ms=3_000)
        assert run.attempt("t2").attempt == n + 2
    break_down(run, "t2")
    assert run_order(run) == ["t1"]
    assert [e["recovery"] for e in run.audit("saga.forward_recovery")] == [1, 2]


def test_a_recovered_saga_completes() -> None:
    run = saga(step("t1"), config={"forward_attempts": 1, "forward_delay_seconds": 0})
    run.tick()
    break_down(run, "t1")
    run.tick()
    assert run.finish() is ExecutionStatus.COMPLETED
    assert not run.audit("saga.compensation_started")


def test_after_a_pivot_steps_are_only_done_again_and_nothing_is_undone() -> None:
    config: dict[str, object] = {"pivots": ["pay"], "attempts_after_pivot": 1, "forward_delay_seconds": 0}
    run = saga(step("t1"), task("pay", (0,)), task("ship", (1,), retry=ONCE), config=config)
    run.tick()
    do(run, "t1", "pay")
    break_down(run, "ship")
    run.tick()
    break_down(run, "ship")
    assert status_of(run) is ExecutionStatus.FAILED
    error = error_of(run)
    assert error["compensation_status"] == "past_pivot"
    assert error["details"]["left"] == ["t1"]
    assert [e["past_pivot"] for e in run.audit("saga.forward_recovery")] == [True]


def test_before_the_pivot_everything_is_undone() -> None:
    config: dict[str, object] = {"pivots": ["pay"]}
    run = saga(step("t1"), task("pay", (0,), retry=ONCE), task("ship", (1,)), config=config)
    run.tick()
    do(run, "t1")
    break_down(run, "pay")
    assert run_order(run) == ["t1"]


def test_what_cannot_be_undone_keeps_also_what_lies_behind_a_list() -> None:
    run = saga(step("source"), task("list", (0,)), step("each", (1,), for_each=True), step("after", (2,)),
               task("end", (3,), retry=ONCE), agents=2)  # fmt: skip
    run.tick()
    do(run, "source", "list")
    run.evaluate(lambda task_id: outcome(task_id, "expand", size=2))
    run.tick()
    do(run, "each[0]", "each[1]", "after")
    break_down(run, "end")
    not_undone(run, "after")
    assert status_of(run) is ExecutionStatus.FAILED
    blocked = {item.task_id: item.blocked_by for item in run.deltas[-1].left}
    assert blocked == {
        "after": (),
        "each[0]": ("after",),
        "each[1]": ("after",),
        "source": ("after", "each[0]", "each[1]"),
    }


def test_an_element_that_cannot_be_undone_keeps_what_its_list_came_from() -> None:
    run = saga(step("source"), step("each", (0,), for_each=True), task("end", (1,), retry=ONCE), agents=2)
    run.tick()
    do(run, "source")
    run.evaluate(lambda task_id: outcome(task_id, "expand", size=2))
    run.tick()
    do(run, "each[0]", "each[1]")
    break_down(run, "end")
    not_undone(run, "each[1]")
    undone(run, "each[0]")
    assert status_of(run) is ExecutionStatus.FAILED
    assert [item.task_id for item in run.deltas[-1].left] == ["each[1]", "source"]


def test_a_task_that_going_back_dropped_is_tried_once_since_it_may_have_happened() -> None:
    spawned = {"id": "added", "agent": "worker", "depends_on": ["t1"], "compensation_action": "undo_added"}
    run = saga(step("t1"), task("t2", (0,), retry=ONCE))
    run.tick()
    run.receive(run.event(AgentEventType.TASK_COMPLETED, run.attempt("t1"), spawn=(spawned,)))
    run.tick()
    do(run, "added")
    run.control("pause")
    run.tick()
    run.rewind_to("00000000-0000-4000-8000-000000000009", "t1", "added")
    run.tick()
    assert "added" not in run.state.index
    run.control("cancel")
    run.tick()
    assert run_order(run) == ["t1", "added"]
    undone(run, "t1")
    not_undone(run, "added")
    assert status_of(run) is ExecutionStatus.CANCELLED
    assert [(item.task_id, item.retry.max_attempts) for item in run.deltas[-1].left] == [("added", 1)]


class Waiting(Policy):
    """Judges every end, has an errand under way, and never comes to a verdict."""

    coordinates = True

    def judges(self, state: RunState, i: int) -> bool:
        return True

    def react(self, desk: Desk) -> None:
        for i in desk.submitted:
            desk.send(f"ponder/{desk.state.specs[i].id}", "ponder", about=i)
        if not desk.state.errands:
            for i in desk.ready():
                if desk.state.specs[i].id == "taken":
                    desk.take(i)


def test_results_that_a_pattern_never_accepted_may_have_to_be_undone_and_its_errands_end() -> None:
    run = Drill(launch_input(step("judged"), step("taken"), agents=2), policy=Waiting())
    run.tick()
    run.receive(run.completed(run.attempt("judged"), "x"))
    run.tick()
    assert run.phase("judged") is Phase.SUBMITTED
    assert run.phase("taken") is Phase.SUBMITTED
    assert sorted(run.state.registered) == ["judged", "taken"]
    run.control("cancel")
    run.tick()
    assert run_order(run) == ["taken", "judged"]
    assert [errand.kind for errand in run.state.errands.values()] == ["compensate"]
    assert errand_of(run, "taken").input["certain"] is False


def test_what_the_engine_gave_up_during_a_pause_may_have_been_done() -> None:
    run = saga(step("t1"))
    run.tick()
    run.control("pause")
    run.tick()
    run.tick(after_ms=60_000)
    assert run.phase("t1") is Phase.READY
    run.control("cancel")
    run.tick()
    assert run_order(run) == ["t1"]


def test_work_that_rode_behind_another_on_a_lost_host_may_have_been_done() -> None:
    run = Drill(launch_input(step("a"), step("b", (0,)), agents=1))
    run.bind("worker-1", host_id="host-1")
    run.state.pace_ms["worker"] = run.twin.pace_ms["worker"] = 1.0
    run.tick()
    if "b" not in run.state.registered:
        run.receive(run.completed(run.attempt("a"), "x"))
        run.tick()
    run.host_lost()
    run.tick()
    run.control("cancel")
    run.tick()
    assert "b" in run_order(run)  # type: ignore[operator]


def test_outcomes_that_come_twice_or_for_nothing_change_nothing() -> None:
    run = failed_after("t1", "t2")
    key = errand_of(run, "t2").key
    run.answer("compensate/nobody/1", "compensated")
    run.tick()
    assert undoing(run) == ["t2"]
    run.answer(key, "compensated")
    run.answer(key, "compensated")
    run.tick()
    run.answer(key, "compensated")
    run.tick()
    assert undoing(run) == ["t1"]
    with pytest.raises(ValueError, match="nothing is being undone"):
        Drill(launch_input(step("a"))).tick().change.compensated(Compensated(task_id="a", attempt=1))


@st.composite
def graphs(draw: st.DrawFn) -> list[KernelTask]:
    size = draw(st.integers(2, 7))
    made = []
    for n in range(size):
        deps = tuple(draw(st.sets(st.integers(0, n - 1), max_size=2))) if n else ()
        make = step if draw(st.integers(0, 3)) else task
        made.append(make(f"t{n}", tuple(sorted(deps)), retry=TWICE))
    return made


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_whatever_happens_each_done_step_is_undone_once_and_after_what_depends_on_it(data: st.DataObject) -> None:
    """Failures, losses, pauses, new runs, lost and repeated outcomes, a cancellation: at any point."""
    tasks = data.draw(graphs())
    config: dict[str, object] = {
        "undo_order": data.draw(st.sampled_from(["sequential", "side_by_side"])),
        "forward_attempts": data.draw(st.sampled_from([0, 0, 1])),
        "forward_delay_seconds": 0.5,
    }
    run = saga(*tasks, agents=3, config=config)
    ended = False
    for _ in range(300):
        if run.state.closed:
            break
        kinds = ["done", "done", "wait", "fail", "lost"]
        for attempt in run.in_flight():
            kind = data.draw(st.sampled_from(kinds))
            if kind == "done":
                run.receive(run.completed(attempt, "x"))
            elif kind == "fail":
                run.receive(run.failed(attempt))
            elif kind == "lost":
                run.host_lost()
                run.bind(*run.state.agents, host_id=f"host-{len(run.deltas)}")
        if not ended and data.draw(st.integers(0, 12)) == 0:
            run.control("cancel")
            ended = True
        elif data.draw(st.integers(0, 12)) == 0:
            run.control("resume" if run.state.paused else "pause")
        for key in sorted(run.state.errands):
            match data.draw(st.sampled_from(["undone", "never", "fail", "twice", "wait"])):
                case "undone":
                    run.answer(key, "compensated")
                case "never":
                    run.answer(key, "never_happened")
                case "fail":
                    run.answer(key, ok=False, code="NO", message="no")
                case "twice":
                    run.answer(key, "compensated")
                    run.answer(key, "compensated")
        if data.draw(st.integers(0, 5)) == 0:
            run.continue_as_new()
        run.tick(after_ms=700)
        if run.state.paused and data.draw(st.booleans()):
            run.control("resume")
    else:
        if run.state.paused:
            run.control("resume")
        for _ in range(200):
            if run.state.closed:
                break
            run.tick(after_ms=2_000)
            run.receive(*(run.completed(attempt) for attempt in run.in_flight()))
            for key in sorted(run.state.errands):
                run.answer(key, "compensated")
    assert run.state.closed
    check_undone(run)


def check_undone(run: Drill) -> None:
    specs = {spec.id: spec for spec in run.state.specs}
    compensated = [item.task_id for delta in run.deltas for item in delta.compensated]
    assert len(compensated) == len(set(compensated))
    if status_of(run) is ExecutionStatus.COMPLETED:
        assert not compensated
        return
    done = {e["task_id"] for e in run.audit("task.completed") if e["status"] == "success"}
    wanted = {name for name in done if specs[str(name)].compensation is not None}
    left = {item.task_id for item in run.deltas[-1].left}
    assert wanted <= set(compensated) | left
    for name in compensated:
        for later in compensated[compensated.index(name) + 1 :]:
            assert not depends(run, later, name), f"{name} was undone before {later}, which depends on it"
    for name in left:
        assert all(other in left for other in compensated if depends(run, name, other)) or name in left
        assert not any(depends(run, name, other) for other in compensated), "nothing under what stays is undone"
    starts = [item for delta in run.deltas for item in delta.compensating]
    tries = [(item.task_id, item.attempt) for item in starts]
    assert len(tries) == len(set(tries))


def depends(run: Drill, later: str, earlier: str) -> bool:
    """Whether `later` needs `earlier`, over any number of steps."""
    state = run.state
    front, seen = [state.index[later]], set[int]()
    while front:
        for i in state.specs[front.pop()].deps:
            if state.specs[i].id == earlier:
                return True
            if i not in seen:
                seen.add(i)
                front.append(i)
    return False
