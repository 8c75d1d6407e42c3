"""The breaker before a service, in one process: what it lets through, and what it does without the shared state."""

import asyncio
from collections.abc import Sequence

import pytest

from engine.breakers import FRESH_SECONDS, WITHOUT_STORE_SECONDS, CircuitBreaker, LocalBreakers
from engine.contracts.circuits import CircuitAsk, CircuitRule, CircuitState, CircuitView
from engine.errors import CircuitOpenError, NotFoundError, UnavailableError

THRESHOLD = 3
TIMEOUT_SECONDS = 30.0
RULE = CircuitRule(failure_threshold=THRESHOLD, timeout_ms=int(TIMEOUT_SECONDS * 1000))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Store(LocalBreakers):
    """Shared by the breakers of a test; counts the looks at it, and can fail to answer."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.looks = 0
        self.away = False

    async def consult(
        self, tenant: str | None, rule: CircuitRule, asks: Sequence[CircuitAsk], who: str
    ) -> Sequence[CircuitView]:
        self.looks += 1
        if self.away:
            raise UnavailableError("the store does not answer")
        return await super().consult(tenant, rule, asks, who)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock)


@pytest.fixture
def breaker(store: Store, clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("kubernetes", store, RULE, clock=clock)


def state_of(breaker: CircuitBreaker) -> CircuitState:
    """Asked anew: a type checker takes an attribute for what it was last compared with."""
    return breaker.state


async def fail(breaker: CircuitBreaker, times: int = THRESHOLD) -> None:
    for _ in range(times):
        await breaker.record_failure(await breaker.admit())


async def test_circuit_breaker_opens_after_threshold(breaker: CircuitBreaker, store: Store) -> None:
    await fail(breaker, THRESHOLD - 1)
    assert state_of(breaker) is CircuitState.CLOSED
    await fail(breaker, 1)
    assert state_of(breaker) is CircuitState.OPEN
    assert breaker.is_open
    looks = store.looks
    with pytest.raises(CircuitOpenError) as rejected:
        await breaker.admit()
    assert rejected.value.data == {"service": "kubernetes", "retry_after_seconds": TIMEOUT_SECONDS}
    assert store.looks == looks


async def test_circuit_breaker_half_open_recovery(breaker: CircuitBreaker, clock: Clock) -> None:
    await fail(breaker)
    clock.now += TIMEOUT_SECONDS
    assert not breaker.is_open
    probe = await breaker.admit()
    assert state_of(breaker) is CircuitState.HALF_OPEN
    with pytest.raises(CircuitOpenError):
        await breaker.admit()
    await breaker.record_success(probe)
    assert state_of(breaker) is CircuitState.CLOSED
    await fail(breaker, THRESHOLD - 1)
    assert state_of(breaker) is CircuitState.CLOSED


async def test_circuit_breaker_opens_again_when_its_probe_fails(breaker: CircuitBreaker, clock: Clock) -> None:
    await fail(breaker)
    clock.now += TIMEOUT_SECONDS
    await breaker.record_failure(await breaker.admit())
    assert state_of(breaker) is CircuitState.OPEN
    clock.now += TIMEOUT_SECONDS - 1
    with pytest.raises(CircuitOpenError):
        await breaker.admit()


async def test_circuit_breaker_forgets_failures_at_a_success(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        await fail(breaker, THRESHOLD - 1)
        await breaker.record_success(await breaker.admit())
    assert state_of(breaker) is CircuitState.CLOSED


async def test_a_probe_that_was_cancelled_leaves_its_place_to_another(breaker: CircuitBreaker, clock: Clock) -> None:
    await fail(breaker)
    clock.now += TIMEOUT_SECONDS
    with pytest.raises(asyncio.CancelledError):
        async with breaker.guard():
            raise asyncio.CancelledError
    assert state_of(breaker) is CircuitState.HALF_OPEN
    await breaker.record_success(await breaker.admit())
    assert state_of(breaker) is CircuitState.CLOSED


async def test_a_probe_of_which_nothing_is_heard_holds_its_place_for_its_lease(store: Store, clock: Clock) -> None:
    breaker = CircuitBreaker("kubernetes", store, RULE, lease_seconds=60, clock=clock)
    await fail(breaker)
    clock.now += TIMEOUT_SECONDS
    await breaker.admit()
    clock.now += 59
    with pytest.raises(CircuitOpenError):
        await breaker.admit()
    clock.now += 10
    await breaker.admit()


async def test_only_errors_that_speak_against_the_service_count(breaker: CircuitBreaker) -> None:
    async def call(error: Exception | None) -> None:
        async with breaker.guard():
            if error is not None:
                raise error

    for _ in range(THRESHOLD - 1):
        with pytest.raises(UnavailableError):
            await call(UnavailableError("no answer"))
    with pytest.raises(NotFoundError):
        await call(NotFoundError("no such pod"))
    for _ in range(THRESHOLD - 1):
        with pytest.raises(TimeoutError):
            await call(TimeoutError())
    assert state_of(breaker) is CircuitState.CLOSED
    with pytest.raises(OSError, match="refused"):
        await call(OSError("refused"))
    assert state_of(breaker) is CircuitState.OPEN
    with pytest.raises(CircuitOpenError):
        await call(None)


async def test_what_one_process_sees_spares_another(breaker: CircuitBreaker, store: Store, clock: Clock) -> None:
    other = CircuitBreaker("kubernetes", store, RULE, clock=clock)
    await other.admit()
    await fail(breaker)
    clock.now += FRESH_SECONDS
    with pytest.raises(CircuitOpenError):
        await other.admit()


async def test_a_closed_breaker_seldom_looks_at_the_store(breaker: CircuitBreaker, store: Store, clock: Clock) -> None:
    for _ in range(100):
        async with breaker.guard():
            pass
    assert store.looks == 1
    clock.now += FRESH_SECONDS
    async with breaker.guard():
        pass
    assert store.looks == 2


async def test_without_the_store_a_process_goes_by_what_it_sees(
    breaker: CircuitBreaker, store: Store, clock: Clock
) -> None:
    store.away = True
    await fail(breaker)
    assert store.looks == 1
    with pytest.raises(CircuitOpenError):
        await breaker.admit()
    store.away = False
    clock.now += max(TIMEOUT_SECONDS, WITHOUT_STORE_SECONDS)
    async with breaker.guard():
        pass
    assert state_of(breaker) is CircuitState.CLOSED
    assert store.looks > 1
