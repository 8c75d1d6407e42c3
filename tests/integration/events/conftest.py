"""A database of the shared Valkey of its own: leases and the set of tenants are one for a whole database."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from engine.embedded.valkey import ValkeyServer
from engine.events.connection import connect
from engine.events.functions import Functions
from engine.settings import Settings
from tests.integration.events.crossing import Crossing, close_for_good

DATABASE = 7


@pytest.fixture
def redis_settings(valkey_server: ValkeyServer) -> Settings:
    return Settings.model_validate({"redis_url": valkey_server.url.removesuffix("/0") + f"/{DATABASE}"})


@pytest.fixture
async def redis(redis_settings: Settings) -> AsyncIterator[Redis]:
    client = connect(redis_settings)
    await client.flushdb()
    await Functions(client).load()
    yield client
    await close_for_good(client)


@pytest.fixture
async def crossing(redis: Redis, redis_settings: Settings, tenant: str) -> AsyncIterator[Crossing]:
    crossing = Crossing(redis, redis_settings, tenant)
    await redis.sadd("orc:tenants", tenant)
    yield crossing
    await crossing.close()
