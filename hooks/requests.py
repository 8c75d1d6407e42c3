"""Runs that somebody waits for: `hooks.execute`. One run, no repetition, whatever the hook's circuit says.

A request is worth nothing when its caller has stopped waiting, so it says until when; and as it stands in the stream
alone, the stream's count of deliveries tells when workers die of it.
"""

import asyncio
import time
from typing import Any, Final
from uuid import UUID, uuid4

from pydantic import ValidationError

from engine.contracts.hooks import HookDetail
from engine.errors import EngineError, HookExecutionFailedError
from engine.events.hook_queue import QueuedRun, RedisHookQueue
from engine.hook_ports import HookStore
from engine.observability.log import get_logger
from hooks.actions.context import HookContext
from hooks.recording import Ended, HookRecorder, Work
from hooks.running import WORKER_LOST, Actions, record_of, run_hook

log = get_logger(__name__)

DELIVERIES_MAX: Final = 2
"""To the first worker, and to one more when that has died."""


class _Expired(Exception):
    """Nobody waits any more."""


class RequestDesk:
    def __init__(
        self,
        store: HookStore,
        queue: RedisHookQueue,
        actions: Actions,
        recorder: HookRecorder,
        slots: asyncio.Semaphore,
        *,
        enabled: bool,
    ) -> None:
        self._store = store
        self._queue = queue
        self._actions = actions
        self._recorder = recorder
        self._slots = slots
        self._enabled = enabled

    async def carry_out(self, queued: QueuedRun) -> None:
        """Answers whatever comes of it, as long as somebody waits."""
        work = Work(queued)
        request = queued.request or {}
        request_id, tenant = str(request.get("request_id", "")), queued.tenant
        try:
            answer = await self._run(work, request)
        except _Expired:
            log.info("hooks.request_expired", tenant=tenant, request_id=request_id)
            await self._recorder.put(Ended(work))
            return
        except HookExecutionFailedError as error:
            answer = {"error": {"code": error.data["reason"], "message": error.message}}
        except EngineError as error:
            answer = {"error": {"code": error.code, "message": error.message}}
        except (KeyError, ValueError, TypeError, ValidationError) as error:
            log.warning("hooks.request_not_understood", tenant=tenant, error=type(error).__name__)
            answer = {"error": {"code": "INVALID_PARAMETERS", "message": "the context is not valid"}}
        await self._queue.reply(tenant, request_id, answer)
        await self._recorder.put(Ended(work))

    async def _run(self, work: Work, request: dict[str, Any]) -> dict[str, Any]:
        tenant, deadline_ms = work.queued.tenant, int(request["deadline_ms"])
        _check_time(deadline_ms)
        if work.queued.deliveries > DELIVERIES_MAX:
            log.error("hooks.request_dropped", tenant=tenant, deliveries=work.queued.deliveries)
            raise HookExecutionFailedError("the hook workers that had it have ended", reason=WORKER_LOST)
        if not self._enabled or not (await self._store.switch(tenant)).enabled:
            raise HookExecutionFailedError("hooks are switched off", reason="SWITCHED_OFF")
        hook = await self._store.get(tenant, UUID(request["hook_id"]))
        context = simulated_context(tenant, hook, request.get("context") or {})
        context = context.model_copy(update={"run_key": f"request/{request['request_id']}"})
        once = hook.model_copy(update={"retry_policy": None})
        async with self._slots:
            # Waiting for a slot may have taken long.
            _check_time(deadline_ms)
            outcome, runs = await run_hook(self._actions, once, context, asyncio.Semaphore(1))
        run = record_of(
            hook, uuid4(), outcome, runs, execution_id=None, trace_id=str(request["request_id"]),
            subject=context.subject, trigger=hook.trigger,
        )  # fmt: skip
        await self._recorder.put(Ended(work, run))
        return {
            "execution_id": str(run.execution_id),
            "status": run.status.value,
            "output": run.output,
            "error_message": run.error_message,
            "duration_ms": run.duration_ms,
        }


def _check_time(deadline_ms: int) -> None:
    if time.time() * 1000 >= deadline_ms:
        raise _Expired


def simulated_context(tenant: str, hook: HookDetail, given: dict[str, Any]) -> HookContext:
    """The fields of a context as the caller gave them, and the others as values; none that say whose it is."""
    own = {"tenant", "trigger", "hook_id", "hook_name", "values", "work_dir", "run_key"}
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
