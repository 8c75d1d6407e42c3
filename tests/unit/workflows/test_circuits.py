"""What the kernel makes of breakers, without Temporal: what it asks, holds, sends, fails and hands over."""

from typing import Any

import pytest

from engine.contracts.circuits import CircuitRule, CircuitState, CircuitView
from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import AgentBinding, ExecutionInput, KernelRole
from tests.unit.workflows.drill import HOST, Drill, launch_input, task
from workflows.kernel.decide import Decision
from workflows.kernel.due import next_due_ms
from workflows.kernel.state import RunState

SERVICE = "agent:synthetic"
OPEN = CircuitView(service=SERVICE, state=CircuitState.OPEN, failures=3, threshold=3, retry_in_ms=30_000)
HALF_OPEN = CircuitView(service=SERVICE, state=CircuitState.HALF_OPEN, retry_in_ms=7_500, admitted=False)
CLOSED = CircuitView(service=SERVICE)


def launch(tasks: int = 3, **rule: Any) -> ExecutionInput:
    plain = launch_input(*(task(f"t{n}") for n in range(tasks)), agents=3)
    return plain.model_copy(update={"plan": plain.plan.model_copy(update={"circuit": CircuitRule(**rule)})})


def sent(decision: Decision) -> list[str]:
    return [attempt.task_id for attempt in decision.delta.assigned]


def kinds(decision: Decision) -> list[str]:
    return [str(e.type).partition(".")[2] for e in decision.audit if str(e.type).startswith("circuit_breaker.")]


def hear(drill: Drill, *views: CircuitView, after_ms: int = 1) -> Decision:
    drill.inbox.circuits.extend(views)
    return drill.tick(after_ms)


def test_a_tick_says_what_it_takes_for_granted() -> None:
    drill = Drill(launch())
    check = drill.tick().circuits
    assert check is not None
    assert [(ask.service, ask.expects, ask.wanted) for ask in check.asks] == [(SERVICE, CircuitState.CLOSED, ())]


def test_without_a_rule_nothing_is_asked_and_news_change_nothing() -> None:
    drill = Drill(launch_input(task("t0")))
    decision = hear(drill, OPEN)
    assert decision.circuits is None
    assert sent(decision) == ["t0"]


def test_while_it_is_open_nothing_is_sent_and_nothing_is_a_stall() -> None:
    drill = Drill(launch())
    decision = hear(drill, OPEN)
    assert (sent(decision), kinds(decision)) == ([], ["opened"])
    assert drill.state.status is ExecutionStatus.EXECUTING
    assert next_due_ms(drill.state, drill.policy) == drill.now_ms + 30_000


def test_when_its_time_has_come_as_many_probes_are_wanted_as_may_run() -> None:
    drill = Drill(launch(half_open_probes=2))
    hear(drill, OPEN)
    decision = drill.tick(30_000)
    assert (sent(decision), kinds(decision)) == (["t0", "t1"], ["half_open"])
    assert decision.circuits is not None
    (ask,) = decision.circuits.asks
    assert ask.expects is CircuitState.HALF_OPEN
    assert ask.wanted == tuple(f"{drill.launch.execution_id}/{t}/1/1" for t in ("t0", "t1"))
    assert sent(drill.tick()) == []
    assert sent(hear(drill, CLOSED)) == ["t2"]


def closing(drill: Drill, entry: str, at_ms: int, service: str = SERVICE) -> None:
    event = AgentEvent(type=AgentEventType.CIRCUIT_CLOSED, at_ms=at_ms, service=service)
    drill.inbox.batches.append(InboxBatch(entry_id=entry, partition=0, fence=1, low="0-0", events=(event,)))


def test_the_word_that_it_is_closed_sends_what_waits_at_once() -> None:
    drill = Drill(launch())
    hear(drill, OPEN.model_copy(update={"at_ms": 100}))
    closing(drill, "5-0", 200)
    decision = drill.tick()
    assert (sent(decision), kinds(decision)) == (["t0", "t1", "t2"], ["closed"])
    assert decision.circuits is not None  # and whether it is so is asked before anything is stored
    assert [ask.expects for ask in decision.circuits.asks] == [CircuitState.CLOSED]


