"""One run of a hook: its action, again after failures as its policy says, and what comes of it as a record."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from uuid import NAMESPACE_OID, UUID, uuid5

from engine.contracts.hook_actions import HookAction
from engine.contracts.hooks import (
    OUTPUT_KEPT_CHARACTERS_MAX,
    DeliveryKey,
    HookConfig,
    HookEntry,
    HookExecutionStatus,
    HookRun,
    HookTrigger,
)
from engine.contracts.limits import ERROR_MESSAGE_LENGTH_MAX
from engine.observability.log import get_logger
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from hooks.subjects import role_of

log = get_logger(__name__)

OVERTIME_SECONDS: Final = 5.0
"""An action ends itself when its time is over; one that does not is given up after so long."""

WORKER_LOST: Final = "WORKER_LOST"


class Actions(Protocol):
    """What `hooks.actions.runner.HookActions` does."""

    async def run(self, action: HookAction, context: HookContext, timeout_seconds: float) -> ActionOutcome: ...


Rest = Callable[[float], Awaitable[None]]


def run_id_of(tenant: str, key: DeliveryKey, hook_id: UUID) -> UUID:
    """The same for whoever does it again, so that a run is recorded once."""
    return uuid5(NAMESPACE_OID, f"{tenant}/{key.execution_id}/{key.tick}/{key.position}/{hook_id}")


async def run_hook(
    actions: Actions, hook: HookConfig, context: HookContext, slots: asyncio.Semaphore, rest: Rest = asyncio.sleep
) -> tuple[ActionOutcome, int]:
    """The last outcome, with the time of all runs together, and how many there were."""
    began = time.monotonic()
    runs = 0
    while True:
        runs += 1
        async with slots:
            outcome = await _run_once(actions, hook, _numbered(context, runs))
        delay = None
        if outcome.status != "completed" and outcome.retryable and hook.retry_policy is not None:
            delay = hook.retry_policy.delay_seconds(runs)
        if delay is None:
            spent_ms = outcome.duration_ms if runs == 1 else round((time.monotonic() - began) * 1000)
            return outcome.model_copy(update={"duration_ms": spent_ms}), runs
        log.info("hook.retry", hook_id=str(hook.hook_id), error_code=outcome.error_code, delay_seconds=delay)
        await rest(delay)


def _numbered(context: HookContext, run: int) -> HookContext:
    """Each repetition is a run of its own; whoever takes over from a worker that died begins with the first again."""
    return context if context.run_key is None else context.model_copy(update={"run_key": f"{context.run_key}/{run}"})


async def _run_once(actions: Actions, hook: HookConfig, context: HookContext) -> ActionOutcome:
    began = time.monotonic()
    try:
        async with asyncio.timeout(hook.timeout_seconds + OVERTIME_SECONDS):
            return await actions.run(hook.action, context, float(hook.timeout_seconds))
    except TimeoutError:
        error = f"did not end within {hook.timeout_seconds} s"
        spent_ms = round((time.monotonic() - began) * 1000)
        return ActionOutcome(status="timeout", error_code="TIMEOUT", error_message=error, duration_ms=spent_ms)
    except Exception as error:
        # The end of this run, whatever the action raised: the worker goes on with the others.
        log.exception("hook.defect", hook_id=str(hook.hook_id))
        spent_ms = round((time.monotonic() - began) * 1000)
        message = f"{type(error).__name__}: {error}"[:ERROR_MESSAGE_LENGTH_MAX]
        return ActionOutcome(status="failed", error_code="DEFECT", error_message=message, duration_ms=spent_ms)


def record_of(
    hook: HookConfig,
    run_id: UUID,
    outcome: ActionOutcome,
    runs: int,
    *,
    execution_id: UUID | None,
    trace_id: str,
    subject: str,
    trigger: HookTrigger,
) -> HookRun:
    message = outcome.error_message
    if outcome.error_code is not None:
        message = f"{outcome.error_code}: {message}" if message else outcome.error_code
    return HookRun(
        execution_id=run_id,
        hook_id=hook.hook_id,
        hook_name=hook.name,
        workflow_execution_id=execution_id,
        trace_id=trace_id,
        status=HookExecutionStatus(outcome.status),
        output=outcome.output[:OUTPUT_KEPT_CHARACTERS_MAX],
        error_message=None if message is None else message[:ERROR_MESSAGE_LENGTH_MAX],
        duration_ms=outcome.duration_ms,
        attempts=runs,
        trigger=trigger,
        event_matched=subject,
        refused=outcome.refused,
    )


def context_of(tenant: str, entry: HookEntry, hook: HookConfig, result: Any, values: dict[str, Any]) -> HookContext:
    """What an action is told of an event."""
    payload = entry.payload
    agent_id = payload.get("agent_id") or None
    error = payload.get("error")
    status = payload.get("status") or payload.get("new_status")
    return HookContext(
        tenant=tenant,
        trigger=entry.trigger.value,
        subject=entry.subject,
        hook_id=hook.hook_id,
        hook_name=hook.name,
        event_type=entry.event_type,
        execution_id=UUID(entry.execution_id),
        workflow_id=UUID(entry.workflow_id),
        workflow_name=entry.workflow_name,
        task_id=payload.get("task_id"),
        agent_id=agent_id,
        role=None if agent_id is None else role_of(agent_id),
        attempt=payload.get("attempt"),
        status=None if status is None else str(status),
        result=result,
        error=_error_text(error),
        values=values,
    )


def _error_text(error: Any) -> str | None:
    if isinstance(error, dict):
        return f"{error.get('code', '')}: {error.get('message', '')}"
    return None if error is None else str(error)
