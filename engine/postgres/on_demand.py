"""What claim checks refer to, from a database that is connected to once something is asked of it.

For tools that mostly do without: a replay needs PostgreSQL only for what was too large for Temporal.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Self
from uuid import UUID

from engine.postgres.stores import Stores
from engine.settings import Settings


class StoresOnDemand:
    """Implements `engine.ports.PlanStore` and `engine.ports.PayloadStore` inside `async with`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._turn = asyncio.Lock()
        self._stores: Stores | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def plan(self, tenant: str, plan_hash: str) -> str:
        return await (await self._connected()).plans.plan(tenant, plan_hash)

    async def put_payload(self, tenant: str, execution_id: UUID, payload: bytes) -> str:
        return await (await self._connected()).dispatch.put_payload(tenant, execution_id, payload)

    async def payload(self, tenant: str, execution_id: UUID, reference: str) -> bytes:
        return await (await self._connected()).dispatch.payload(tenant, execution_id, reference)

    async def _connected(self) -> Stores:
        async with self._turn:
            if self._stores is None:
                self._stores = await self._stack.enter_async_context(Stores.open(self._settings))
        return self._stores
