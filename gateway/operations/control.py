"""Use cases that steer a running execution: pause, resume, cancel, checkpoint.

Each writes the control row, which every tick reads, and then sends a signal, which only makes it quicker. The
answer is given when the read model shows that a tick has obeyed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Literal, TypeVar
from uuid import UUID, uuid4, uuid5

import structlog
from pydantic import Field

from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.kernel import Control
from engine.contracts.model import StrictModel
from engine.contracts.views import (
    CheckpointView,
    ExecutionCancelled,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionView,
)
from engine.errors import (
    CheckpointNotFoundError,
    InvalidTransitionError,
    NotFoundError,
    UnavailableError,
)
from engine.ports import ExecutionFeed, ExecutionStore, Launcher
from gateway.operations.nudges import nudges_of
from gateway.operations.operation import Caller, Id, IdempotencyKey

POLL_SECONDS: Final = 0.05
SIGNAL_TIMEOUT_SECONDS: Final = 5.0

Action = Literal["pause", "resume", "cancel", "checkpoint"]
Reached = TypeVar("Reached")


class ControlExecution(StrictModel):
    execution_id: Id
    reason: str | None = Field(None, max_length=1000)
    idempotency_key: IdempotencyKey | None = None


class ResumeExecution(ControlExecution):
    checkpoint_id: Id | None = None


class ControlOperations:
    def __init__(
        self, executions: ExecutionStore, launcher: Launcher, feed: ExecutionFeed, timeout_seconds: float
    ) -> None:
        self._executions = executions
        self._launcher = launcher
        self._feed = feed
        self._timeout_seconds = timeout_seconds
        self._logger = structlog.get_logger("gateway.control")

    async def pause(self, caller: Caller, request: ControlExecution) -> ExecutionPaused:
        checkpoint = await self._checkpointed(caller, request, "pause")
        resume_url = f"{caller.base_url}/api/v1/executions/{request.execution_id}/resume"
        return ExecutionPaused(
            execution_id=request.execution_id,
            status=ExecutionStatus.PAUSED,
            checkpoint_id=checkpoint.checkpoint_id,
            checkpoint_timestamp=checkpoint.created_at,
            resume_url=resume_url,
        )

    async def checkpoint(self, caller: Caller, request: ControlExecution) -> CheckpointView:
        return await self._checkpointed(caller, request, "checkpoint")

    async def resume(self, caller: Caller, request: ResumeExecution) -> ExecutionResumed:
        tenant, execution_id, checkpoint_id = caller.tenant, request.execution_id, request.checkpoint_id
        before = await self._executions.status(tenant, execution_id)
        completed = {task for task, state in before.task_states.items() if state is TaskState.COMPLETED}
        recovered, repeated = before.performance_metrics.tasks_completed, set[str]()
        if checkpoint_id == before.latest_checkpoint_id:
            checkpoint_id = None  # from the latest one an execution simply goes on
        if checkpoint_id is not None:
            checkpoint = await self._executions.checkpoint(tenant, execution_id, checkpoint_id)
            repeated = completed.difference(checkpoint.completed_tasks)
            recovered = len(checkpoint.completed_tasks)

        async def resumed(_in_force: Control) -> ExecutionView | None:
            now = await self._executions.status(tenant, execution_id, include_tasks=False)
            waiting = now.status in (ExecutionStatus.PAUSED, ExecutionStatus.PLANNING)
            return None if waiting else now

        control = _control(request, "resume", str(checkpoint_id) if checkpoint_id else None)
        after = await self._steer(caller, execution_id, control, resumed)
        return ExecutionResumed(
            execution_id=execution_id,
            status=after.status,
            resumed_at=datetime.now(UTC),
            recovered_tasks=recovered,
            repeated_side_effects=tuple(sorted(repeated)),
        )

    async def cancel(self, caller: Caller, request: ControlExecution) -> ExecutionCancelled:
        async def cancelled(_in_force: Control) -> ExecutionView | None:
            now = await self._executions.status(caller.tenant, request.execution_id, include_tasks=False)
            if now.status is ExecutionStatus.CANCELLED:
                return now
            if now.status.closed:
                raise _ended(now.status)
            return None

        await self._steer(caller, request.execution_id, _control(request, "cancel", None), cancelled)
        return ExecutionCancelled(execution_id=request.execution_id, status=ExecutionStatus.CANCELLED)

    async def _checkpointed(
        self, caller: Caller, request: ControlExecution, action: Literal["pause", "checkpoint"]
    ) -> CheckpointView:
        """Ask for a checkpoint under an id that is known beforehand, and wait until it is there."""
        tenant, execution_id, key = caller.tenant, request.execution_id, request.idempotency_key
        checkpoint_id = uuid4()
        if key is not None:
            # Found again even when later requests have replaced this one's control row.
            checkpoint_id = uuid5(execution_id, f"{action}\n{key}")
            with suppress(CheckpointNotFoundError):
                return await self._executions.checkpoint(tenant, execution_id, checkpoint_id)

        async def stored(in_force: Control) -> CheckpointView | None:
            awaited = UUID(in_force.checkpoint_id) if in_force.checkpoint_id else checkpoint_id
            try:
                return await self._executions.checkpoint(tenant, execution_id, awaited)
            except CheckpointNotFoundError:
                now = await self._executions.status(tenant, execution_id, include_tasks=False)
                if now.status.closed:
                    raise _ended(now.status) from None
                return None

        return await self._steer(caller, execution_id, _control(request, action, str(checkpoint_id)), stored)

    async def _steer(
        self,
        caller: Caller,
        execution_id: UUID,
        control: Control,
        reached: Callable[[Control], Awaitable[Reached | None]],
    ) -> Reached:
        async with nudges_of(self._feed, caller.tenant, execution_id) as nudges:
            status, in_force = await self._executions.request_control(caller.tenant, execution_id, control)
            deadline = asyncio.get_running_loop().time() + self._timeout_seconds
            # Beside the waiting, not before it: the tick may obey before a slow signal has arrived.
            signal = asyncio.create_task(self._signal(caller.tenant, execution_id, in_force, status))
            try:
                while (result := await reached(in_force)) is None:
                    if asyncio.get_running_loop().time() >= deadline:
                        raise UnavailableError(f"the execution has not obeyed {control.action} yet; the request stands")
                    await nudges.wait(POLL_SECONDS)
                return result
            finally:
                signal.cancel()
                await asyncio.wait({signal})

    async def _signal(self, tenant: str, execution_id: UUID, control: Control, status: ExecutionStatus) -> None:
        if status.closed:
            return  # by the request itself: it waited for capacity, and there is no workflow to tell
        name = "catch_up" if control.action == "checkpoint" else control.action
        # With its id: a signal that comes when a tick has obeyed the row already would else be a request of its own.
        arguments = () if name == "catch_up" else (control.request_id,)
        try:
            async with asyncio.timeout(SIGNAL_TIMEOUT_SECONDS):
                await self._launcher.signal(tenant, execution_id, name, *arguments)
        except (NotFoundError, UnavailableError, TimeoutError) as error:
            # The control row is written: the next tick obeys it, and the reconciler sees to a next tick.
            self._logger.warning("signal_not_delivered", execution_id=str(execution_id), signal=name, error=repr(error))


def _control(request: ControlExecution, action: Action, checkpoint_id: str | None) -> Control:
    return Control(
        request_id=request.idempotency_key or str(uuid4()),
        action=action,
        checkpoint_id=checkpoint_id,
        reason=request.reason,
    )


def _ended(status: ExecutionStatus) -> InvalidTransitionError:
    return InvalidTransitionError(f"the execution is {status.value}", status=status.value)
