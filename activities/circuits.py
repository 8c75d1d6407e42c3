"""Whether the circuit breakers of agent types are as a tick takes for granted, asked before the tick is committed.

Healthy executions hardly pay for it: what was heard of a breaker that has seen no failure holds for a moment. One that
is not closed is asked each time, since it then notes who waits for it: whoever closes it tells them. A Redis that does
not answer holds nothing up: every breaker then counts as closed.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from engine.breakers import FRESH_SECONDS, STORE_SECONDS, WITHOUT_STORE_SECONDS, BreakerStore
from engine.contracts.circuits import CircuitAsk, CircuitCheck, CircuitRule, CircuitState, CircuitView, agent_service
from engine.contracts.kernel import TickProposal
from engine.errors import UnavailableError
from engine.observability.log import get_logger

log = get_logger(__name__)

REMEMBERED_MAX: Final = 10_000
WAKE_SECONDS: Final = 2.0
"""At most so long is a tick held up by telling others that its execution has closed a breaker."""


class FailureCounts(Protocol):
    async def count_failures(self, tenant: str, by_type: dict[str, int]) -> None: ...


class SharedBreakers(BreakerStore, FailureCounts, Protocol):
    """Breakers, who waits for them, and the figures that go with them."""

    async def wake(self, tenant: str, service: str, at_ms: int) -> int: ...


class _Heard(NamedTuple):
    view: CircuitView
    until: float


class CircuitGate:
    """For one worker process."""

    def __init__(self, breakers: SharedBreakers, clock: Callable[[], float] = time.monotonic) -> None:
        self._breakers = breakers
        self._clock = clock
        self._heard: OrderedDict[tuple[str, str], _Heard] = OrderedDict()
        self._asks_from = float("-inf")

    async def news(self, proposal: TickProposal) -> tuple[CircuitView, ...]:
        """Breakers that are not as the proposal takes for granted: it must not be committed. Safe to repeat."""
        if proposal.circuits is None:
            return ()
        return await self._differing(proposal.tenant, proposal.circuits, proposal.execution_id)

    async def look(
        self, tenant: str, rule: CircuitRule, agent_types: Sequence[str], execution_id: str = ""
    ) -> tuple[CircuitView, ...]:
        """Breakers of these types that are not closed. The execution waits for them."""
        asks = tuple(CircuitAsk(service=agent_service(t)) for t in sorted(set(agent_types)))
        return await self._differing(tenant, CircuitCheck(rule=rule, asks=asks), execution_id)

    async def count(self, proposal: TickProposal) -> None:
        """Figures of a tick that was committed."""
        if not proposal.agent_failures or self._clock() < self._asks_from:
            return
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._breakers.count_failures(proposal.tenant, proposal.agent_failures)
        except (UnavailableError, TimeoutError) as error:
            self._let_be(error)

    async def _differing(self, tenant: str, check: CircuitCheck, who: str) -> tuple[CircuitView, ...]:
        views = {ask.service: self._remembered(tenant, ask) for ask in check.asks}
        asks = [ask for ask in check.asks if views[ask.service] is None]
        closed: list[CircuitView] = []
        if asks and self._clock() >= self._asks_from:
            try:
                async with asyncio.timeout(STORE_SECONDS):
                    for view in await self._breakers.consult(tenant, check.rule, asks, who):
                        self._remember(tenant, view)
                        views[view.service] = view
                        if view.waiting:
                            closed.append(view)
            except (UnavailableError, TimeoutError) as error:
                self._let_be(error)
            if closed:
                await self._wake(tenant, closed)
        pairs = [(ask, views[ask.service]) for ask in check.asks]
        return tuple(v for ask, v in pairs if v is not None and (v.state is not ask.expects or not v.admitted))

    def _remembered(self, tenant: str, ask: CircuitAsk) -> CircuitView | None:
        """What is known well enough; None when the breaker has to be asked, or told."""
        heard = self._heard.get((tenant, ask.service))
        if heard is None or heard.until <= self._clock() or ask.wanted or ask.expects is not CircuitState.CLOSED:
            return None
        told = all(end.verdict != "failed" for end in ask.ended)
        return heard.view if told else None

    def _remember(self, tenant: str, view: CircuitView) -> None:
        key = (tenant, view.service)
        if view.state is not CircuitState.CLOSED or view.failures:
            self._heard.pop(key, None)
            return
        self._heard[key] = _Heard(view, self._clock() + FRESH_SECONDS)
        self._heard.move_to_end(key)
        while len(self._heard) > REMEMBERED_MAX:
            self._heard.popitem(last=False)

    async def _wake(self, tenant: str, closed: Sequence[CircuitView]) -> None:
        """Those that do not hear of it look again when the breaker's time has come."""
        try:
            async with asyncio.timeout(WAKE_SECONDS):
                for view in closed:
                    await self._breakers.wake(tenant, view.service, view.at_ms)
        except (UnavailableError, TimeoutError) as error:
            log.warning("breakers.not_woken", tenant=tenant, error=str(error) or type(error).__name__)

    def _let_be(self, error: Exception) -> None:
        self._asks_from = self._clock() + WITHOUT_STORE_SECONDS
        log.warning("breakers.not_asked", error=str(error) or type(error).__name__)
