"""Fused chains in the kernel: what goes out together, and what is taken back when the chain breaks."""

import pytest

from engine.contracts.events import AgentEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.limits import CHAIN_MAX
from tests.unit.workflows.drill import Drill, launch_input, task
from workflows.kernel.due import next_due_ms
from workflows.kernel.state import Phase
from workflows.kernel.transitions import RESEND_AFTER_MS

CHAIN = (task("a"), task("b", (0,), fused=True), task("c", (1,), fused=True))


def chained(*tasks: object, agents: int = 1, chains: bool = True, slots: int = 1, **fields: object) -> Drill:
    drill = Drill(launch_input(*(tasks or CHAIN), agents=agents, **fields), bind=False)  # type: ignore[arg-type]
    drill.bind(*drill.state.agents, chains=chains, slots=slots)
    return drill


def test_a_chain_goes_out_at_once_and_says_what_follows_what() -> None:
    drill = chained()
    assert [(a.task_id, a.after, a.attempt) for a in drill.tick().delta.assigned] == [
        ("a", (), 1),
        ("b", ("a",), 1),
        ("c", ("b",), 1),
    ]
    assert len(drill.audit("agent.task_assigned")) == 3


def test_a_host_that_does_not_know_chains_gets_one_task_at_a_time() -> None:
    drill = chained(chains=False)
    assert [(a.task_id, a.after) for a in drill.tick().delta.assigned] == [("a", ())]
    assert drill.finish() is ExecutionStatus.COMPLETED
    assert drill.assigned() == ["a", "b", "c"]


def test_the_reports_of_a_whole_chain_fold_in_one_tick() -> None:
    drill = chained()
    drill.tick()
    drill.receive(*(drill.completed(drill.attempt(name)) for name in ("a", "b", "c")))
    decision = drill.tick()
    assert [d.task_id for d in decision.delta.done] == ["a", "b", "c"]
    assert decision.delta.status is ExecutionStatus.COMPLETED


def test_a_chain_takes_one_slot_however_far_it_has_come() -> None:
    drill = chained()
    drill.tick()
    agent = drill.state.agents["worker-1"]
    assert agent.load == 1
    for name in ("a", "b"):
        drill.receive(drill.completed(drill.attempt(name)))
        drill.tick()
        assert agent.load == 1
    drill.receive(drill.completed(drill.attempt("c")))
    drill.tick()
    assert agent.load == 0


def test_many_chains_are_shared_by_slots_not_by_tasks() -> None:
    tasks = [task(f"{row}{n}", (row * 3 + n - 1,) if n else (), fused=n > 0) for row in range(4) for n in range(3)]
    drill = chained(*tasks, agents=2, slots=2)
    heads = [a for a in drill.tick().delta.assigned if not a.after]
    assert sorted(a.agent_id for a in heads) == ["worker-1", "worker-1", "worker-2", "worker-2"]


def test_a_chain_is_cut_at_the_limit() -> None:
    tasks = [task(f"t{n}", (n - 1,) if n else (), fused=n > 0) for n in range(CHAIN_MAX + 5)]
    drill = chained(*tasks)
    assert len(drill.tick().delta.assigned) == CHAIN_MAX
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_what_rides_behind_a_task_is_not_due_before_it_is_done() -> None:
    drill = chained()
    drill.tick()
    drill.receive(drill.started(drill.attempt("a")))
    drill.tick()
    timeout_at_ms = drill.now_ms - 1 + drill.state.specs[0].timeout_ms
    assert next_due_ms(drill.state, drill.policy) == timeout_at_ms
    drill.receive(drill.completed(drill.attempt("a")))
    drill.tick()
    assert drill.state.tasks[1].due_ms == drill.now_ms + RESEND_AFTER_MS


def test_an_unconfirmed_chain_is_sent_again_as_a_whole() -> None:
    drill = chained()
    drill.tick()
    resent = drill.tick(after_ms=RESEND_AFTER_MS).delta.resent
    assert [(a.task_id, a.after, a.attempt) for a in resent] == [("a", (), 1), ("b", ("a",), 1), ("c", ("b",), 1)]
    assert drill.state.agents["worker-1"].load == 1


