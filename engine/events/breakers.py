"""Circuit breakers that all processes share, in Redis: each step is one server-side function, on the server's clock.

A Redis that has lost its data has only closed breakers, which then open again by what they see.
"""

from collections.abc import Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.contracts.circuits import CircuitAsk, CircuitRule, CircuitState, CircuitView
from engine.contracts.events import AgentEventType
from engine.errors import UnavailableError
from engine.events import keys, wire
from engine.events.functions import Functions
from engine.events.hosts import add_reports

LISTED_MAX: Final = 1_000
WOKEN_AT_ONCE: Final = 500
_LOOK: Final = CircuitRule()


class RedisBreakers:
    """Implements `engine.breakers.BreakerStore`. Raises UnavailableError when Redis does not answer."""

    def __init__(self, redis: Redis, functions: Functions, partitions: int | None = None) -> None:
        """`partitions`: of the streams by which executions are told; None where none waits for these breakers."""
        self._redis = redis
        self._functions = functions
        self._partitions = partitions

    async def consult(
        self, tenant: str | None, rule: CircuitRule, asks: Sequence[CircuitAsk], who: str
    ) -> Sequence[CircuitView]:
        if not asks:
            return []
        names = [keys.breakers(tenant)]
        waits = who if tenant is not None else ""
        args: list[Any] = [rule.failure_threshold, rule.timeout_ms, rule.half_open_probes, who, waits]
        for ask in asks:
            names += [keys.breaker(tenant, ask.service), keys.breaker_waiting(tenant, ask.service)]
            args += [ask.service, ask.lease_ms, len(ask.ended), len(ask.wanted)]
            for end in ask.ended:
                args += [end.verdict, end.call_id, end.counted_as or end.call_id]
            args += ask.wanted
        try:
            answers = await self._functions.ask("orc_consult_breakers", names, args)
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}: {error}") from error
        return [_view(ask.service, answer) for ask, answer in zip(asks, answers, strict=True)]

    async def known(self, tenant: str | None) -> Sequence[CircuitView]:
        """All breakers that have seen a failure lately, by name."""
        try:
            members: Any = await self._redis.smembers(keys.breakers(tenant))
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}: {error}") from error
        names = sorted(member.decode() for member in members)[:LISTED_MAX]
        views = await self.consult(tenant, _LOOK, [CircuitAsk(service=name) for name in names], "")
        return [view for view in views if view.total]

    async def reset(self, tenant: str | None, service: str) -> bool:
        """Close it, whatever it has seen, and wake what waits for it. False: there is no such breaker."""
        names = [keys.breakers(tenant), keys.breaker(tenant, service)]
        try:
            known, at_ms = await self._functions.ask("orc_reset_breaker", names, [service])
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}: {error}") from error
        if tenant is not None:
            await self.wake(tenant, service, at_ms)
        return bool(known)

    async def wake(self, tenant: str, service: str, at_ms: int) -> int:
        """Tell the executions that wait for it that it was closed, and how many they were.

        Those that an outage keeps from hearing of it look again when its time has come.
        """
        if self._partitions is None:
            return 0
        event = {"type": AgentEventType.CIRCUIT_CLOSED.value, "at_ms": at_ms, "service": service}
        body = wire.encode_events([event])
        waiting = keys.breaker_waiting(tenant, service)
        told = 0
        try:
            while members := cast(list[bytes], await self._redis.spop(waiting, WOKEN_AT_ONCE)):
                executions = [member.decode() for member in members]
                await add_reports(self._redis, self._partitions, tenant, executions, body)
                told += len(executions)
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}: {error}") from error
        return told

    async def count_failures(self, tenant: str, by_type: dict[str, int]) -> None:
        """Attempts that failed, by their agents' type; for figures only."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for agent_type, failures in sorted(by_type.items()):
                    pipe.hincrby(keys.agent_failures(tenant), agent_type, failures)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}: {error}") from error

    async def failures(self, tenant: str) -> dict[str, int]:
        try:
            found: Any = await self._redis.hgetall(keys.agent_failures(tenant))
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}: {error}") from error
        return {agent_type.decode(): int(failures) for agent_type, failures in sorted(found.items())}


def _view(service: str, answer: Sequence[Any]) -> CircuitView:
    state, failures, threshold, retry_in_ms, free, opened_by, admitted, counted, total, at_ms, waiting = answer
    return CircuitView(
        service=service,
        state=CircuitState(state.decode()),
        failures=failures,
        threshold=threshold,
        retry_in_ms=retry_in_ms,
        free=free,
        opened_by=opened_by.decode(),
        admitted=bool(admitted),
        counted=counted,
        total=total,
        at_ms=at_ms,
        waiting=waiting,
    )
