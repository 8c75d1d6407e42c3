"""Blocking hooks in the kernel: what they guard is held, their answers count once, and a stored tick says it all."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.execution import ExecutionStatus
from engine.contracts.hooks import HookTrigger
from engine.contracts.kernel import BlockingHooks, Errand
from tests.unit.workflows.drill import Drill, launch_input, outcome, task
from workflows.kernel.guards import INPUT_BYTES_MAX
from workflows.kernel.state import Phase

ALL = BlockingHooks(pre_workflow=True, post_workflow=True, added_tasks=True)
TASKS = BlockingHooks(added_tasks=True)


def guarded(*names: str) -> Drill:
    """A chain of these tasks, all guarded."""
    tasks = [task(name, (n - 1,) if n else (), guarded=True) for n, name in enumerate(names)]
    return Drill(launch_input(*tasks, hooks=TASKS))


def errands(drill: Drill) -> list[Errand]:
    return list(drill.state.errands.values())


def proceed(drill: Drill, task_id: str = "", **verdict: Any) -> None:
    [errand] = [errand for errand in errands(drill) if errand.task_id == task_id]
    drill.answer(errand.key, {"decision": "proceed", **verdict})
    drill.tick()


def veto(drill: Drill, task_id: str = "") -> None:
    [errand] = [errand for errand in errands(drill) if errand.task_id == task_id]
    drill.answer(errand.key, {"decision": "veto", "reason": "no", "hook_id": "h", "hook_name": "budget"})
    drill.tick()


def test_a_guarded_task_waits_for_its_hooks_and_others_do_not() -> None:
    drill = Drill(launch_input(task("a", guarded=True), task("b"), hooks=TASKS))
    drill.tick()
    assert drill.phase("a") is Phase.GUARDED
    assert drill.assigned() == ["b"]
    [errand] = errands(drill)
    assert (errand.kind, errand.task_id) == ("hooks", "a")
    assert errand.input == {"trigger": "pre_task", "role": "worker"}
    drill.tick()
    assert len(errands(drill)) == 1, "asked once"
    proceed(drill, "a")
    assert drill.assigned() == ["b", "a"]
    assert errands(drill) == []
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_without_the_launchs_word_nothing_is_held() -> None:
    drill = Drill(launch_input(task("a", guarded=True)))
    drill.tick()
    assert drill.assigned() == ["a"]


def test_hooks_are_asked_once_a_task_and_not_once_an_attempt() -> None:
    drill = guarded("a")
    drill.tick()
    proceed(drill, "a")
    drill.receive(drill.failed(drill.attempt("a")))
    drill.tick()
    drill.tick(after_ms=2_000)
    assert drill.assigned() == ["a", "a"]
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_a_changed_input_goes_with_every_attempt() -> None:
    drill = guarded("a")
    drill.tick()
    proceed(drill, "a", input={"x": 1})
    drill.receive(drill.failed(drill.attempt("a")))
    drill.tick()
    drill.tick(after_ms=2_000)
    given_inputs = [attempt.input for delta in drill.deltas for attempt in delta.assigned]
    assert given_inputs == [{"x": 1}, {"x": 1}]
    drill.tick(after_ms=20_000)
    assert [attempt.input for attempt in drill.deltas[-1].resent] == [{"x": 1}]


def test_a_veto_fails_the_task_for_good_and_is_told() -> None:
    drill = guarded("a", "b")
    drill.tick()
    veto(drill, "a")
    assert drill.state.status is ExecutionStatus.FAILED
    assert drill.phase("a") is Phase.FAILED
    assert drill.audit("hook.vetoed") == [
        {"hook_id": "h", "hook_name": "budget", "trigger": "pre_task", "reason": "no", "task_id": "a"}
    ]
    assert drill.assigned() == []


def test_with_finish_branches_a_veto_takes_what_depends_on_it_and_no_more() -> None:
    tasks = (task("a", guarded=True), task("b", (0,)), task("c"))
    drill = Drill(launch_input(*tasks, hooks=TASKS, on_failure="finish_branches"))
    drill.tick()
    veto(drill, "a")
    assert drill.finish() is ExecutionStatus.FAILED
    assert (drill.phase("b"), drill.phase("c")) == (Phase.SKIPPED, Phase.COMPLETED)


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": False, "code": "BROKEN", "message": "no worker"},
        {"value": {"decision": "proceed", "input": {"x": "y" * INPUT_BYTES_MAX}}},
    ],
)
def test_a_guard_that_gives_no_usable_answer_guards(answer: dict[str, Any]) -> None:
    drill = guarded("a")
    drill.tick()
    drill.answer(errands(drill)[0].key, **answer)
    drill.tick()
    assert drill.phase("a") is Phase.FAILED


def test_nothing_starts_before_the_hooks_before_the_workflow() -> None:
    drill = Drill(launch_input(task("a", guarded=True), hooks=ALL))
    drill.tick()
    [errand] = errands(drill)
    assert errand.input == {"trigger": HookTrigger.PRE_WORKFLOW.value}
    proceed(drill)
    assert [errand.task_id for errand in errands(drill)] == ["a"]
    proceed(drill, "a")
    assert drill.assigned() == ["a"]


def test_a_veto_before_the_workflow_ends_it_with_nothing_started() -> None:
    drill = Drill(launch_input(task("a"), hooks=ALL))
    drill.tick()
    veto(drill)
    assert drill.state.status is ExecutionStatus.FAILED
    assert drill.deltas[-1].error is not None
    assert drill.deltas[-1].error.error_code == "HOOK_VETO"
    assert drill.phase("a") is Phase.CANCELLED


def test_the_end_waits_for_the_hooks_after_the_workflow() -> None:
    drill = Drill(launch_input(task("a"), hooks=BlockingHooks(post_workflow=True)))
    drill.tick()
    drill.receive(drill.completed(drill.attempt("a")))
    drill.tick()
    assert not drill.state.closed
    [errand] = errands(drill)
    assert errand.input == {"trigger": "post_workflow"}
    drill.tick()
    assert len(errands(drill)) == 1
    proceed(drill)
    assert drill.state.status is ExecutionStatus.COMPLETED


def test_a_veto_at_the_end_fails_the_execution_and_keeps_what_is_done() -> None:
    drill = Drill(launch_input(task("a"), hooks=BlockingHooks(post_workflow=True)))
    drill.tick()
    drill.receive(drill.completed(drill.attempt("a")))
    drill.tick()
    veto(drill)
    assert drill.state.status is ExecutionStatus.FAILED
    assert drill.phase("a") is Phase.COMPLETED


def test_an_execution_that_fails_does_not_wait_for_the_hooks_after_it() -> None:
    drill = Drill(launch_input(task("a", retry={"max_attempts": 1}), hooks=BlockingHooks(post_workflow=True)))
    drill.tick()
    drill.receive(drill.failed(drill.attempt("a")))
    drill.tick()
    assert drill.state.status is ExecutionStatus.FAILED


def test_an_evaluated_task_is_guarded_after_its_condition_and_skipped_ones_are_not_asked_about() -> None:
    drill = Drill(launch_input(task("a", guarded=True, when=True), task("b", guarded=True, when=True), hooks=TASKS))
    drill.tick()
    assert errands(drill) == []
    drill.evaluate(lambda name: outcome(name, "run" if name == "a" else "skip"))
    drill.tick()
    assert (drill.phase("a"), drill.phase("b")) == (Phase.GUARDED, Phase.SKIPPED)
    proceed(drill, "a")
    assert drill.assigned() == ["a"]


def test_each_element_of_a_list_is_guarded() -> None:
    drill = Drill(launch_input(task("a", for_each=True, guarded=True), hooks=TASKS))
    drill.tick()
    drill.evaluate(lambda name: outcome(name, "expand", size=2, items_ref="sha256:x"))
    drill.tick()
    assert sorted(errand.task_id for errand in errands(drill)) == ["a[0]", "a[1]"]
    proceed(drill, "a[0]")
    proceed(drill, "a[1]", input={"n": 1})
    assert drill.assigned() == ["a[0]", "a[1]"]
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_while_it_is_paused_nobody_is_asked_and_answers_count_after_it() -> None:
    drill = guarded("a", "b")
    drill.tick()
    drill.control("pause")
    drill.tick()
    proceed(drill, "a")
    assert drill.assigned() == []
    drill.control("resume")
    drill.tick()
    assert drill.assigned() == ["a"]


def test_what_runs_again_from_a_checkpoint_is_asked_about_again() -> None:
    drill = guarded("a", "b")
    drill.tick()
    proceed(drill, "a", input={"x": 1})
    drill.receive(drill.completed(drill.attempt("a")))
    drill.tick()
    first = {errand.key for errand in errands(drill)}
    drill.control("pause")
    drill.tick()
    drill.rewind_to("00000000-0000-4000-8000-00000000000c", "a")
    drill.tick()
    [errand] = errands(drill)
    assert errand.task_id == "a"
    assert errand.key not in first
    drill.answer(next(iter(first)), {"decision": "veto"})
    drill.tick()
    assert drill.state.status is ExecutionStatus.EXECUTING, "an answer of before the resumption is of no account"
    proceed(drill, "a")
    assert drill.deltas[-1].assigned[0].input is None


def test_a_cancelled_execution_forgets_what_it_asked() -> None:
    drill = guarded("a")
    drill.tick()
    [errand] = errands(drill)
    drill.control("cancel")
    drill.tick()
    assert drill.state.status is ExecutionStatus.CANCELLED
    drill.answer(errand.key, {"decision": "proceed"})
    drill.tick()
    assert drill.assigned() == []


def test_the_state_survives_going_on_as_a_new_run_at_any_time() -> None:
    drill = Drill(launch_input(task("a", guarded=True), task("b", (0,), guarded=True), hooks=ALL))
    drill.tick()
    drill.continue_as_new()
    proceed(drill)
    drill.continue_as_new()
    proceed(drill, "a", input={"x": 1})
    drill.continue_as_new()
    drill.receive(drill.completed(drill.attempt("a")))
    drill.tick()
    drill.continue_as_new()
    proceed(drill, "b")
    drill.receive(drill.completed(drill.attempt("b")))
    drill.tick()
    drill.continue_as_new()
    proceed(drill)
    assert drill.state.status is ExecutionStatus.COMPLETED


STEPS = st.lists(st.sampled_from(["proceed", "veto", "complete", "fail", "pause", "resume", "new run", "wait"]))


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, graph=st.integers(0, 7), hooks=st.sampled_from([ALL, TASKS]))
def test_whatever_happens_a_guarded_task_starts_only_when_its_hooks_have_let_it(
    steps: list[str], graph: int, hooks: BlockingHooks
) -> None:
    tasks = [task(f"t{n}", (n - 1,) if graph & (1 << n) and n else (), guarded=True) for n in range(3)]
    drill = Drill(launch_input(*tasks, hooks=hooks, on_failure="finish_branches"))
    drill.tick()
    let: set[str] = set()
    for step in steps:
        waiting = sorted(drill.state.errands.values(), key=lambda errand: errand.key)
        if step in ("proceed", "veto") and waiting:
            drill.answer(waiting[0].key, {"decision": step})
            if step == "proceed":
                let.add(waiting[0].task_id)
        elif step in ("complete", "fail") and drill.in_flight():
            attempt = drill.in_flight()[0]
            drill.receive(drill.completed(attempt) if step == "complete" else drill.failed(attempt))
        elif step in ("pause", "resume"):
            drill.control(step)
        elif step == "new run":
            drill.continue_as_new()
        drill.tick(after_ms=100)
        assert set(drill.assigned()) <= let
        if hooks.pre_workflow and "" not in let:
            assert drill.assigned() == []
        if drill.state.closed:
            break
