"""Graphs that change while they run, on the pure kernel: conditions, fan-out, events, added tasks, reuse."""

from typing import Any

import pytest

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import AgentBinding, KernelTrigger
from engine.contracts.limits import EXTERNAL_EVENTS_WAITING_MAX, TASKS_DYNAMIC_MAX
from tests.unit.workflows.drill import Drill, launch_input, outcome, task
from workflows.kernel.state import Phase, RunState


def finish_all(drill: Drill) -> None:
    drill.receive(*(drill.completed(attempt) for attempt in drill.in_flight()))
    drill.tick()


def finish(drill: Drill, *task_ids: str) -> None:
    drill.receive(*(drill.completed(drill.attempt(task_id)) for task_id in task_ids))
    drill.tick()


def expand(drill: Drill, task_id: str, size: int) -> None:
    drill.evaluate(lambda t: outcome(t, "expand", size=size, items_ref="sha256:x") if t == task_id else outcome(t))
    drill.tick()


def failures(drill: Drill) -> dict[str, str]:
    return {item.task_id: item.code for d in drill.deltas for item in d.failed if item.retry_at_ms is None}


# when ---------------------------------------------------------------------------------------------------------------


def test_a_task_whose_condition_is_false_is_skipped_and_its_dependents_go_on() -> None:
    drill = Drill(launch_input(task("a"), task("b", (0,), when=True), task("c", (0, 1))))
    drill.tick()
    finish_all(drill)
    assert drill.phase("b") is Phase.HELD
    assert drill.phase("c") is Phase.PENDING
    request = drill.evaluate(lambda t: outcome(t, "skip"))
    assert request is not None
    assert request.tasks == ("b",)
    drill.tick()
    assert drill.phase("b") is Phase.SKIPPED
    assert drill.audit("task.skipped") == [{"task_id": "b", "reason": "when"}]
    assert [a.task_id for a in drill.in_flight()] == ["c"]
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_a_task_whose_condition_is_true_runs() -> None:
    drill = Drill(launch_input(task("a", when=True)))
    drill.tick()
    assert drill.in_flight() == []
    drill.evaluate(outcome)
    drill.tick()
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_a_task_all_of_whose_dependencies_were_skipped_is_skipped_too() -> None:
    drill = Drill(launch_input(task("a", when=True), task("b", (0,)), task("c", (1,))))
    drill.tick()
    drill.evaluate(lambda t: outcome(t, "skip"))
    drill.tick()
    assert drill.state.status is ExecutionStatus.COMPLETED
    assert [e["reason"] for e in drill.audit("task.skipped")] == ["when", "dependencies", "dependencies"]


def test_an_expression_that_fails_gives_the_task_up_without_a_retry() -> None:
    drill = Drill(launch_input(task("a", when=True), task("b"), on_failure="finish_branches"))
    drill.tick()
    drill.evaluate(lambda t: outcome(t, "fail", code="EXPRESSION_TYPE", message="no number"))
    drill.tick()
    assert drill.phase("a") is Phase.FAILED
    assert drill.finish() is ExecutionStatus.FAILED
    assert failures(drill) == {"a": "EXPRESSION_TYPE"}


def test_outcomes_of_an_earlier_epoch_do_not_count() -> None:
    drill = Drill(launch_input(task("a", when=True)))
    drill.tick()
    drill.evaluate(lambda t: outcome(t, "skip"))
    drill.inbox.outcomes_epoch = 0
    drill.tick()
    assert drill.phase("a") is Phase.HELD


# for_each -----------------------------------------------------------------------------------------------------------


