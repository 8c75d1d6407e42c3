from collections.abc import AsyncIterator
from typing import Any

import pytest
from limits.aio.storage import RedisStorage
from limits.errors import StorageError
from redis.asyncio import Redis

from engine.embedded.valkey import ValkeyServer
from engine.settings import Settings
from gateway.rate_limit import REST_AFTER_FAILURE_SECONDS, AddressRateLimit, NoRateLimit, rate_limit_of


@pytest.fixture
async def storage(valkey_server: ValkeyServer, tenant: str) -> AsyncIterator[RedisStorage]:
    async with Redis.from_url(valkey_server.url) as redis:
        yield storage_of(redis, tenant)


def storage_of(redis: Redis, prefix: str) -> RedisStorage:
    pool: Any = redis.connection_pool
    return RedisStorage(
        "async+redis://",
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix=prefix,
        connection_pool=pool,
    )


async def test_requests_above_the_limit_wait_and_other_addresses_do_not(
    storage: RedisStorage,
) -> None:
    limit = AddressRateLimit(storage, 5, exempt_loopback=False)
    answers = [await limit.retry_after_seconds("192.0.2.1") for _ in range(6)]
    assert answers[:5] == [None] * 5
    assert answers[5] is not None
    assert 1 <= answers[5] <= 60
    assert await limit.retry_after_seconds("192.0.2.2") is None


@pytest.mark.parametrize(
    ("address", "exempt"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False), ("unknown", False)],
)
async def test_loopback_is_exempt_where_the_settings_say_so(storage: RedisStorage, address: str, exempt: bool) -> None:
    limit = AddressRateLimit(storage, 1, exempt_loopback=True)
    await limit.retry_after_seconds(address)
    assert (await limit.retry_after_seconds(address) is None) is exempt


async def test_without_redis_requests_pass_and_it_is_left_alone_for_a_while(
    storage: RedisStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [0.0], 0
    limit = AddressRateLimit(storage, 1, exempt_loopback=False, clock=lambda: now[0])

    async def away(*_: Any, **__: Any) -> bool:
        nonlocal asked
        asked += 1
        raise StorageError(ConnectionError("away"))

    with monkeypatch.context() as patched:
        patched.setattr(limit._limiter, "hit", away)
        for _ in range(5):
            assert await limit.retry_after_seconds("192.0.2.1") is None
        assert asked == 1
    now[0] += REST_AFTER_FAILURE_SECONDS + 1
    assert await limit.retry_after_seconds("192.0.2.1") is None
    assert await limit.retry_after_seconds("192.0.2.1") is not None


async def test_a_redis_that_refuses_connections_is_no_redis(tenant: str) -> None:
    async with Redis(host="127.0.0.1", port=1) as redis:
        limit = AddressRateLimit(storage_of(redis, tenant), 1, exempt_loopback=False)
        assert [await limit.retry_after_seconds("192.0.2.1") for _ in range(3)] == [None] * 3


async def test_no_limit_is_a_setting(valkey_server: ValkeyServer) -> None:
    async with Redis.from_url(valkey_server.url) as redis:
        none = rate_limit_of(Settings.model_validate({"requests_per_minute": 0}), redis)
        assert isinstance(none, NoRateLimit)
        assert await none.retry_after_seconds("192.0.2.1") is None
        some = rate_limit_of(Settings.model_validate({}), redis)
        assert await some.retry_after_seconds("192.0.2.9") is None
