"""Finding host processes for logical agents, and having them started."""

import asyncio

from temporalio import activity

from activities.ticks import as_application_error
from engine.contracts import activity_names
from engine.contracts.kernel import BindRequest, BindResult
from engine.errors import EngineError
from engine.ports import AgentBinder

HEARTBEAT_SECONDS = 2.0


class AllocationActivities:
    """Both are idempotent: binding reads what is there, allocating asks for what is missing."""

    def __init__(self, binder: AgentBinder) -> None:
        self._binder = binder

    @activity.defn(name=activity_names.BIND_AGENTS)
    async def bind_agents(self, request: BindRequest) -> BindResult:
        """What is there now; runs inside the workflow task."""
        try:
            return await self._binder.bind(request)
        except EngineError as error:
            raise as_application_error(error) from error

    @activity.defn(name=activity_names.ALLOCATE_AGENTS)
    async def allocate_agents(self, request: BindRequest) -> BindResult:
        """Has hosts started and waits for them, up to `wait_seconds`."""
        beat = asyncio.create_task(_heartbeat())
        try:
            return await self._binder.bind(request)
        except EngineError as error:
            raise as_application_error(error) from error
        finally:
            beat.cancel()


async def _heartbeat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT_SECONDS)
