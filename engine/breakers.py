"""Circuit breakers before services that the engine calls, such as the Kubernetes API.

The state is shared through a `BreakerStore`, so that what one process found out spares the others the same. Each
process remembers the last answer for a moment: a rejection then costs no look at the store. When the store does not
answer, each process goes by what it sees itself.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol
from uuid import uuid4

from engine.contracts.circuits import CallEnd, CircuitAsk, CircuitRule, CircuitState, CircuitView, Verdict
from engine.errors import CircuitOpenError, UnavailableError

STORE_SECONDS: Final = 0.25
FRESH_SECONDS: Final = 0.25
"""What was heard of a closed breaker holds so long, and no other process's failure is noticed before."""

WITHOUT_STORE_SECONDS: Final = 2.0
"""After the store failed to answer, it is left alone for so long."""


class BreakerStore(Protocol):
    """Where breakers' states are. Raises UnavailableError when it does not answer."""

    async def consult(
        self, tenant: str | None, rule: CircuitRule, asks: Sequence[CircuitAsk], who: str
    ) -> Sequence[CircuitView]:
        """Take in what came of calls and admit those that are wanted, as one step. `tenant` None: the engine's own."""
        ...


class CircuitBreaker:
    """The breaker before one service, for one process.

    Either `async with breaker.guard(): ...`, or `call = await breaker.admit()` and later one of `record_success(call)`,
    `record_failure(call)`, `release(call)`.
    """

    def __init__(
        self,
        service: str,
        store: BreakerStore,
        rule: CircuitRule | None = None,
        *,
        lease_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self._rule = rule or CircuitRule()
        self._shared = store
        self._own = LocalBreakers(clock)
        self._clock = clock
        self._lease_ms = int(lease_seconds * 1000)
        self._who = uuid4().hex
        self._calls = 0
        self._view = CircuitView(service=service)
        self._fresh_until = float("-inf")
        self._store_from = float("-inf")

    @property
    def state(self) -> CircuitState:
        """As far as this process knows."""
        return self._view.state

    @property
    def is_open(self) -> bool:
        """Whether a call would be rejected without asking anybody."""
        return self._view.state is not CircuitState.CLOSED and self._clock() < self._fresh_until

    async def admit(self) -> str:
        """The id of a call that may be made. Raises CircuitOpenError when none may."""
        if self._clock() < self._fresh_until:
            if self._view.state is not CircuitState.CLOSED:
                raise self._rejection()
            return self._next_call()
        call_id = self._next_call()
        view = await self._consult(CircuitAsk(service=self.service, wanted=(call_id,), lease_ms=self._lease_ms))
        if not view.admitted:
            raise self._rejection()
        return call_id

    async def record_success(self, call_id: str) -> None:
        if self._view.state is not CircuitState.CLOSED or self._view.failures or self._clock() >= self._fresh_until:
            await self._record("worked", call_id)

    async def record_failure(self, call_id: str) -> None:
        await self._record("failed", call_id)

    async def release(self, call_id: str) -> None:
        """Nothing is known of how the call ended: it was cancelled, say."""
        if self._view.state is not CircuitState.CLOSED:
            await self._record("released", call_id)

    @asynccontextmanager
    async def guard(
        self, counts: tuple[type[Exception], ...] = (UnavailableError, OSError, TimeoutError)
    ) -> AsyncIterator[None]:
        """`counts` are the errors that speak against the service. Any other says that it answered."""
        call_id = await self.admit()
        try:
            yield
        except counts:
            await self.record_failure(call_id)
            raise
        except Exception:
            await self.record_success(call_id)
            raise
        except BaseException:
            await self.release(call_id)
            raise
        await self.record_success(call_id)

    async def _record(self, verdict: Verdict, call_id: str) -> None:
        end = CallEnd(verdict=verdict, call_id=call_id, counted_as=call_id)
        await self._consult(CircuitAsk(service=self.service, ended=(end,)))

    async def _consult(self, ask: CircuitAsk) -> CircuitView:
        views: Sequence[CircuitView] | None = None
        if self._clock() >= self._store_from:
            try:
                async with asyncio.timeout(STORE_SECONDS):
                    views = await self._shared.consult(None, self._rule, (ask,), self._who)
            except (UnavailableError, TimeoutError):
                self._store_from = self._clock() + WITHOUT_STORE_SECONDS
        if views is None:
            views = await self._own.consult(None, self._rule, (ask,), self._who)
        (view,) = views
        self._learn(view)
        return view

    def _learn(self, view: CircuitView) -> None:
        """Of a breaker that is not closed, the answer holds until a probe may start."""
        self._view = view
        closed = view.state is CircuitState.CLOSED
        self._fresh_until = self._clock() + (FRESH_SECONDS if closed else view.retry_in_ms / 1000)

    def _next_call(self) -> str:
        self._calls += 1
        return f"{self._who}/{self._calls}"

    def _rejection(self) -> CircuitOpenError:
        seconds = max(self._fresh_until - self._clock(), 0.0)
        return CircuitOpenError(
            f"the circuit breaker of {self.service} is {self._view.state.value.replace('_', ' ')}",
            service=self.service,
            retry_after_seconds=round(seconds, 3),
        )


class _Breaker:
    def __init__(self) -> None:
        self.state = CircuitState.CLOSED
        self.failures = self.total = self.threshold = 0
        self.due = 0.0
        self.opened_by = ""
        self.counted: dict[str, None] = {}
        self.probes: dict[str, float] = {}


COUNTED_MAX: Final = 64


class LocalBreakers:
    """Breakers in this process's memory, by the same rules as the shared ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._breakers: dict[tuple[str | None, str], _Breaker] = {}

    async def consult(
        self, tenant: str | None, rule: CircuitRule, asks: Sequence[CircuitAsk], who: str
    ) -> Sequence[CircuitView]:
        return [self._step(self._breakers.setdefault((tenant, ask.service), _Breaker()), rule, ask, who)
                for ask in asks]  # fmt: skip

    def _step(self, breaker: _Breaker, rule: CircuitRule, ask: CircuitAsk, who: str) -> CircuitView:
        before = breaker.total
        for end in ask.ended:
            if end.verdict == "failed":
                self._fail(breaker, rule, end, who)
            elif end.verdict == "worked":
                _work(breaker, end.call_id)
            else:
                breaker.probes.pop(end.call_id, None)
        admitted = self._admit(breaker, rule, ask)
        free, retry_in_ms = 0, 0
        if breaker.state is not CircuitState.CLOSED:
            free = self._places(breaker, rule)
            if breaker.state is CircuitState.OPEN:
                retry_in_ms = max(int((breaker.due - self._clock()) * 1000), 0)
            elif not free:
                retry_in_ms = min(max(rule.timeout_ms // 4, 250), 10_000)
        return CircuitView(
            service=ask.service, state=breaker.state, failures=breaker.failures, threshold=breaker.threshold,
            retry_in_ms=retry_in_ms, free=free, opened_by=breaker.opened_by, admitted=admitted,
            counted=breaker.total - before, total=breaker.total,
        )  # fmt: skip

    def _fail(self, breaker: _Breaker, rule: CircuitRule, end: CallEnd, who: str) -> None:
        counted_as = end.counted_as or end.call_id
        probe = breaker.state is CircuitState.HALF_OPEN and end.call_id in breaker.probes
        if not probe and (breaker.state is not CircuitState.CLOSED or counted_as in breaker.counted):
            return
        breaker.failures += 1
        breaker.total += 1
        if not probe:
            if len(breaker.counted) >= COUNTED_MAX:
                breaker.counted.clear()
            breaker.counted[counted_as] = None
        if probe or breaker.failures >= rule.failure_threshold:
            breaker.state, breaker.due = CircuitState.OPEN, self._clock() + rule.timeout_ms / 1000
            breaker.threshold, breaker.opened_by = rule.failure_threshold, who
            breaker.probes.clear()

    def _places(self, breaker: _Breaker, rule: CircuitRule) -> int:
        now = self._clock()
        if breaker.state is CircuitState.OPEN:
            return rule.half_open_probes if breaker.due <= now else 0
        breaker.probes = {call_id: until for call_id, until in breaker.probes.items() if until > now}
        return max(rule.half_open_probes - len(breaker.probes), 0)

    def _admit(self, breaker: _Breaker, rule: CircuitRule, ask: CircuitAsk) -> bool:
        if breaker.state is CircuitState.CLOSED or not ask.wanted:
            return True
        free = self._places(breaker, rule)
        new = sum(call_id not in breaker.probes for call_id in ask.wanted)
        if new > free:
            return False
        breaker.state = CircuitState.HALF_OPEN
        breaker.probes.update(dict.fromkeys(ask.wanted, self._clock() + ask.lease_ms / 1000))
        return True


def _work(breaker: _Breaker, call_id: str) -> None:
    if breaker.state is CircuitState.HALF_OPEN and call_id in breaker.probes:
        breaker.state, breaker.failures = CircuitState.CLOSED, 0
        breaker.probes.clear()
    elif breaker.state is CircuitState.CLOSED:
        breaker.failures = 0
