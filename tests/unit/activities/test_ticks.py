"""The activities of a tick: what they answer, what they tell whom, and which errors are tried again."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from temporalio.exceptions import ApplicationError

from activities import ticks
from activities.circuits import CircuitGate
from activities.ticks import TickActivities
from engine.breakers import LocalBreakers
from engine.contracts.circuits import CallEnd, CircuitAsk, CircuitCheck, CircuitRule, CircuitState, CircuitView
from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch
from engine.contracts.execution import ExecutionStatus
from engine.contracts.handover import HandedTick
from engine.contracts.kernel import (
    AgentBinding,
    BindRequest,
    BindResult,
    CheckpointRequest,
    Control,
    Delta,
    KernelRole,
    TickOutcome,
    TickProposal,
    delta_text,
)
from engine.contracts.views import CheckpointView
from engine.errors import CheckpointNotFoundError, EngineError, UnavailableError
from engine.events.dispatch import Dispatcher
from engine.events.lingering import Lingering
from engine.ports import Committed, ExecutionStore, Journal
from tests.fakes.streams import until

EXECUTION, CHECKPOINT = uuid4(), uuid4()


class Breakers(LocalBreakers):
    """In memory; counts failures as well."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: dict[str, int] = {}

    async def count_failures(self, tenant: str, by_type: dict[str, int]) -> None:
        self.counted.update(by_type)

    async def wake(self, tenant: str, service: str, at_ms: int) -> int:
        raise AssertionError("no breaker here was closed while others waited for it")


