"""How much waits in the streams, of all tenants together."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.errors import UnavailableError
from engine.events import keys
from engine.events.breakers import RedisBreakers
from engine.events.dead_letters import held_bytes
from engine.events.functions import Functions
from engine.events.hook_queue import BANDS

TENANTS_MAX: Final = 2_000
TENANTS_AT_ONCE: Final = 100
CIRCUIT_OWNERS_MAX: Final = 200
SERVICES_MAX: Final = 500


class Backlogs(NamedTuple):
    reports: int
    """Entries of agents' streams that no committed tick has consumed: they are deleted with their acknowledgement."""
    hooks: int
    dead_letters: int
    dead_letter_bytes: int = 0


class Failures(NamedTuple):
    services: Mapping[str, int]
    """Those that circuit breakers counted."""
    agents: Mapping[str, int]
    """Attempts whose failure speaks against their agent, by its type."""


class StreamBacklogs:
    """Implements `gateway.figures.StreamFigures`."""

    def __init__(self, redis: Redis, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions
        self._breakers = RedisBreakers(redis, Functions(redis))

    async def backlogs(self) -> Backlogs:
        """Raises UnavailableError."""
        try:
            reports = hooks = letters = letter_bytes = 0
            for tenants in _batches(await self._tenants()):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for tenant in tenants:
                        for partition in range(self._partitions):
                            pipe.xlen(keys.partition_stream(tenant, partition))
                        for band in range(BANDS):
                            pipe.xlen(keys.hooks_queue(tenant, band))
                        pipe.xlen(keys.dead_letters(tenant))
                    lengths: list[int] = await pipe.execute()
                width = self._partitions + BANDS + 1
                for first in range(0, len(lengths), width):
                    reports += sum(lengths[first : first + self._partitions])
                    hooks += sum(lengths[first + self._partitions : first + width - 1])
                    letters += lengths[first + width - 1]
                letter_bytes += await self._letter_bytes(
                    [tenant for tenant, there in zip(tenants, lengths[width - 1 :: width], strict=True) if there]
                )
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
        return Backlogs(reports, hooks, letters, letter_bytes)

    async def circuits(self) -> Mapping[str, Collection[str]]:
        """States of the circuit breakers that have seen a failure, by service: of all tenants, and of the engine's
        own. Raises UnavailableError."""
        found: dict[str, set[str]] = {}
        owners: list[str | None] = [None]
        try:
            for tenants in _batches(await self._tenants()):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for tenant in tenants:
                        pipe.exists(keys.breakers(tenant))
                    there: list[int] = await pipe.execute()
                owners += [tenant for tenant, known in zip(tenants, there, strict=True) if known]
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
        for owner in owners[:CIRCUIT_OWNERS_MAX]:
            for view in await self._breakers.known(owner):
                if view.service in found or len(found) < SERVICES_MAX:
                    found.setdefault(view.service, set()).add(view.state.value)
        return found

    async def failures(self) -> Failures:
        """What has failed since the breakers and counts are known, of all tenants. Raises UnavailableError."""
        services: Counter[str] = Counter()
        agents: Counter[str] = Counter()
        for view in await self._breakers.known(None):
            services[view.service] += view.total
        for tenant in (await self._with_failures())[:CIRCUIT_OWNERS_MAX]:
            agents.update(await self._breakers.failures(tenant))
            for view in await self._breakers.known(tenant):
                services[view.service] += view.total
        return Failures(dict(services.most_common(SERVICES_MAX)), dict(agents.most_common(SERVICES_MAX)))

    async def _with_failures(self) -> list[str]:
        """Tenants of which an agent has failed."""
        found: list[str] = []
        try:
            for tenants in _batches(await self._tenants()):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for tenant in tenants:
                        pipe.exists(keys.agent_failures(tenant))
                    there: list[int] = await pipe.execute()
                found += [tenant for tenant, known in zip(tenants, there, strict=True) if known]
        except (RedisError, OSError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
        return found

    async def _letter_bytes(self, tenants: list[str]) -> int:
        async with self._redis.pipeline(transaction=False) as pipe:
            for tenant in tenants:
                pipe.xrange(keys.dead_letters(tenant), count=1)
                pipe.xrevrange(keys.dead_letters(tenant), count=1)
            ends: list[Any] = await pipe.execute()
        pairs = zip(ends[::2], ends[1::2], strict=True)
        return sum(held_bytes(first[0][1], last[0][1]) for first, last in pairs if first and last)

    async def _tenants(self) -> list[str]:
        found: set[str] = set()
        for name in (keys.TENANTS, keys.HOOK_TENANTS):
            members: Any = self._redis.sscan_iter(name, count=500)
            async for member in members:
                found.add(member.decode())
                if len(found) >= TENANTS_MAX:
                    return sorted(found)
        return sorted(found)


def _batches(tenants: list[str]) -> list[list[str]]:
    return [tenants[first : first + TENANTS_AT_ONCE] for first in range(0, len(tenants), TENANTS_AT_ONCE)]