@pytest.mark.parametrize("retryable", [True, False])
def test_when_a_task_fails_those_behind_it_are_taken_back(retryable: bool) -> None:
    drill = chained(on_failure="finish_branches")
    drill.tick()
    drill.receive(drill.completed(drill.attempt("a")), drill.failed(drill.attempt("b"), retryable=retryable))
    decision = drill.tick()
    assert [a.task_id for a in decision.delta.returned] == ["c"]
    assert [a.task_id for a in decision.cancel] == ["c"]
    assert drill.state.agents["worker-1"].load == 0
    if not retryable:
        assert drill.phase("c") is Phase.SKIPPED
        return
    assert drill.phase("c") is Phase.PENDING
    again = drill.tick(after_ms=1_000).delta.assigned
    assert [(a.task_id, a.attempt, a.after) for a in again] == [("b", 2, ()), ("c", 2, ("b",))]
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_only_the_rest_of_a_chain_runs_again_when_its_host_is_lost() -> None:
    drill = chained()
    drill.tick()
    drill.receive(drill.completed(drill.attempt("a")), drill.started(drill.attempt("b")))
    drill.tick()
    drill.host_lost()
    decision = drill.tick()
    assert [f.task_id for f in decision.delta.failed] == ["b"], "what rode behind is not blamed"
    assert drill.phase("b") is Phase.READY
    assert drill.phase("c") is Phase.PENDING
    drill.bind("worker-1", host_id="host-2", chains=True)
    assert [(a.task_id, a.attempt) for a in drill.tick().delta.assigned] == [("b", 2), ("c", 2)]
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_a_pause_stops_between_the_tasks_of_a_chain() -> None:
    drill = chained()
    drill.tick()
    first = drill.attempt("a")
    returned = [drill.event(AgentEventType.TASK_RETURNED, drill.attempt(name)) for name in ("b", "c")]
    drill.control("pause")
    drill.tick()
    drill.receive(*returned, drill.completed(first))
    drill.tick()
    assert drill.state.status is ExecutionStatus.PAUSED
    assert [drill.phase(name) for name in ("a", "b", "c")] == [Phase.COMPLETED, Phase.READY, Phase.PENDING]
    drill.control("resume")
    assert [(a.task_id, a.after) for a in drill.tick().delta.assigned] == [("b", ()), ("c", ("b",))]
    assert drill.finish() is ExecutionStatus.COMPLETED


def test_a_report_that_overtook_its_predecessors_is_left_for_its_repetition() -> None:
    drill = chained()
    drill.tick()
    early = drill.completed(drill.attempt("b"))
    drill.receive(early)
    decision = drill.tick()
    assert (decision.delta.done, decision.cancel) == ((), [])
    assert drill.phase("b") is Phase.ASSIGNED
    drill.receive(drill.completed(drill.attempt("a")))
    drill.tick()
    drill.receive(early)
    assert [d.task_id for d in drill.tick().delta.done] == ["b"]


def test_a_late_report_of_a_task_that_was_taken_back_does_not_count() -> None:
    drill = chained()
    drill.tick()
    late = drill.completed(drill.attempt("b"))
    drill.receive(drill.failed(drill.attempt("a")))
    drill.tick()
    drill.receive(late)
    assert [a.task_id for a in drill.tick().cancel] == ["b"]
    assert drill.phase("b") is Phase.PENDING


def test_a_chain_in_flight_survives_continue_as_new() -> None:
    drill = chained()
    drill.tick()
    drill.continue_as_new()
    drill.receive(*(drill.completed(drill.attempt(name)) for name in ("a", "b", "c")))
    assert drill.tick().delta.status is ExecutionStatus.COMPLETED


def test_cancelling_stops_the_whole_chain() -> None:
    drill = chained()
    drill.tick()
    drill.control("cancel")
    decision = drill.tick()
    assert sorted(a.task_id for a in decision.cancel) == ["a", "b", "c"]
    assert drill.state.agents["worker-1"].load == 0


def test_going_back_to_a_checkpoint_begins_the_chain_anew() -> None:
    drill = chained()
    drill.tick()
    drill.control("pause", checkpoint_id="00000000-0000-4000-8000-00000000000c")
    drill.tick()
    drill.rewind_to("00000000-0000-4000-8000-00000000000c")
    decision = drill.tick()
    assert decision.delta.rewind is not None
    assert [(a.task_id, a.after) for a in drill.tick().delta.assigned or decision.delta.assigned] == [
        ("a", ()),
        ("b", ("a",)),
        ("c", ("b",)),
    ]
    assert drill.finish() is ExecutionStatus.COMPLETED