def test_a_for_each_task_becomes_one_task_an_element_and_is_done_when_all_are() -> None:
    drill = Drill(launch_input(task("a"), task("g", (0,), for_each=True), task("z", (1,))))
    drill.tick()
    finish_all(drill)
    expand(drill, "g", 3)
    assert drill.phase("g") is Phase.EXPANDED
    assert drill.decisions[-1].metrics.tasks_added == 3
    assert drill.assigned() == ["a", "g[0]", "g[1]", "g[2]"]
    finish_all(drill)
    assert drill.phase("g") is Phase.COMPLETED
    assert drill.audit("task.completed")[-1] == {"task_id": "g", "attempt": 0, "status": "success", "elements": 3}
    assert [a.task_id for a in drill.in_flight()] == ["z"]
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_an_empty_list_completes_the_task_at_once() -> None:
    drill = Drill(launch_input(task("g", for_each=True), task("z", (0,))))
    drill.tick()
    expand(drill, "g", 0)
    assert drill.phase("g") is Phase.COMPLETED
    assert [a.task_id for a in drill.in_flight()] == ["z"]


def test_an_element_that_is_given_up_fails_the_task_when_its_siblings_are_done() -> None:
    drill = Drill(launch_input(task("g", for_each=True), task("z", (0,)), on_failure="finish_branches"))
    drill.tick()
    expand(drill, "g", 3)
    drill.receive(drill.failed(drill.attempt("g[0]"), retryable=False))
    drill.tick()
    assert drill.phase("g") is Phase.EXPANDED
    assert drill.finish() is ExecutionStatus.FAILED
    assert failures(drill) == {"g[0]": "BROKEN", "g": "ELEMENTS_FAILED"}
    assert drill.phase("z") is Phase.SKIPPED
    assert drill.phase("g[2]") is Phase.COMPLETED


def test_an_element_that_is_given_up_ends_a_fail_fast_execution() -> None:
    drill = Drill(launch_input(task("g", for_each=True)))
    drill.tick()
    expand(drill, "g", 3)
    drill.receive(drill.failed(drill.attempt("g[0]"), retryable=False))
    drill.tick()
    assert drill.state.status is ExecutionStatus.FAILED
    assert drill.phase("g[2]") is Phase.CANCELLED


def test_more_elements_than_an_execution_may_add_fail_the_task() -> None:
    drill = Drill(launch_input(task("g", for_each=True), task("h", for_each=True), on_failure="finish_branches"))
    drill.tick()
    expand(drill, "g", TASKS_DYNAMIC_MAX + 1)
    assert failures(drill)["g"] == "FOR_EACH_TOO_LONG"


def test_elements_may_take_results_of_equal_tasks() -> None:
    drill = Drill(launch_input(task("g", for_each=True, reuse=True)))
    drill.tick()
    expand(drill, "g", 2)
    assert drill.in_flight() == []
    drill.evaluate(lambda t: outcome(t, "reuse", result=1) if t == "g[0]" else outcome(t))
    drill.tick()
    assert drill.phase("g[0]") is Phase.COMPLETED
    assert [a.task_id for a in drill.in_flight()] == ["g[1]"]
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_ten_thousand_elements_are_carried_in_a_small_snapshot() -> None:
    drill = Drill(launch_input(task("g", for_each=True)))
    drill.tick()
    expand(drill, "g", TASKS_DYNAMIC_MAX)
    assert drill.state.snapshot()["graph"]["growth"] == [["elements", 0, TASKS_DYNAMIC_MAX]]
    assert len(drill.deltas[-1].model_dump_json(exclude_defaults=True)) < 1_000


# reuse --------------------------------------------------------------------------------------------------------------


def test_a_reused_result_completes_the_task_without_an_agent() -> None:
    drill = Drill(launch_input(task("a", reuse=True), task("b", (0,))))
    drill.tick()
    drill.evaluate(lambda t: outcome(t, "reuse", result={"x": 1}))
    drill.tick()
    done = {"task_id": "a", "attempt": 0, "status": "success", "reused": True, "result": {"x": 1}}
    assert drill.audit("task.completed") == [done]
    assert [(r.task_id, r.result) for r in drill.decisions[-1].results] == [("a", {"x": 1})]
    assert drill.decisions[-1].writes is None
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_a_task_that_others_may_reuse_says_so_when_it_is_done() -> None:
    drill = Drill(launch_input(task("a", reuse=True), task("b")))
    drill.tick()
    drill.evaluate(outcome)
    drill.tick()
    finish_all(drill)
    writes = drill.decisions[-1].writes
    assert writes is not None
    assert writes.reusable == ("a",)