@pytest.mark.parametrize(
    ("found_at", "closed_at", "held"), [(100, 200, False), (200, 200, False), (300, 200, True), (0, 200, True)]
)
def test_of_an_opening_and_a_closing_that_come_together_the_later_counts(
    found_at: int, closed_at: int, held: bool
) -> None:
    drill = Drill(launch())
    closing(drill, "5-0", closed_at)
    decision = hear(drill, OPEN.model_copy(update={"at_ms": found_at}))
    assert bool(sent(decision)) is not held


def test_the_closing_of_a_breaker_that_concerns_no_agent_type_is_consumed_only() -> None:
    drill = Drill(launch())
    hear(drill, OPEN)
    closing(drill, "5-0", 200, service="kubernetes_api")
    decision = drill.tick()
    assert (sent(decision), kinds(decision)) == ([], [])
    assert decision.acknowledge == ["5-0"]


def test_where_others_probe_it_looks_again_later() -> None:
    drill = Drill(launch())
    hear(drill, OPEN)
    decision = hear(drill, HALF_OPEN, after_ms=30_000)
    assert (sent(decision), kinds(decision)) == ([], ["half_open"])
    assert next_due_ms(drill.state, drill.policy) == drill.now_ms + 7_500
    assert sent(drill.tick(7_500)) == ["t0"]


def test_what_it_was_told_outlasts_a_snapshot() -> None:
    drill = Drill(launch())
    hear(drill, OPEN)
    restored = RunState.restore(drill.launch, drill.state.snapshot())
    assert restored.board == drill.state.board
    assert next_due_ms(restored, drill.policy) == next_due_ms(drill.state, drill.policy)


@pytest.mark.parametrize("alone", [False, True])
def test_where_the_definition_says_so_what_would_wait_fails(alone: bool) -> None:
    plain = launch_input(task("t0", alone=alone), on_failure="finish_branches")
    rule = CircuitRule(when_open="fail")
    drill = Drill(plain.model_copy(update={"plan": plain.plan.model_copy(update={"circuit": rule})}))
    decision = hear(drill, OPEN)
    assert [item.code for item in decision.delta.failed] == ["CIRCUIT_OPEN"]
    assert drill.state.status is ExecutionStatus.FAILED


def test_tasks_go_to_a_capable_role_of_another_type() -> None:
    base = launch(2, when_open="reassign")
    roles = {
        **base.plan.roles,
        "other": KernelRole(type="spare", count=1),
        "same": KernelRole(type="synthetic", count=1),
    }
    drill = Drill(base.model_copy(update={"plan": base.plan.model_copy(update={"roles": roles})}))
    decision = hear(drill, OPEN)
    assert [(attempt.task_id, attempt.agent_id) for attempt in decision.delta.assigned] == [("t0", "other-1")]
    assert decision.circuits is not None
    assert [ask.service for ask in decision.circuits.asks] == ["agent:spare"]


def test_a_role_that_is_not_capable_gets_nothing() -> None:
    base = launch(1, when_open="reassign")
    worker = base.plan.roles["worker"].model_copy(update={"capabilities": ("write",)})
    roles = {"worker": worker, "other": KernelRole(type="spare", count=1, capabilities=("read",))}
    drill = Drill(base.model_copy(update={"plan": base.plan.model_copy(update={"roles": roles})}))
    assert sent(hear(drill, OPEN)) == []


def test_what_waits_for_a_breaker_does_not_end_for_want_of_a_host_before_its_time() -> None:
    drill = Drill(launch(1), bind=False)
    drill.inbox.allocation_error = ("AGENT_ALLOCATION_TIMEOUT", "no host came")
    hear(drill, OPEN)
    assert drill.state.status is ExecutionStatus.EXECUTING
    drill.inbox.allocation_error = ("AGENT_ALLOCATION_TIMEOUT", "no host came")
    assert drill.tick(30_000).delta.status is ExecutionStatus.FAILED


def test_a_pause_holds_probes_back() -> None:
    drill = Drill(launch())
    hear(drill, OPEN)
    drill.control("pause")
    drill.tick()
    assert sent(drill.tick(30_000)) == []
    drill.control("resume")
    assert sent(drill.tick()) == ["t0"]


def test_a_binding_that_comes_late_is_used_when_its_time_has_come() -> None:
    drill = Drill(launch(1), bind=False)
    hear(drill, OPEN)
    drill.tick(40_000)
    drill.inbox.bindings.append(AgentBinding(agent_id="worker-1", role="worker", host_id=HOST))
    assert sent(drill.tick()) == ["t0"]
