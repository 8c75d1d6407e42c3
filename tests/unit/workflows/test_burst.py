"""Ticks that follow each other inside one activity, decided by the kernel itself."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch, TaskError
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import AgentBinding, BindRequest, Delta, KernelTask, TickProposal, delta_text
from tests.unit.workflows.drill import HOST, launch_input, task
from workflows.kernel.burst import LINGER_MS, Burst
from workflows.kernel.decide import decide
from workflows.kernel.inbox import Inbox
from workflows.kernel.state import Phase, RunState
from workflows.kernel.transitions import apply_delta
from workflows.policies.supervisor import SupervisorPolicy

POLICY = SupervisorPolicy()
NOW_MS = 1_000_001


def chain(length: int, **fields: object) -> tuple[KernelTask, ...]:
    return tuple(task(f"t{n}", (n - 1,) if n else (), **fields) for n in range(length))


class Desk:
    """A workflow with agents that answers at once; `journal` is what is committed, unless it is told otherwise."""

    def __init__(self, *tasks: KernelTask, agents: int = 1, bound: int | None = None, alone: bool = False) -> None:
        self.launch = launch_input(*(tasks or chain(5)), agents=agents)
        self.state = RunState(self.launch)
        self.entries = 0
        self.now_ms = NOW_MS
        first = decide(self.state, POLICY, Inbox(bindings=self.bindings(bound)), NOW_MS)
        self.burst = Burst(self.state, POLICY, first, 0, alone=alone)
        self.attempt = self.burst.begin()
        self.journal = [self.burst.texts[0]]

    def bindings(self, count: int | None = None) -> list[AgentBinding]:
        agents = sorted(self.state.agents)[:count]
        return [AgentBinding(agent_id=name, role="worker", host_id=HOST) for name in agents]

    def event(self, task_id: str, kind: AgentEventType = AgentEventType.TASK_COMPLETED) -> AgentEvent:
        run = self.state.tasks[self.state.index[task_id]]
        failed = kind is AgentEventType.TASK_FAILED
        return AgentEvent(
            type=kind, at_ms=self.now_ms, task_id=task_id, agent_id=run.agent_id or "", attempt=run.attempt,
            error=TaskError(code="BROKEN") if failed else None,
        )  # fmt: skip

    def batch(self, *events: AgentEvent) -> InboxBatch:
        self.entries += 1
        return InboxBatch(entry_id=f"{self.entries}-0", partition=0, fence=1, low="0-0", events=events)

    def follow(self, *task_ids: str, attempt: int | None = None) -> TickProposal | None:
        return self.follow_with(*(self.event(name) for name in task_ids), attempt=attempt)

    def follow_with(self, *events: AgentEvent, attempt: int | None = None) -> TickProposal | None:
        self.now_ms += 1
        number = self.attempt if attempt is None else attempt
        return self.burst.follow_up(number, [self.batch(*events)], self.now_ms)

    def replayed(self, texts: Sequence[str]) -> RunState:
        """What these ticks alone make of the execution."""
        state = RunState(self.launch)
        for text in texts:
            apply_delta(state, Delta.model_validate_json(text))
        return state


def done(proposal: TickProposal | None) -> list[str]:
    assert proposal is not None
    return [item.task_id for item in proposal.delta.done]


def test_each_result_makes_a_tick_that_assigns_what_it_makes_ready() -> None:
    desk = Desk()
    for n in range(4):
        proposal = desk.follow(f"t{n}")
        assert proposal is not None
        assert (proposal.tick, proposal.base_tick) == (n + 2, 0)
        assert proposal.delta.at_ms == desk.now_ms
        assert proposal.delta_text == delta_text(proposal.delta)
        assert [a.task_id for a in proposal.delta.assigned] == [f"t{n + 1}"]
        assert proposal.acknowledge == (f"{n + 1}-0",)
        assert [result.task_id for result in proposal.results] == [f"t{n}"]
    last = desk.follow("t4")
    assert last is not None
    assert last.delta.status is ExecutionStatus.COMPLETED
    assert desk.follow_with(AgentEvent(type=AgentEventType.TASK_STARTED, at_ms=1)) is None, "it is over"


def test_the_given_tick_stays_the_same_whatever_follows() -> None:
    desk = Desk()
    before = desk.burst.proposal.model_copy()
    desk.follow("t0")
    desk.follow("t1")
    assert desk.burst.proposal == before
    assert before.tick == 1


def test_the_ticks_are_those_that_the_workflow_itself_would_have_decided() -> None:
    desk = Desk()
    proposals = [desk.burst.proposal, desk.follow("t0"), desk.follow("t1")]
    state, twin = RunState(desk.launch), Desk()
    inboxes = [Inbox(bindings=desk.bindings()), *(Inbox(batches=[twin.batch(event)]) for event in (
        desk_event("t0", 1), desk_event("t1", 2)))]  # fmt: skip
    for n, inbox in enumerate(inboxes):
        decision = decide(state, POLICY, inbox, NOW_MS + n)
        assert (found := proposals[n]) is not None
        assert delta_text(decision.delta) == found.delta_text
    assert state.snapshot() == desk.state.snapshot()


def desk_event(task_id: str, n: int) -> AgentEvent:
    """As `Desk.event` makes the n-th."""
    return AgentEvent(
        type=AgentEventType.TASK_COMPLETED, at_ms=NOW_MS + n - 1, task_id=task_id, agent_id="worker-1", attempt=1
    )


@pytest.mark.parametrize("kind", [AgentEventType.REGISTERED, AgentEventType.DISCONNECTED])
def test_news_of_hosts_are_for_the_workflow_and_results_beside_them_wait(kind: AgentEventType) -> None:
    desk = Desk()
    before = desk.state.snapshot()
    news = AgentEvent(type=kind, at_ms=NOW_MS, host_id="host-2")
    assert desk.follow_with(desk.event("t0"), news) is None
    assert desk.state.snapshot() == before


def test_while_an_agent_has_no_host_the_workflow_looks_for_one() -> None:
    desk = Desk(*chain(3), agents=2, bound=1)
    before = desk.state.snapshot()
    assert desk.follow("t0") is None
    assert desk.state.snapshot() == before


def test_nothing_follows_when_the_workflow_was_asked_for_something() -> None:
    desk = Desk(alone=True)
    assert desk.burst.proposal.linger_ms == 0, "nor are results waited for"
    assert desk.follow("t0") is None


def test_what_must_be_evaluated_is_for_the_workflow() -> None:
    desk = Desk(task("t0"), task("t1", (0,), when=True), task("t2", (1,)))
    proposal = desk.follow("t0")
    assert proposal is not None
    assert proposal.linger_ms == 0
    assert desk.follow_with(AgentEvent(type=AgentEventType.TASK_STARTED, at_ms=1)) is None


def test_results_are_waited_for_where_they_are_likely_to_come_soon() -> None:
    desk = Desk()
    assert desk.burst.proposal.linger_ms == LINGER_MS
    desk.now_ms += 60_000
    slow = desk.event("t0").model_copy(update={"started_at_ms": NOW_MS})
    proposal = desk.follow_with(slow)
    assert proposal is not None
    assert proposal.linger_ms == 0, "that role's tasks last a minute"


def test_what_changes_nothing_makes_no_tick() -> None:
    desk = Desk()
    again = desk.batch(desk.event("t0"))
    assert desk.burst.follow_up(1, [again], NOW_MS + 1) is not None
    before = desk.state.snapshot()
    old = again.model_copy(update={"fence": 0})
    assert desk.burst.follow_up(1, [old], NOW_MS + 2) is None, "of an older owner"
    assert desk.state.snapshot() == before


def test_a_second_attempt_takes_back_what_the_first_decided_beyond_the_given_tick() -> None:
    desk = Desk()
    given = desk.state.snapshot()
    desk.follow("t0")
    desk.follow("t1")
    assert desk.state.snapshot() != given
    second = desk.burst.begin()
    assert desk.state.snapshot() == given
    assert desk.burst.texts == desk.journal
    assert desk.follow("t0", attempt=desk.attempt) is None, "the first attempt decides no more"
    assert desk.state.snapshot() == given
    assert done(desk.follow("t0", attempt=second)) == ["t0"]


def test_after_the_answer_no_attempt_decides() -> None:
    desk = Desk()
    desk.follow("t0")
    desk.burst.end()
    before = desk.state.snapshot()
    assert desk.follow("t1") is None
    assert desk.state.snapshot() == before


def test_an_attempt_that_begins_after_the_answer_does_nothing() -> None:
    """It was given up before it came to begin: this process was busy, and another one committed the tick."""
    desk = Desk()
    desk.follow("t0")
    texts = list(desk.burst.texts)
    desk.burst.end()
    desk.burst.adopt(texts)
    before = desk.state.snapshot()
    with pytest.raises(LookupError):
        desk.burst.begin()
    assert desk.state.snapshot() == before


def test_an_answer_that_says_what_was_decided_leaves_nothing_to_do() -> None:
    desk = Desk()
    texts = [desk.burst.texts[0], *(p.delta_text for p in (desk.follow("t0"), desk.follow("t1")) if p is not None)]
    before = desk.state.snapshot()
    kept, beyond = desk.burst.adopt(texts)
    assert ([delta_text(delta) for delta in kept], beyond) == (texts, [])
    assert desk.state.snapshot() == before == desk.replayed(texts).snapshot()


@pytest.mark.parametrize("stored", [0, 1, 2, 3])
def test_what_was_decided_beyond_the_answer_is_taken_back(stored: int) -> None:
    desk = Desk()
    desk.follow("t0")
    desk.follow("t1")
    texts = list(desk.burst.texts)
    kept, beyond = desk.burst.adopt(texts[:stored])
    assert (len(kept), list(beyond)) == (stored, [])
    assert desk.state.snapshot() == desk.replayed(texts[:stored]).snapshot()


def test_where_the_journal_says_otherwise_the_common_beginning_stays_and_the_rest_is_the_journals() -> None:
    desk = Desk(task("a"), task("b"), task("c", (0,)), task("d", (1,)), agents=2)
    desk.follow("a")
    desk.follow("b")
    other = Desk(task("a"), task("b"), task("c", (0,)), task("d", (1,)), agents=2)
    other.follow("b")
    other.follow("a")
    stored = list(other.burst.texts)
    kept, beyond = desk.burst.adopt(stored)
    assert [delta_text(delta) for delta in kept] == stored[:1]
    assert list(beyond) == stored[1:]
    for text in beyond:
        apply_delta(desk.state, Delta.model_validate_json(text))
    assert desk.state.snapshot() == other.state.snapshot()


def test_a_first_tick_that_is_stored_otherwise_takes_all_back() -> None:
    desk = Desk()
    desk.follow("t0")
    foreign = delta_text(Delta(tick=1, at_ms=5, status=ExecutionStatus.EXECUTING))
    kept, beyond = desk.burst.adopt([foreign])
    assert (kept, list(beyond)) == ([], [foreign])
    assert desk.state.snapshot() == RunState(desk.launch).snapshot()


def test_a_failure_is_a_tick_like_others_and_its_retry_waits() -> None:
    desk = Desk(*chain(2, retry={"max_attempts": 3}))
    proposal = desk.follow_with(desk.event("t0", AgentEventType.TASK_FAILED))
    assert proposal is not None
    assert [item.task_id for item in proposal.delta.failed] == ["t0"]
    assert desk.state.tasks[0].phase in (Phase.DELAYED, Phase.READY, Phase.ASSIGNED)


# The very first tick -----------------------------------------------------------------------------------------


def opening() -> tuple[RunState, Burst]:
    launch = launch_input(*chain(3), agents=1)
    state = RunState(launch)
    request = BindRequest(tenant=launch.tenant, execution_id=launch.execution_id, roles=launch.plan.roles)
    return state, Burst(state, POLICY, None, 0, alone=False, bind_request=request)


BOUND = (AgentBinding(agent_id="worker-1", role="worker", host_id=HOST),)


def test_an_execution_is_opened_with_the_agents_that_have_hosts() -> None:
    state, burst = opening()
    assert burst.begin() == 1
    proposal = burst.open(BOUND, NOW_MS)
    assert proposal.delta.bound == BOUND
    assert proposal.delta.status is ExecutionStatus.EXECUTING
    assert [a.task_id for a in proposal.delta.assigned] == ["t0"]
    kept, _ = burst.adopt([proposal.delta_text])
    assert kept == [proposal.delta]
    assert state.tick == 1


def test_without_hosts_the_first_tick_opens_it_all_the_same() -> None:
    state, burst = opening()
    burst.begin()
    proposal = burst.open((), NOW_MS)
    assert proposal.delta.status is ExecutionStatus.EXECUTING
    assert proposal.delta.assigned == ()
    assert burst.follow_up(1, [], NOW_MS) is None, "hosts are looked for by the workflow"
    assert state.unbound_agents()


def test_a_second_attempt_opens_it_anew() -> None:
    state, burst = opening()
    burst.begin()
    burst.open((), NOW_MS)
    assert burst.begin() == 2
    assert state.tick == 0
    proposal = burst.open(BOUND, NOW_MS + 50)
    assert (proposal.tick, len(burst.decisions)) == (1, 1)


def test_an_opening_that_came_to_nothing_leaves_the_state_as_it_was() -> None:
    state, burst = opening()
    before = state.snapshot()
    burst.begin()
    burst.open(BOUND, NOW_MS)
    burst.end()
    assert burst.adopt(()) == ([], ())
    assert state.snapshot() == before


def test_what_is_opened_has_no_given_tick() -> None:
    _, burst = opening()
    with pytest.raises(ValueError, match="opened"):
        _ = burst.proposal


# Whatever comes ------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_was_decided_and_stored_the_state_is_what_the_journal_says(data: st.DataObject) -> None:
    """Attempts that end anywhere; a journal that holds any number of their ticks, and then perhaps others."""
    tasks = [task(f"t{n}", tuple(sorted(data.draw(st.sets(st.integers(0, n - 1), max_size=2)))) if n else ())
             for n in range(data.draw(st.integers(1, 8)))]  # fmt: skip
    desk = Desk(*tasks, agents=data.draw(st.integers(1, 3)))
    for _ in range(data.draw(st.integers(0, 2))):
        for _ in range(data.draw(st.integers(0, 6))):
            flying = sorted(desk.state.in_flight)
            if flying:
                i = data.draw(st.sampled_from(flying))
                kind = data.draw(st.sampled_from([AgentEventType.TASK_COMPLETED, AgentEventType.TASK_STARTED,
                                                  AgentEventType.TASK_RETURNED]))  # fmt: skip
                desk.follow_with(desk.event(desk.state.specs[i].id, kind))
        desk.attempt = desk.burst.begin()
    assert desk.burst.texts == desk.journal, "an attempt begins with the given tick"
    for i in sorted(desk.state.in_flight):
        desk.follow(desk.state.specs[i].id)
    decided = list(desk.burst.texts)
    stored = decided[: data.draw(st.integers(0, len(decided)))]
    if data.draw(st.booleans()) and stored:
        twin = desk.replayed(stored)
        foreign = decide(twin, POLICY, Inbox(), desk.now_ms + 20_000)
        stored.append(delta_text(foreign.delta))
    kept, beyond = desk.burst.adopt(stored)
    assert [delta_text(delta) for delta in kept] + list(beyond) == stored
    for text in beyond:
        apply_delta(desk.state, Delta.model_validate_json(text))
    assert desk.state.snapshot() == desk.replayed(stored).snapshot()