# triggers -----------------------------------------------------------------------------------------------------------


def awaiting(task_id: str, deps: tuple[int, ...] = (), *triggers: KernelTrigger, **fields: Any) -> Any:
    return task(task_id, deps, triggers=triggers or (KernelTrigger(event="go"),), **fields)


def test_a_task_waits_for_its_event_and_nothing_is_stalled_meanwhile() -> None:
    drill = Drill(launch_input(task("a"), awaiting("b", (0,))))
    drill.tick()
    finish_all(drill)
    drill.tick(after_ms=600_000)
    assert drill.state.status is ExecutionStatus.EXECUTING
    assert drill.decisions[-1].metrics.awaiting == {"b": ("go",)}
    drill.happen("e1", "go", {"x": 1})
    drill.tick()
    writes = drill.decisions[-1].writes
    assert writes is not None
    assert [(e.event_id, e.payload) for e in writes.received] == [("e1", {"x": 1})]
    assert drill.audit("task.triggered") == [{"task_id": "b", "event_id": "e1"}]
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_an_event_that_came_early_is_kept_and_taken_by_one_task_the_first() -> None:
    drill = Drill(launch_input(task("a"), awaiting("b", (0,)), awaiting("c", (0,))))
    drill.happen("e1", "go")
    drill.tick()
    drill.happen("e1", "go")
    drill.tick()
    finish_all(drill)
    drill.tick()
    assert [a.task_id for a in drill.in_flight()] == ["b"]
    assert drill.phase("c") is Phase.AWAITING
    assert len(drill.audit("external.event_received")) == 1


def test_of_too_many_early_events_the_oldest_are_dropped() -> None:
    drill = Drill(launch_input(task("a"), awaiting("b", (0,))))
    for n in range(EXTERNAL_EVENTS_WAITING_MAX + 2):
        drill.happen(f"e{n}", "other")
    drill.tick()
    assert [e["event_id"] for e in drill.audit("external.event_dropped")] == ["e0", "e1"]
    assert len(drill.state.kept) == EXTERNAL_EVENTS_WAITING_MAX


def test_only_an_event_for_which_the_condition_holds_counts() -> None:
    drill = Drill(launch_input(awaiting("a", (), KernelTrigger(event="go", conditional=True))))
    drill.tick()
    for n in range(3):
        drill.happen(f"e{n}", "go")
    drill.tick()
    request = drill.evaluate(outcome, lambda m: m.event_id == "e2")
    assert request is not None
    assert [m.event_id for m in request.matches] == ["e0", "e1", "e2"]
    drill.tick()
    assert drill.audit("task.triggered") == [{"task_id": "a", "event_id": "e2"}]
    assert sorted(drill.state.kept) == ["e0", "e1"]


def test_refused_events_are_not_evaluated_again() -> None:
    drill = Drill(launch_input(awaiting("a", (), KernelTrigger(event="go", conditional=True))))
    drill.happen("e0", "go")
    drill.tick()
    assert drill.evaluate(outcome, lambda _: False) is not None
    drill.tick()
    drill.continue_as_new()
    assert drill.evaluate(outcome) is None


def test_any_of_its_triggers_sets_a_task_off() -> None:
    drill = Drill(launch_input(awaiting("a", (), KernelTrigger(event="yes"), KernelTrigger(event="no"))))
    drill.tick()
    drill.happen("e1", "no")
    drill.tick()
    assert [a.task_id for a in drill.in_flight()] == ["a"]


@pytest.mark.parametrize(
    ("on_timeout", "phase", "status"),
    [("fail", Phase.FAILED, "failed"), ("skip", Phase.SKIPPED, "completed"), ("run", Phase.ASSIGNED, "executing")],
)
def test_when_no_event_comes_in_time_the_definition_says_what_follows(
    on_timeout: str, phase: Phase, status: str
) -> None:
    trigger = KernelTrigger.model_validate({"event": "go", "timeout_ms": 5_000, "on_timeout": on_timeout})
    drill = Drill(launch_input(awaiting("a", (), trigger)))
    drill.tick(after_ms=4_000)
    assert drill.phase("a") is Phase.AWAITING
    drill.tick(after_ms=1_000)
    assert (drill.phase("a"), drill.state.status.value) == (phase, status)
    assert failures(drill) == ({"a": "TRIGGER_TIMEOUT"} if on_timeout == "fail" else {})


