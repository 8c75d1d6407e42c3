"""At most so many requests a minute from one client address, counted in Redis over a sliding window.

Fails open: without Redis requests pass, and for a few seconds it is not even asked, so that its outage does not
become the gateway's.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisClusterStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError

from engine.redis_addresses import is_cluster
from engine.settings import Settings

TIMEOUT_SECONDS: Final = 0.25
REST_AFTER_FAILURE_SECONDS: Final = 5.0
KEY_PREFIX: Final = "orc:limits"


class NoRateLimit:
    async def retry_after_seconds(self, address: str) -> float | None:  # noqa: ARG002 - the port's signature
        return None


class AddressRateLimit:
    def __init__(
        self,
        storage: RedisStorage,
        requests_per_minute: int,
        *,
        exempt_loopback: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = RateLimitItemPerMinute(requests_per_minute)
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._exempt_loopback = exempt_loopback
        self._clock = clock
        self._rests_until = float("-inf")
        self._logger = structlog.get_logger("gateway.rate_limit")

    async def retry_after_seconds(self, address: str) -> float | None:
        if self._clock() < self._rests_until or (self._exempt_loopback and _is_loopback(address)):
            return None
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                if await self._limiter.hit(self._limit, address):
                    return None
                window = await self._limiter.get_window_stats(self._limit, address)
        except (StorageError, OSError, TimeoutError) as error:
            self._rests_until = self._clock() + REST_AFTER_FAILURE_SECONDS
            self._logger.warning("rate_limit_not_counted", error=repr(error))
            return None
        return max(1.0, window.reset_time - time.time())


def rate_limit_of(settings: Settings, redis: Any) -> AddressRateLimit | NoRateLimit:
    """`redis` is the process's own client, which closes it."""
    if settings.requests_per_minute == 0:
        return NoRateLimit()
    if is_cluster(settings.redis_url.get_secret_value()):
        storage: RedisStorage = _OnCluster(redis)
    else:
        storage = RedisStorage(
            "async+redis://",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix=KEY_PREFIX,
            connection_pool=redis.connection_pool,
        )
    return AddressRateLimit(storage, settings.requests_per_minute, exempt_loopback=settings.rate_limit_exempt_loopback)


class _OnCluster(RedisClusterStorage):
    """With a client that there is, where the library would make one of its own that nobody closes."""

    def __init__(self, redis: Any) -> None:
        self._client = redis
        super().__init__(
            "async+redis+cluster://", wrap_exceptions=True, implementation="redispy", key_prefix=KEY_PREFIX
        )

    def configure_bridge(self) -> None:
        bridge: Any = self.bridge
        bridge.storage = self._client
        bridge.connection_getter = lambda _: self._client


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