class Surroundings:
    """Journal, dispatcher, bridge, binder and execution store in one; `log` is the order of what happened."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.committed = answer(delta(1))
        self.answers: dict[int, Committed] = {}
        """For ticks that are not answered with `committed`."""
        self.failure: Exception | None = None
        self.failing: dict[int, Exception] = {}
        """Ticks whose commit fails."""
        self.write_failure: Exception | None = None
        self.arriving: dict[int, list[InboxBatch]] = {}
        """What comes while the stream writes of a tick are under way."""
        self.lingering = Lingering()
        self.breakers = Breakers()
        self.activities = TickActivities(
            cast(Journal, self), cast(ExecutionStore, self), cast(Dispatcher, self), self.lingering, self.heard, self,
            circuits=CircuitGate(self.breakers),
        )  # fmt: skip

    async def commit(self, proposal: TickProposal) -> Committed:
        self._fail()
        if proposal.tick in self.failing:
            raise self.failing[proposal.tick]
        self.log.append(("commit", proposal.tick))
        return self.answers.get(proposal.tick, self.committed)

    async def write(self, proposal: TickProposal, committed: Committed) -> None:
        if self.write_failure is not None:
            raise self.write_failure
        self.log.append(("write", len(committed.ticks), committed.own))
        for item in self.arriving.get(proposal.tick, ()):
            assert self.lingering.hand_over("t", str(EXECUTION), item), "results may come as soon as it is written"

    def heard(self, tenant: str, execution_id: str, entry_ids: Sequence[str]) -> None:
        self.log.append(("acknowledged", tenant, execution_id, list(entry_ids)))

    async def bind(self, request: BindRequest) -> BindResult:
        self._fail()
        self.log.append(("bind", request.execution_id))
        return BindResult(bindings=(BINDING,))

    async def pending_control(self, tenant: str, execution_id: UUID) -> Control | None:
        self._fail()
        return Control(request_id=f"{tenant}/{execution_id}", action="pause")

    async def checkpoint(self, tenant: str, execution_id: UUID, checkpoint_id: UUID) -> CheckpointView:
        self._fail()
        return CheckpointView(
            checkpoint_id=checkpoint_id, execution_id=execution_id, reason="pause", epoch=1, completed_tasks=("a",),
            in_flight=(), recovery_instructions={}, created_at=datetime.now(UTC),
        )  # fmt: skip

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class Kernel:
    """What a workflow hands over; decides as many ticks as it was given, and remembers what it was asked."""

    def __init__(self, first: TickProposal, *following: TickProposal | None, bind: bool = False) -> None:
        self.bind_request = BindRequest(tenant="t", execution_id=str(EXECUTION), roles={}) if bind else None
        self.proposal = first
        self.following = list(following)
        self.asked: list[tuple[int, list[str], int]] = []
        self.opened: list[Sequence[AgentBinding]] = []
        self.circuit_rule: CircuitRule | None = None
        self.circuits: Sequence[CircuitView] = ()
        self.attempts = 0
        self.before: Callable[[], None] = lambda: None

    def begin(self) -> int:
        self.attempts += 1
        return self.attempts

    def open(self, bindings: Sequence[AgentBinding], now_ms: int, circuits: Sequence[CircuitView] = ()) -> TickProposal:
        assert now_ms > 0
        self.opened.append(bindings)
        self.circuits = circuits
        return self.proposal

    def follow_up(self, attempt: int, batches: Sequence[InboxBatch], now_ms: int) -> TickProposal | None:
        self.before()
        self.asked.append((attempt, [batch.entry_id for batch in batches], now_ms))
        return self.following.pop(0) if self.following else None


def answer(*deltas: Delta, own: bool = True, **fields: Any) -> Committed:
    values: dict[str, Any] = {"more": False, "control": None, "last_sequence": 9, "now_ms": 77, **fields}
    return Committed(ticks=deltas, own=own, stored_texts=tuple(delta_text(item) for item in deltas), **values)


def delta(tick: int, *consumed: str) -> Delta:
    return Delta(tick=tick, at_ms=1, consumed=consumed)


def batch(entry_id: str) -> InboxBatch:
    event = AgentEvent(type=AgentEventType.TASK_COMPLETED, at_ms=1, task_id="a")
    return InboxBatch(entry_id=entry_id, partition=0, fence=1, low="0-0", events=(event,))


def proposal(tick: int = 1, *consumed: str, **fields: Any) -> TickProposal:
    values: dict[str, Any] = {
        "tenant": "t", "execution_id": str(EXECUTION), "workflow_id": "w", "trace_id": "tr", "tick": tick,
        "base_tick": 0, "epoch": 1, "partition": 0, "delta": delta(tick, *consumed), "acknowledge": consumed, **fields,
    }  # fmt: skip
    return TickProposal.model_validate(values)


async def commit(around: Surroundings, first: TickProposal, *following: TickProposal | None) -> TickOutcome:
    return await around.activities.commit_tick(HandedTick(Kernel(first, *following)))


def texts(*deltas: Delta) -> tuple[str, ...]:
    return tuple(delta_text(item) for item in deltas)


BINDING = AgentBinding(agent_id="a-1", role="worker", host_id="h")
REQUEST = CheckpointRequest(tenant="t", execution_id=str(EXECUTION), checkpoint_id=str(CHECKPOINT))


async def test_a_tick_is_stored_then_written_then_told() -> None:
    around = Surroundings()
    outcome = await commit(around, proposal(acknowledge=("1-0", "0-5")))
    assert around.log == [
        ("commit", 1),
        ("write", 1, True),
        ("acknowledged", "t", str(EXECUTION), ["1-0", "0-5"]),
    ]
    assert (outcome.ticks, outcome.now_ms, outcome.more, outcome.events) == (texts(delta(1)), 77, False, ())


async def test_stored_ticks_are_answered_and_only_what_they_consumed_is_acknowledged() -> None:
    around = Surroundings()
    around.committed = answer(delta(1, "1-0"), delta(2, "2-0"), own=False, more=True)
    outcome = await commit(around, proposal(acknowledge=("9-0",), linger_ms=60_000))
    assert around.log[1:] == [("write", 2, False), ("acknowledged", "t", str(EXECUTION), ["1-0", "2-0"])]
    assert outcome.ticks == texts(delta(1, "1-0"), delta(2, "2-0"))
    assert outcome.more


async def test_it_waits_for_what_comes_back_and_brings_it_along() -> None:
    around = Surroundings()
    waiting = asyncio.create_task(commit(around, proposal(linger_ms=60_000)))
    async with asyncio.timeout(5):
        await until(lambda: around.lingering.hand_over("t", str(EXECUTION), batch("5-0")))
        assert (await waiting).events == (batch("5-0"),)


async def test_what_comes_while_it_is_written_is_not_lost_to_a_tick_that_does_not_wait() -> None:
    around = Surroundings()
    around.arriving[1] = [batch("5-0")]
    outcome = await commit(around, proposal())
    assert outcome.events == (batch("5-0"),)


async def test_a_tick_that_brings_nothing_along_leaves_no_seat_behind() -> None:
    around = Surroundings()
    await commit(around, proposal())
    assert not around.lingering.hand_over("t", str(EXECUTION), batch("6-0"))


async def test_what_was_asked_from_outside_is_not_kept_waiting() -> None:
    around = Surroundings()
    control = Control(request_id="r", action="pause")
    around.committed = answer(delta(1), control=control)
    async with asyncio.timeout(5):
        outcome = await commit(around, proposal(linger_ms=60_000))
    assert outcome.control == control


async def test_an_execution_closed_from_outside_ends_its_run_for_good() -> None:
    around = Surroundings()
    around.committed = answer(status=ExecutionStatus.CANCELLED)
    with pytest.raises(ApplicationError) as caught:
        await commit(around, proposal())
    assert (caught.value.type, caught.value.non_retryable) == ("EXECUTION_CLOSED", True)
    assert around.log == [("commit", 1)]


ARGUMENTS: dict[str, Callable[[], Any]] = {
    "begin_execution": lambda: HandedTick(Kernel(proposal(), bind=True)),
    "commit_tick": lambda: HandedTick(Kernel(proposal())),
    "commit_tick_patiently": proposal,
    "read_control": lambda: REQUEST,
    "load_checkpoint": lambda: REQUEST,
}


@pytest.mark.parametrize(
    ("failure", "permanent"), [(UnavailableError("away"), False), (CheckpointNotFoundError("none"), True)]
)
@pytest.mark.parametrize("name", ARGUMENTS)
async def test_transient_errors_are_tried_again_and_permanent_ones_not(
    name: str, failure: EngineError, permanent: bool
) -> None:
    around = Surroundings()
    around.failure = failure
    with pytest.raises(ApplicationError) as caught:
        await getattr(around.activities, name)(ARGUMENTS[name]())
    assert (caught.value.type, caught.value.non_retryable) == (failure.code, permanent)


async def test_a_tick_whose_stream_writes_fail_is_tried_again_and_gives_its_seat_up() -> None:
    around = Surroundings()
    around.write_failure = UnavailableError("Redis does not answer")
    with pytest.raises(ApplicationError) as caught:
        await commit(around, proposal(linger_ms=60_000))
    assert not caught.value.non_retryable
    assert around.log == [("commit", 1)]
    assert not around.lingering.hand_over("t", str(EXECUTION), batch("6-0"))


async def test_a_tick_that_another_process_commits_is_one_tick_and_brings_along_what_has_come() -> None:
    around = Surroundings()
    around.arriving[1] = [batch("5-0")]
    outcome = await around.activities.commit_tick_patiently(proposal(linger_ms=60_000))
    assert (outcome.ticks, outcome.events) == (texts(delta(1)), (batch("5-0"),))
    assert [entry for entry in around.log if entry[0] == "commit"] == [("commit", 1)]


async def test_the_first_tick_is_decided_with_the_agents_that_have_hosts() -> None:
    around = Surroundings()
    kernel = Kernel(proposal(), bind=True)
    outcome = await around.activities.begin_execution(HandedTick(kernel))
    assert around.log[:2] == [("bind", str(EXECUTION)), ("commit", 1)]
    assert kernel.opened == [(BINDING,)]
    assert outcome.ticks == texts(delta(1))


async def test_an_execution_cannot_begin_with_a_tick_that_asks_for_no_agents() -> None:
    with pytest.raises(ApplicationError) as caught:
        await Surroundings().activities.begin_execution(HandedTick(Kernel(proposal())))
    assert caught.value.non_retryable


# Ticks that follow from results that come at once ------------------------------------------------------------


def burst(*, begins: bool = False) -> tuple[Surroundings, Kernel]:
    """Three ticks; the second and the third follow from what comes while the one before is written."""
    around = Surroundings()
    second, third = proposal(2, "1-0"), proposal(3, "2-0")
    around.arriving = {1: [batch("1-0")], 2: [batch("2-0")]}
    around.answers = {2: answer(second.delta, now_ms=78), 3: answer(third.delta, now_ms=79)}
    return around, Kernel(proposal(), second, third, bind=begins)


@pytest.mark.parametrize("begins", [True, False])
async def test_results_that_come_at_once_make_further_ticks_in_one_activity(begins: bool) -> None:
    around, kernel = burst(begins=begins)
    activity = around.activities.begin_execution if begins else around.activities.commit_tick
    outcome = await activity(HandedTick(kernel))
    assert outcome.ticks == texts(delta(1), delta(2, "1-0"), delta(3, "2-0"))
    assert (outcome.events, outcome.now_ms, outcome.more) == ((), 79, False)
    assert kernel.asked == [(1, ["1-0"], 77), (1, ["2-0"], 78)], "each is decided at the time of the commit before"
    assert [entry[3] for entry in around.log if entry[0] == "acknowledged"] == [["1-0"], ["2-0"]]


async def test_nothing_is_decided_when_nothing_came() -> None:
    around, kernel = burst()
    around.arriving = {}
    assert (await around.activities.commit_tick(HandedTick(kernel))).ticks == texts(delta(1))
    assert kernel.asked == []


async def test_what_the_workflow_has_to_decide_is_brought_to_it() -> None:
    around, kernel = burst()
    kernel.following = [proposal(2, "1-0"), None]
    outcome = await around.activities.commit_tick(HandedTick(kernel))
    assert (outcome.ticks, outcome.events) == (texts(delta(1), delta(2, "1-0")), (batch("2-0"),))


async def test_what_was_asked_from_outside_ends_a_burst() -> None:
    around, kernel = burst()
    control = Control(request_id="r", action="pause")
    around.answers[2] = around.answers[2].model_copy(update={"control": control})
    outcome = await around.activities.commit_tick(HandedTick(kernel))
    assert (len(outcome.ticks), outcome.control, outcome.events) == (2, control, (batch("2-0"),))


async def test_a_burst_ends_in_time_for_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    around, kernel = burst()
    clock = 100.0
    monkeypatch.setattr("activities.ticks.time.monotonic", lambda: clock)

    def much_later() -> None:
        nonlocal clock
        clock += ticks.BURST_SECONDS_MAX + 0.001

    kernel.before = much_later
    outcome = await around.activities.commit_tick(HandedTick(kernel))
    assert (len(outcome.ticks), outcome.events) == (2, (batch("2-0"),))


async def test_a_burst_ends_with_the_execution() -> None:
    around, kernel = burst()
    around.answers[2] = around.answers[2].model_copy(update={"status": ExecutionStatus.COMPLETED})
    outcome = await around.activities.commit_tick(HandedTick(kernel))
    assert (len(outcome.ticks), outcome.events) == (2, (batch("2-0"),))


@pytest.mark.parametrize("more", [True, False])
async def test_where_other_ticks_are_stored_than_were_decided_the_workflow_takes_over(more: bool) -> None:
    around, kernel = burst()
    foreign = delta(2, "8-0")
    around.answers[2] = answer(foreign, own=False, more=more)
    outcome = await around.activities.commit_tick(HandedTick(kernel))
    assert (outcome.ticks, outcome.more) == (texts(delta(1), foreign), more)
    assert [item.entry_id for item in outcome.events] == ["1-0", "2-0"], "what the stored tick did not take in is left"
    assert len(kernel.asked) == 1


@pytest.mark.parametrize(
    "failure", [UnavailableError("away"), CheckpointNotFoundError("none"), ApplicationError("closed")]
)
async def test_an_error_in_a_later_tick_leaves_what_is_committed_and_the_workflow_asks_again(
    failure: Exception,
) -> None:
    around, kernel = burst()
    around.failing[3] = failure
    outcome = await around.activities.commit_tick(HandedTick(kernel))
    assert (outcome.ticks, outcome.more) == (texts(delta(1), delta(2, "1-0")), True)
    assert outcome.events == (), "what that tick took in is repeated, or was consumed after all"
    del around.failing[3]
    around.answers[3] = answer(delta(3))
    again = await around.activities.commit_tick(HandedTick(Kernel(proposal(3))))
    assert again.events == (batch("2-0"),)


async def test_a_later_tick_whose_stream_writes_fail_is_answered_by_the_next_proposal() -> None:
    around, kernel = burst()

    def redis_goes_away() -> None:
        around.write_failure = UnavailableError("Redis does not answer")

    kernel.before = redis_goes_away
    outcome = await around.activities.commit_tick(HandedTick(kernel))
    assert (outcome.ticks, outcome.more) == (texts(delta(1)), True)
    around.write_failure, around.arriving = None, {}
    around.answers[2] = answer(delta(2, "1-0"), own=False)
    again = await around.activities.commit_tick(HandedTick(Kernel(proposal(2))))
    assert (again.ticks, again.events) == (texts(delta(2, "1-0")), ())
    assert around.log[-2:] == [("write", 1, False), ("acknowledged", "t", str(EXECUTION), ["1-0"])]


async def test_a_second_attempt_has_a_number_of_its_own() -> None:
    around, kernel = burst()
    handed = HandedTick(kernel)
    around.failing[1] = UnavailableError("away")
    with pytest.raises(ApplicationError):
        await around.activities.commit_tick(handed)
    del around.failing[1]
    await around.activities.commit_tick(handed)
    assert [attempt for attempt, _, _ in kernel.asked] == [2, 2]


async def test_control_and_checkpoints_are_read() -> None:
    around = Surroundings()
    control = await around.activities.read_control(REQUEST)
    assert control is not None
    assert control.request_id == f"t/{EXECUTION}"
    found = await around.activities.load_checkpoint(REQUEST)
    assert (found.checkpoint_id, found.completed) == (str(CHECKPOINT), ("a",))


# Circuit breakers --------------------------------------------------------------------------------------------

RULE = CircuitRule(failure_threshold=1)
SERVICE = "agent:synthetic"


def circuits(expects: CircuitState = CircuitState.CLOSED, *failed: str) -> CircuitCheck:
    ended = tuple(CallEnd(verdict="failed", call_id=call) for call in failed)
    return CircuitCheck(rule=RULE, asks=(CircuitAsk(service=SERVICE, expects=expects, ended=ended),))


async def test_a_tick_is_not_stored_where_a_breaker_is_not_as_it_takes_for_granted() -> None:
    around = Surroundings()
    outcome = await commit(around, proposal(circuits=circuits(CircuitState.CLOSED, "a")))
    assert around.log == []
    assert outcome.ticks == ()
    assert [(view.service, view.state) for view in outcome.circuits] == [(SERVICE, CircuitState.OPEN)]
    # Decided again with that, and with the same failure to report, it is.
    outcome = await commit(around, proposal(circuits=circuits(CircuitState.OPEN, "a")))
    assert (outcome.ticks, outcome.circuits) == (texts(delta(1)), ())


async def test_a_tick_that_another_process_commits_asks_the_breakers_too() -> None:
    around = Surroundings()
    outcome = await around.activities.commit_tick_patiently(proposal(circuits=circuits(CircuitState.HALF_OPEN)))
    assert (around.log, outcome.ticks) == ([], ())
    assert outcome.circuits[0].state is CircuitState.CLOSED


async def test_a_later_tick_that_a_breaker_refuses_goes_to_the_workflow_with_what_it_was_to_take_in() -> None:
    around, kernel = burst()
    kernel.following = [proposal(2, "5-0", circuits=circuits(CircuitState.CLOSED, "a"))]
    outcome = await around.activities.commit_tick(HandedTick(kernel))
    assert outcome.ticks == texts(delta(1))
    assert len(outcome.events) == 1
    assert outcome.circuits[0].state is CircuitState.OPEN


async def test_an_execution_begins_with_what_the_breakers_are() -> None:
    around = Surroundings()
    await commit(around, proposal(circuits=circuits(CircuitState.CLOSED, "a")))
    kernel = Kernel(proposal(), bind=True)
    kernel.circuit_rule = RULE
    assert kernel.bind_request is not None
    role = KernelRole(type="synthetic", count=1)
    kernel.bind_request = kernel.bind_request.model_copy(update={"roles": {"worker": role}})
    await around.activities.begin_execution(HandedTick(kernel))
    assert [view.state for view in kernel.circuits] == [CircuitState.OPEN]


async def test_failures_are_counted_once_they_are_committed() -> None:
    around = Surroundings()
    await commit(around, proposal(agent_failures={"synthetic": 2}))
    assert around.breakers.counted == {"synthetic": 2}
    around.committed = answer(delta(1), own=False)
    await commit(around, proposal(agent_failures={"synthetic": 9}))
    assert around.breakers.counted == {"synthetic": 2}
