"""The gate before a tick: when it asks the shared breakers, what it remembers, and what it does without them."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from activities.circuits import REMEMBERED_MAX, CircuitGate
from engine.breakers import FRESH_SECONDS, WITHOUT_STORE_SECONDS, LocalBreakers
from engine.contracts.circuits import CallEnd, CircuitAsk, CircuitCheck, CircuitRule, CircuitState, CircuitView
from engine.contracts.kernel import Delta, TickProposal
from engine.errors import UnavailableError

SERVICE = "agent:synthetic"
RULE = CircuitRule(failure_threshold=2, timeout_ms=30_000)


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


class Breakers(LocalBreakers):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.asked = 0
        self.away = False
        self.counted: list[dict[str, int]] = []
        self.waiting: set[str] = set()
        self.woken: list[set[str]] = []
        self.wakes = True

    async def consult(
        self, tenant: str | None, rule: CircuitRule, asks: Sequence[CircuitAsk], who: str
    ) -> Sequence[CircuitView]:
        self.asked += 1
        if self.away:
            raise UnavailableError("no answer")
        (view, *others) = await super().consult(tenant, rule, asks, who)
        if view.state is not CircuitState.CLOSED:
            self.waiting.add(who)
        elif self.waiting:
            view = view.model_copy(update={"waiting": len(self.waiting - {who}), "at_ms": 7})
        return [view, *others]

    async def wake(self, tenant: str, service: str, at_ms: int) -> int:
        assert (tenant, service, at_ms) == ("t", SERVICE, 7)
        if not self.wakes:
            raise UnavailableError("no answer")
        self.woken.append(set(self.waiting))
        self.waiting.clear()
        return len(self.woken[-1])

    async def count_failures(self, tenant: str, by_type: dict[str, int]) -> None:
        assert tenant == "t"
        if self.away:
            raise UnavailableError("no answer")
        self.counted.append(by_type)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    return Breakers(clock)


@pytest.fixture
def gate(breakers: Breakers, clock: Clock) -> CircuitGate:
    return CircuitGate(breakers, clock)


def proposal(expects: CircuitState = CircuitState.CLOSED, *ended: CallEnd, **fields: Any) -> TickProposal:
    ask = CircuitAsk(service=SERVICE, expects=expects, ended=ended, wanted=fields.pop("wanted", ()))
    values: dict[str, Any] = {
        "tenant": "t", "execution_id": str(uuid4()), "workflow_id": "w", "trace_id": "tr", "tick": 1, "base_tick": 0,
        "epoch": 1, "partition": 0, "delta": Delta(tick=1, at_ms=1), "circuits": CircuitCheck(rule=RULE, asks=(ask,)),
    }  # fmt: skip
    return TickProposal.model_validate(values | fields)


def failed(call_id: str) -> CallEnd:
    return CallEnd(verdict="failed", call_id=call_id)


def worked(call_id: str) -> CallEnd:
    return CallEnd(verdict="worked", call_id=call_id)


async def test_a_healthy_type_is_asked_about_now_and_then(gate: CircuitGate, breakers: Breakers, clock: Clock) -> None:
    for n in range(50):
        assert await gate.news(proposal(CircuitState.CLOSED, worked(f"{n}"))) == ()
    assert breakers.asked == 1
    clock.now += FRESH_SECONDS
    assert await gate.news(proposal()) == ()
    assert breakers.asked == 2


async def test_an_execution_without_breakers_asks_nothing(gate: CircuitGate, breakers: Breakers) -> None:
    assert await gate.news(proposal(circuits=None)) == ()
    assert breakers.asked == 0


async def test_every_failure_is_told_and_the_deciding_one_is_news(gate: CircuitGate) -> None:
    assert await gate.news(proposal(CircuitState.CLOSED, failed("a"))) == ()
    (view,) = await gate.news(proposal(CircuitState.CLOSED, failed("b")))
    assert (view.state, view.failures, view.retry_in_ms) == (CircuitState.OPEN, 2, 30_000)


async def test_after_a_failure_successes_are_told(gate: CircuitGate, breakers: Breakers) -> None:
    await gate.news(proposal(CircuitState.CLOSED, failed("a")))
    await gate.news(proposal(CircuitState.CLOSED, worked("b")))
    assert await gate.news(proposal(CircuitState.CLOSED, failed("c"))) == ()
    assert breakers.asked == 3


async def test_whoever_comes_to_an_open_breaker_is_noted(gate: CircuitGate, breakers: Breakers) -> None:
    await gate.news(proposal(CircuitState.CLOSED, failed("a"), failed("b"), execution_id="x1"))
    for n in range(2, 5):
        (view,) = await gate.news(proposal(execution_id=f"x{n}"))
        assert view.state is CircuitState.OPEN
    await gate.look("t", RULE, ["synthetic"], "x5")
    assert breakers.waiting == {"x1", "x2", "x3", "x4", "x5"}


async def half_open(gate: CircuitGate, clock: Clock) -> None:
    await gate.news(proposal(CircuitState.CLOSED, failed("a"), failed("b"), execution_id="x1"))
    await gate.news(proposal(execution_id="x2"))
    clock.now += 30
    assert await gate.news(proposal(CircuitState.HALF_OPEN, wanted=("p",), execution_id="x1")) == ()


async def test_who_closes_a_breaker_wakes_the_others_once(gate: CircuitGate, breakers: Breakers, clock: Clock) -> None:
    await half_open(gate, clock)
    (view,) = await gate.news(proposal(CircuitState.HALF_OPEN, worked("p"), execution_id="x1"))
    assert view.state is CircuitState.CLOSED
    assert await gate.news(proposal(execution_id="x1")) == ()
    assert breakers.woken == [{"x1", "x2"}]


async def test_a_tick_goes_on_when_the_others_cannot_be_woken(
    gate: CircuitGate, breakers: Breakers, clock: Clock
) -> None:
    await half_open(gate, clock)
    breakers.wakes = False
    (view,) = await gate.news(proposal(CircuitState.HALF_OPEN, worked("p"), execution_id="x1"))
    assert view.state is CircuitState.CLOSED


async def test_a_probe_is_always_asked_for(gate: CircuitGate, clock: Clock) -> None:
    await gate.news(proposal(CircuitState.CLOSED, failed("a"), failed("b")))
    clock.now += 30
    assert await gate.news(proposal(CircuitState.HALF_OPEN, wanted=("p",))) == ()
    (view,) = await gate.news(proposal(CircuitState.HALF_OPEN, wanted=("q",)))
    assert not view.admitted
    (closed,) = await gate.news(proposal(CircuitState.HALF_OPEN, worked("p")))
    assert closed.state is CircuitState.CLOSED


async def test_what_an_execution_begins_with(gate: CircuitGate) -> None:
    assert await gate.look("t", RULE, ["synthetic", "other", "synthetic"]) == ()
    await gate.news(proposal(CircuitState.CLOSED, failed("a"), failed("b")))
    assert [view.service for view in await gate.look("t", RULE, ["synthetic", "other"])] == [SERVICE]


async def test_without_the_shared_state_nothing_is_held_up(gate: CircuitGate, breakers: Breakers, clock: Clock) -> None:
    breakers.away = True
    for n in range(5):
        assert await gate.news(proposal(CircuitState.CLOSED, failed(f"{n}"))) == ()
    await gate.count(proposal(agent_failures={"synthetic": 1}))
    assert breakers.asked == 1
    breakers.away = False
    clock.now += WITHOUT_STORE_SECONDS
    assert await gate.news(proposal(CircuitState.CLOSED, failed("a"), failed("b"))) != ()
    await gate.count(proposal(agent_failures={"synthetic": 1}))
    assert breakers.counted == [{"synthetic": 1}]


async def test_an_outage_while_counting_is_sat_out(gate: CircuitGate, breakers: Breakers) -> None:
    breakers.away = True
    await gate.count(proposal(agent_failures={"synthetic": 1}))
    assert breakers.counted == []


async def test_what_is_remembered_has_a_limit(gate: CircuitGate, breakers: Breakers) -> None:
    for n in range(REMEMBERED_MAX + 1):
        await gate.news(proposal(tenant=f"t{n}"))
    await gate.news(proposal(tenant="t0"))
    await gate.news(proposal(tenant=f"t{REMEMBERED_MAX}"))
    assert breakers.asked == REMEMBERED_MAX + 2
