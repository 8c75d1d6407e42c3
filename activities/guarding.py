"""The activity that asks blocking hooks. It is served by hook workers, on a task queue of their own."""

import asyncio
from collections import OrderedDict
from typing import Any
from uuid import UUID

from temporalio import activity

from activities.ticks import as_application_error
from engine.concurrency import end_all
from engine.contracts import activity_names
from engine.contracts.hooks import HookTrigger
from engine.contracts.kernel import ErrandOutcome, ErrandRequest
from engine.errors import EngineError
from engine.events.bodies import GrownBodies
from engine.ports import DispatchStore, StoredBody
from hooks.guarding import Guarded, Guardian

HEARTBEAT_SECONDS = 5.0
BODIES_MAX = 100
"""Executions whose definitions are kept in memory."""


class GuardingActivities:
    def __init__(self, guardian: Guardian, store: DispatchStore, bodies: GrownBodies) -> None:
        self._guardian = guardian
        self._store = store
        self._bodies = bodies
        self._known: OrderedDict[tuple[str, str], StoredBody] = OrderedDict()

    @activity.defn(name=activity_names.ASK_HOOKS)
    async def ask_hooks(self, request: ErrandRequest) -> ErrandOutcome:
        """At least once: where a worker dies, another asks again. A run is recorded once."""
        beating = asyncio.create_task(_beat(), name="heartbeat")
        try:
            guarded = await self._guarded(request)
            verdict = await self._guardian.verdict(request, guarded)
        except EngineError as error:
            raise as_application_error(error) from error
        finally:
            await end_all([beating])
        return ErrandOutcome(key=request.errand.key, value=verdict.model_dump(mode="json"))

    async def _guarded(self, request: ErrandRequest) -> Guarded:
        errand = request.errand
        stored = await self._body(request)
        trigger, name = HookTrigger(errand.input["trigger"]), str(stored.definition["name"])
        if not errand.task_id:
            return Guarded(trigger, name, input=stored.input_data)
        planned = {task["id"]: task for task in stored.definition["tasks"]}
        bodies: dict[str, Any] = await self._bodies.of(request.tenant, request.execution_id, planned, [errand.task_id])
        body = bodies.get(errand.task_id, {})
        return Guarded(trigger, name, errand.task_id, errand.input.get("role", ""), body.get("input") or {})

    async def _body(self, request: ErrandRequest) -> StoredBody:
        key = (request.tenant, request.execution_id)
        found = self._known.get(key)
        if found is None:
            found = await self._store.body(request.tenant, UUID(request.execution_id))
            self._known[key] = found
            while len(self._known) > BODIES_MAX:
                self._known.popitem(last=False)
        return found


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT_SECONDS)
