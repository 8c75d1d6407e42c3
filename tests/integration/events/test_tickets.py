"""One-time tokens on a real Valkey."""

import pytest
from redis.asyncio import Redis

from engine.embedded.valkey import ValkeyServer
from engine.errors import UnavailableError
from engine.events.connection import connect
from engine.events.tickets import RedisTickets
from engine.settings import Settings
from tests.fakes.streams import eventually


async def test_a_ticket_is_taken_once_and_stands_nowhere_by_itself(redis: Redis) -> None:
    tickets = RedisTickets(redis)
    await tickets.keep("secret", {"tenant": "t"}, 30)
    assert not [key for key in await redis.keys("*") if b"secret" in key]
    assert await tickets.take("secret") == {"tenant": "t"}
    assert await tickets.take("secret") is None


async def test_a_ticket_is_gone_after_its_time(redis: Redis) -> None:
    tickets = RedisTickets(redis)
    await tickets.keep("secret", {}, 0.05)

    async def gone() -> bool:
        return not await redis.keys("orc:watch:*")

    await eventually(gone, 10)


async def test_what_may_be_used_once_is_used_once(redis: Redis) -> None:
    tickets = RedisTickets(redis)
    assert [await tickets.use_once("jwt", 30) for _ in range(3)] == [True, False, False]
    assert await tickets.use_once("other", 0)


async def test_without_the_server_nothing_is_believed(valkey_server: ValkeyServer) -> None:
    client = connect(Settings.model_validate({"redis_url": f"redis://127.0.0.1:{valkey_server.port}/0"}), repeat=False)
    with pytest.raises(UnavailableError):
        await RedisTickets(client).take("secret")
    await client.aclose()