def test_while_paused_no_wait_ends_by_its_timeout() -> None:
    trigger = KernelTrigger(event="go", timeout_ms=5_000)
    drill = Drill(launch_input(awaiting("a", (), trigger)))
    drill.tick()
    drill.control("pause")
    drill.tick()
    drill.tick(after_ms=60_000)
    assert drill.phase("a") is Phase.AWAITING
    drill.control("resume")
    drill.tick()
    drill.tick()
    assert failures(drill) == {"a": "TRIGGER_TIMEOUT"}


def test_after_its_event_a_task_is_evaluated() -> None:
    drill = Drill(launch_input(awaiting("a", when=True)))
    drill.happen("e", "go")
    drill.tick()
    assert drill.phase("a") is Phase.HELD
    drill.evaluate(outcome)
    drill.tick()
    assert [a.task_id for a in drill.in_flight()] == ["a"]


# spawn --------------------------------------------------------------------------------------------------------------


def spawn(drill: Drill, by: str, *documents: dict[str, Any]) -> None:
    event = drill.completed(drill.attempt(by)).model_copy(update={"spawn": documents})
    drill.receive(event)
    drill.tick()


def test_a_result_adds_tasks_which_run_after_their_dependencies() -> None:
    drill = Drill(launch_input(task("a"), task("z", (0,)), agents=1))
    drill.tick()
    spawn(
        drill,
        "a",
        {"id": "n2", "agent": "worker", "depends_on": ["n1"]},
        {"id": "n1", "agent": "worker", "depends_on": ["a"], "blocks": ["z"], "input": {"x": 1}},
    )
    assert [e["task_id"] for e in drill.audit("task.spawned")] == ["n1", "n2"]
    writes = drill.decisions[-1].writes
    assert writes is not None
    assert [(b.task_id, b.spawned_by, b.blocks, b.body["input"]) for b in writes.bodies] == [
        ("n1", "a", ("z",), {"x": 1}),
        ("n2", "a", (), {}),
    ]
    assert drill.finish() is ExecutionStatus.COMPLETED
    order = drill.assigned()
    assert order.index("n1") < order.index("z")
    assert order.index("n1") < order.index("n2")


def test_a_task_that_was_ready_goes_back_when_a_new_one_blocks_it() -> None:
    drill = Drill(launch_input(task("a", slack_ms=0), task("b", slack_ms=5), agents=1))
    drill.tick()
    assert drill.phase("b") is Phase.READY
    spawn(drill, "a", {"id": "n", "agent": "worker", "blocks": ["b"]})
    assert [a.task_id for a in drill.in_flight()] == ["n"]
    assert drill.finish() is ExecutionStatus.COMPLETED


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        ([{"id": "a", "agent": "worker"}], "there is a task a already"),
        ([{"id": "n", "agent": "worker"}, {"id": "n", "agent": "worker"}], "there is a task n already"),
        ([{"id": "n", "agent": "nobody"}], "no role nobody"),
        ([{"id": "n", "agent": "worker", "colour": "red"}], "spawn[0].colour"),
        ([{"id": "n!", "agent": "worker"}], "spawn[0].id"),
        ([{"id": "n", "agent": "worker", "depends_on": ["x"]}], "depends on x, which is not there"),
        ([{"id": "n", "agent": "worker", "blocks": "z"}], "blocks is not a list"),
        ([{"id": "n", "agent": "worker", "blocks": ["x"]}], "blocks x, which was not there"),
        ([{"id": "n", "agent": "worker", "blocks": ["a"]}], "blocks a, which has started"),
        ([{"id": "n", "agent": "worker", "depends_on": ["z"], "blocks": ["y"]}], "wait for each other: n, y, z"),
        ([{"id": "n", "agent": "worker", "depends_on": ["m"]}, {"id": "m", "agent": "worker", "depends_on": ["n"]}],
         "wait for each other: m, n"),
        ([{"id": f"n{i}", "agent": "worker"} for i in range(1_001)], "one result may add 1000"),
        ([{"id": "n", "agent": "worker", "input": {"x": "y" * 200_000}}], "bytes: one result may add"),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be_added_fail_the_attempt_for_good_and_disturb_nothing(
    documents: list[dict[str, Any]], reason: str
) -> None:
    tasks = (task("a"), task("y", (0,)), task("z", (1,)), task("other"))
    drill = Drill(launch_input(*tasks, on_failure="finish_branches"))
    drill.tick()
    spawn(drill, "a", *documents)
    (failed,) = drill.deltas[-1].failed
    assert (failed.code, failed.retry_at_ms) == ("SPAWN_REFUSED", None)
    assert reason in failed.message
    assert drill.state.added == 0
    assert drill.phase("other") is Phase.ASSIGNED


