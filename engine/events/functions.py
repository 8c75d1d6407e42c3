"""Server-side functions: several commands as one step, loaded when the server does not have them."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ResponseError


class Functions:
    """Calls functions of `functions.lua`. A server that lost them (emptied, replaced) gets them again."""

    clustered = False
    """Whether keys of several slots cannot be named in one call."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.clustered = isinstance(redis, RedisCluster)
        self._code = files("engine.events").joinpath("functions.lua").read_text()

    async def load(self) -> None:
        await self._redis.function_load(self._code, replace=True)

    async def call(self, name: str, keys: list[str], args: list[Any]) -> int:
        return int(await self.ask(name, keys, args))

    async def ask_all(self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Several calls in one round trip; the first refusal is raised."""
        try:
            return await self._ask_all(name, calls)
        except ResponseError as error:
            if "Function not found" not in str(error):
                raise
        await self.load()
        return await self._ask_all(name, calls)

    async def _ask_all(self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for keys, args in calls:
                pipe.fcall(name, len(keys), *keys, *args)
            answers: list[Any] = await pipe.execute()
        return answers

    async def ask(self, name: str, keys: list[str], args: list[Any]) -> Any:
        try:
            return await self._redis.fcall(name, len(keys), *keys, *args)
        except ResponseError as error:
            if "Function not found" not in str(error):
                raise
        await self.load()
        return await self._redis.fcall(name, len(keys), *keys, *args)
