"""Whether the circuit breakers of agent types are as a tick takes for granted, asked before the tick is committed.

Healthy executions hardly pay for it: what was heard of a breaker that has seen no failure holds for a moment, and so
does what was heard of an open one. A Redis that does not answer holds nothing up: every breaker then counts as closed.
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
OPEN_SECONDS_MAX: Final = 1.0
"""An open breaker is looked at again after so long: an operator may have closed it."""


class FailureCounts(Protocol):
    async def count_failures(self, tenant: str, by_type: dict[str, int]) -> None: ...


class SharedBreakers(BreakerStore, FailureCounts, Protocol):
    """Breakers, and the figures that go with them."""


class _Heard(NamedTuple):
    view: CircuitView
    until: float
    due: float


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

    async def look(self, tenant: str, rule: CircuitRule, agent_types: Sequence[str]) -> tuple[CircuitView, ...]:
        """Breakers of these types that are not closed."""
        asks = tuple(CircuitAsk(service=agent_service(t)) for t in sorted(set(agent_types)))
        return await self._differing(tenant, CircuitCheck(rule=rule, asks=asks), "")

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
        if asks and self._clock() >= self._asks_from:
            try:
                async with asyncio.timeout(STORE_SECONDS):
                    for view in await self._breakers.consult(tenant, check.rule, asks, who):
                        self._remember(tenant, view)
                        views[view.service] = view
            except (UnavailableError, TimeoutError) as error:
                self._let_be(error)
        pairs = [(ask, views[ask.service]) for ask in check.asks]
        return tuple(v for ask, v in pairs if v is not None and (v.state is not ask.expects or not v.admitted))

    def _remembered(self, tenant: str, ask: CircuitAsk) -> CircuitView | None:
        """What is known well enough; None when the breaker has to be asked, or told."""
        heard = self._heard.get((tenant, ask.service))
        if heard is None or heard.until <= self._clock() or ask.wanted or ask.expects is not CircuitState.CLOSED:
            return None
        view = heard.view
        if view.state is CircuitState.CLOSED:
            told = view.failures == 0 and all(end.verdict != "failed" for end in ask.ended)
            return view if told else None
        if ask.ended:
            return None
        return view.model_copy(update={"retry_in_ms": max(int((heard.due - self._clock()) * 1000), 0)})

    def _remember(self, tenant: str, view: CircuitView) -> None:
        now, key = self._clock(), (tenant, view.service)
        closed = view.state is CircuitState.CLOSED
        holds = FRESH_SECONDS if closed else min(view.retry_in_ms / 1000, OPEN_SECONDS_MAX)
        self._heard[key] = _Heard(view, now + holds, now + view.retry_in_ms / 1000)
        self._heard.move_to_end(key)
        while len(self._heard) > REMEMBERED_MAX:
            self._heard.popitem(last=False)

    def _let_be(self, error: Exception) -> None:
        self._asks_from = self._clock() + WITHOUT_STORE_SECONDS
        log.warning("breakers.not_asked", error=str(error) or type(error).__name__)