def test_a_new_task_may_stand_between_two_that_wait_for_each_other_in_order() -> None:
    drill = Drill(launch_input(task("a"), task("y", (0,)), task("z", (1,)), agents=1))
    drill.tick()
    spawn(
        drill,
        "a",
        {"id": "m", "agent": "worker", "depends_on": ["y"], "blocks": ["z"]},
        {"id": "n", "agent": "worker", "blocks": ["y"]},
    )
    assert drill.finish() is ExecutionStatus.COMPLETED
    assert drill.assigned() == ["a", "n", "y", "m", "z"]


def test_a_new_task_is_as_urgent_as_what_waits_for_it() -> None:
    drill = Drill(launch_input(task("a", slack_ms=9), task("y", (0,), slack_ms=4), agents=1))
    drill.tick()
    spawn(
        drill,
        "a",
        {"id": "m", "agent": "worker", "blocks": ["y"], "depends_on": ["n"]},
        {"id": "n", "agent": "worker"},
        {"id": "o", "agent": "worker"},
    )
    assert {s.id: s.slack_ms for s in drill.state.specs} == {"a": 9, "y": 4, "n": 4, "m": 4, "o": 9}


def test_an_execution_may_add_only_so_many_tasks() -> None:
    drill = Drill(launch_input(task("g", for_each=True, role="other"), task("a"), on_failure="finish_branches"))
    drill.tick()
    expand(drill, "g", TASKS_DYNAMIC_MAX - 1)
    spawn(drill, "a", {"id": "n1", "agent": "worker"}, {"id": "n2", "agent": "worker"})
    assert failures(drill) == {"a": "SPAWN_REFUSED"}


def test_a_spawned_task_may_itself_be_conditional_or_stand_for_many() -> None:
    drill = Drill(launch_input(task("a")))
    drill.tick()
    wait = {"event": "go", "timeout_seconds": 5, "on_timeout": "skip"}
    spawn(drill, "a", {"id": "g", "agent": "worker", "for_each": "results.a", "depends_on": ["a"]},
          {"id": "w", "agent": "worker", "triggers": [wait]})  # fmt: skip
    assert (drill.phase("g"), drill.phase("w")) == (Phase.HELD, Phase.AWAITING)
    expand(drill, "g", 2)
    drill.continue_as_new()
    assert drill.finish() is ExecutionStatus.COMPLETED
    assert {"g[0]", "g[1]"} <= set(drill.assigned())


# Going back ---------------------------------------------------------------------------------------------------------


def paused_at(drill: Drill) -> None:
    drill.control("pause")
    drill.tick()


