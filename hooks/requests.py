"""Runs that somebody waits for: `hooks.execute`. One run, no repetition, whatever the hook's circuit says."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

from pydantic import ValidationError

from engine.contracts.hooks import HookDetail
from engine.errors import EngineError
from engine.events.hook_queue import QueuedRun, RedisHookQueue
from engine.hook_ports import HookStore
from engine.observability.log import get_logger
from hooks.actions.context import HookContext
from hooks.recording import Ended, HookRecorder
from hooks.running import Actions, record_of, run_hook

log = get_logger(__name__)


class RequestDesk:
    def __init__(
        self,
        store: HookStore,
        queue: RedisHookQueue,
        actions: Actions,
        recorder: HookRecorder,
        slots: asyncio.Semaphore,
    ) -> None:
        self._store = store
        self._queue = queue
        self._actions = actions
        self._recorder = recorder
        self._slots = slots

    async def carry_out(self, queued: QueuedRun) -> None:
        """Answers whatever comes of it: somebody waits."""
        request = queued.request or {}
        request_id, tenant = str(request.get("request_id", "")), queued.tenant
        try:
            answer = await self._run(tenant, request)
        except EngineError as error:
            answer = {"error": {"code": error.code, "message": error.message}}
        except (KeyError, ValueError, TypeError, ValidationError) as error:
            log.warning("hooks.request_not_understood", tenant=tenant, error=type(error).__name__)
            answer = {"error": {"code": "INVALID_PARAMETERS", "message": "the context is not valid"}}
        await self._queue.reply(tenant, request_id, answer)
        await self._recorder.put(Ended(tenant, queued=queued))

    async def _run(self, tenant: str, request: dict[str, Any]) -> dict[str, Any]:
        hook = await self._store.get(tenant, UUID(request["hook_id"]))
        context = simulated_context(tenant, hook, request.get("context") or {})
        once = hook.model_copy(update={"retry_policy": None})
        outcome, runs = await run_hook(self._actions, once, context, self._slots)
        run = record_of(
            hook, uuid4(), outcome, runs, execution_id=None, trace_id=str(request["request_id"]),
            subject=context.subject, trigger=hook.trigger,
        )  # fmt: skip
        await self._recorder.put(Ended(tenant, run=run))
        return {
            "execution_id": str(run.execution_id),
            "status": run.status.value,
            "output": run.output,
            "error_message": run.error_message,
            "duration_ms": run.duration_ms,
        }


def simulated_context(tenant: str, hook: HookDetail, given: dict[str, Any]) -> HookContext:
    """The fields of a context as the caller gave them, and the others as values; none that say whose it is."""
    own = {"tenant", "trigger", "hook_id", "hook_name", "values", "work_dir"}
    fields = {name: given[name] for name in HookContext.model_fields if name in given and name not in own}
    values = {name: value for name, value in given.items() if name not in HookContext.model_fields}
    return HookContext.model_validate(
        {
            "subject": f"{hook.trigger.value} simulated",
            **fields,
            "tenant": tenant,
            "trigger": hook.trigger.value,
            "hook_id": hook.hook_id,
            "hook_name": hook.name,
            "values": values,
        }
    )
