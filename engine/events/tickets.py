"""One-time tokens, kept in Redis under their hash: whoever reads the keys learns no token."""

import asyncio
from hashlib import sha256
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.errors import UnavailableError

TIMEOUT_SECONDS: Final = 2.0


class RedisTickets:
    """Implements `engine.ports.WatchTickets`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def keep(self, token: str, document: dict[str, Any], seconds: float) -> None:
        await self._ask(self._redis.set(_key("ticket", token), orjson.dumps(document), px=int(seconds * 1000)))

    async def take(self, token: str) -> dict[str, Any] | None:
        found = await self._ask(self._redis.getdel(_key("ticket", token)))
        return None if found is None else orjson.loads(found)

    async def use_once(self, token: str, seconds: float) -> bool:
        return bool(
            await self._ask(self._redis.set(_key("used", token), b"1", px=max(int(seconds * 1000), 1), nx=True))
        )

    async def _ask(self, command: Any) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await command
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error


def _key(what: str, token: str) -> str:
    return f"orc:watch:{what}:{sha256(token.encode()).hexdigest()}"