def test_going_back_drops_what_a_repeated_task_had_added() -> None:
    drill = Drill(launch_input(task("a"), task("b", (0,)), task("z", (1,)), agents=1))
    drill.tick()
    drill.control("checkpoint", checkpoint_id="00000000-0000-4000-8000-0000000000aa")
    finish_all(drill)
    spawn(drill, "b", {"id": "n", "agent": "worker", "blocks": ["z"]})
    paused_at(drill)
    drill.rewind_to("first", "a", "b")
    drill.tick()
    assert drill.deltas[-1].rewind is not None
    assert drill.deltas[-1].rewind.dropped == ("n",)
    assert drill.state.added == 0
    assert drill.state.specs == list(drill.launch.plan.tasks)
    drill.tick()
    finish_all(drill)
    spawn(drill, "b", {"id": "n", "agent": "worker", "blocks": ["z"]})
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_going_back_keeps_elements_whose_list_is_the_same_and_repeats_only_what_must_be() -> None:
    drill = Drill(launch_input(task("a"), task("g", (0,), for_each=True), task("z", (1,)), agents=1))
    drill.tick()
    finish_all(drill)
    expand(drill, "g", 3)
    finish(drill, "g[0]", "g[1]", "g[2]")
    assert drill.phase("g") is Phase.COMPLETED
    paused_at(drill)
    drill.rewind_to("first", "g", "g[1]", "g[2]")
    drill.tick()
    assert drill.deltas[-1].rewind is not None
    assert drill.deltas[-1].rewind.dropped == ()
    assert [drill.phase(f"g[{n}]") is Phase.COMPLETED for n in range(3)] == [True, False, False]
    assert drill.phase("g") is Phase.EXPANDED
    assert drill.finish() is ExecutionStatus.COMPLETED
    assert drill.assigned().count("g[0]") == 1
    assert drill.assigned().count("g[1]") == 2


def test_going_back_before_the_list_drops_the_elements() -> None:
    drill = Drill(launch_input(task("a"), task("g", (0,), for_each=True), agents=1))
    drill.tick()
    finish_all(drill)
    expand(drill, "g", 3)
    finish(drill, "g[0]")
    paused_at(drill)
    drill.rewind_to("first", "a", "g[0]")
    drill.tick()
    assert drill.state.added == 0
    drill.tick()
    finish_all(drill)
    expand(drill, "g", 1)
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_going_back_gives_an_event_back_to_the_task_that_had_taken_it() -> None:
    drill = Drill(launch_input(awaiting("a"), task("b", (0,)), agents=1))
    drill.happen("e", "go")
    drill.tick()
    finish_all(drill)
    paused_at(drill)
    drill.rewind_to("first", "a")
    drill.tick()
    drill.control("resume", request_id="again")
    drill.tick()
    drill.tick()
    assert [a.task_id for a in drill.in_flight()] == ["a"]
    assert drill.finish() is ExecutionStatus.COMPLETED


# Snapshots ----------------------------------------------------------------------------------------------------------


def test_a_snapshot_of_before_the_graph_could_grow_is_read() -> None:
    drill = Drill(launch_input(task("a"), task("b", (0,))))
    drill.tick()
    old = {k: v for k, v in drill.state.snapshot().items() if k not in ("version", "graph")}
    assert RunState.restore(drill.launch, old).snapshot() == drill.state.snapshot()


def test_a_snapshot_of_a_later_version_is_refused() -> None:
    drill = Drill(launch_input(task("a")))
    with pytest.raises(ValueError, match="version 99"):
        RunState.restore(drill.launch, {**drill.state.snapshot(), "version": 99})


def test_what_rides_behind_a_task_that_adds_others_is_taken_back_and_waits_for_them() -> None:
    tasks = (task("a"), task("b", (0,), fused=True), task("c", (1,), fused=True))
    drill = Drill(launch_input(*tasks, agents=1), bind=False)
    binding = {"agent_id": "worker-1", "role": "worker", "host_id": "host-1", "chains": True}
    drill.inbox.bindings.append(AgentBinding.model_validate(binding))
    drill.tick()
    assert [a.task_id for a in drill.in_flight()] == ["a", "b", "c"]
    spawn(drill, "a", {"id": "n", "agent": "worker", "blocks": ["b"]})
    assert [a.task_id for a in drill.decisions[-1].cancel] == ["b", "c"]
    assert [(a.task_id, a.after) for a in drill.deltas[-1].assigned] == [("n", ()), ("b", ("n",)), ("c", ("b",))]
    drill.continue_as_new()
    assert drill.finish() is ExecutionStatus.COMPLETED
    assert drill.assigned() == ["a", "b", "c", "n", "b", "c"]
