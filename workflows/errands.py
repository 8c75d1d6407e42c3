"""Errands: regular activities that the kernel asks for. Each is a row of its own in Temporal's history.

The kernel records that an errand has begun; only then it is started here, and its outcome goes into the inbox, where
the next tick takes it in. So an errand is done at least once, whatever dies in between, and its activity must be
idempotent by its key.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from engine.contracts import activity_names
    from engine.contracts.kernel import Errand, ErrandOutcome, ErrandRequest, ExecutionInput
    from engine.contracts.limits import TASK_TIMEOUT_MAX_SECONDS
    from workflows.kernel.state import RunState

HOOKS_SECONDS_MAX: Final = 24 * 3600.0
"""All the blocking hooks of one event with their repetitions; each has a limit of its own."""
HOOKS_HEARTBEAT_SECONDS: Final = 15.0
COMPENSATION_SECONDS_MAX: Final = TASK_TIMEOUT_MAX_SECONDS + 3600.0
"""The task's own limit is the activity's business."""
COMPENSATION_HEARTBEAT_SECONDS: Final = 10.0
UNDER_WAY_MAX: Final = 200
"""Activities of one execution at once; the others wait."""


@dataclass(frozen=True)
class ErrandKind:
    """How an errand is run. `seconds` is the limit of one attempt; its own retries are the activity's business."""

    activity: str
    seconds: float = 60.0
    heartbeat_seconds: float | None = None
    queue: str = ""
    """What the name of the task queue has behind the workflow's own: workers of a role of their own serve it."""
    local: bool = False
    """Within the workflow task: for what takes milliseconds and does nothing outside."""
    retries: RetryPolicy = field(
        default_factory=lambda: RetryPolicy(
            initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10)
        )
    )


ERRAND_KINDS: Final[Mapping[str, ErrandKind]] = {
    "compensate": ErrandKind(
        activity_names.COMPENSATE, seconds=COMPENSATION_SECONDS_MAX, heartbeat_seconds=COMPENSATION_HEARTBEAT_SECONDS
    ),
    "judge": ErrandKind(activity_names.JUDGE, seconds=5.0, local=True),
    "program_context": ErrandKind(activity_names.READ_PROGRAM_CONTEXT, seconds=5.0, local=True),
    "program_event": ErrandKind(activity_names.READ_EVENT, seconds=5.0, local=True),
    "hooks": ErrandKind(
        activity_names.ASK_HOOKS,
        seconds=HOOKS_SECONDS_MAX,
        heartbeat_seconds=HOOKS_HEARTBEAT_SECONDS,
        queue=activity_names.HOOKS_QUEUE,
    ),
}


class Errands:
    """The errands of one run that are under way."""

    def __init__(self, launch: ExecutionInput, deliver: Callable[[ErrandOutcome], None]) -> None:
        self._launch = launch
        self._deliver = deliver
        self._tasks: dict[str, tuple[Errand, asyncio.Task[None]]] = {}
        """Until a tick has taken the outcome in. One that begins anew under its key is another errand."""

    @property
    def under_way(self) -> bool:
        return bool(self._tasks)

    def keep_up(self, state: RunState, *, none_new: bool) -> None:
        """Start what the state says has begun, and stop what it does not know any more."""
        for key in sorted(key for key, (errand, _) in self._tasks.items() if state.errands.get(key) is not errand):
            self._tasks.pop(key)[1].cancel()
        if none_new:
            return
        for key in sorted(state.errands.keys() - self._tasks.keys())[: max(UNDER_WAY_MAX - len(self._tasks), 0)]:
            errand = state.errands[key]
            self._tasks[key] = (errand, asyncio.create_task(self._run(errand, state.epoch)))

    def stop(self) -> None:
        for key in sorted(self._tasks):
            self._tasks.pop(key)[1].cancel()

    async def _run(self, errand: Errand, epoch: int) -> None:
        kind = ERRAND_KINDS[errand.kind]
        request = ErrandRequest(
            tenant=self._launch.tenant,
            execution_id=self._launch.execution_id,
            workflow_id=self._launch.workflow_id,
            trace_id=self._launch.trace_id,
            epoch=epoch,
            errand=errand,
        )
        try:
            outcome = await _call(kind, request)
        except (ActivityError, ApplicationError) as error:
            cause = error.cause if isinstance(error, ActivityError) else error
            code = getattr(cause, "type", None) or "ERRAND_FAILED"
            outcome = ErrandOutcome(key=errand.key, ok=False, code=code, message=str(cause)[:500])
        self._deliver(outcome)


async def _call(kind: ErrandKind, request: ErrandRequest) -> ErrandOutcome:
    summary = f"{request.errand.kind} {request.errand.task_id or request.errand.key}"
    limit = timedelta(seconds=kind.seconds)
    if kind.local:
        answer: Any = await workflow.execute_local_activity(
            kind.activity,
            request,
            result_type=ErrandOutcome,
            start_to_close_timeout=limit,
            retry_policy=kind.retries,
            summary=summary,
        )
    else:
        answer = await workflow.execute_activity(
            kind.activity,
            request,
            task_queue=f"{workflow.info().task_queue}{kind.queue}",
            result_type=ErrandOutcome,
            start_to_close_timeout=limit,
            heartbeat_timeout=None if kind.heartbeat_seconds is None else timedelta(seconds=kind.heartbeat_seconds),
            retry_policy=kind.retries,
            summary=summary,
        )
    return answer  # type: ignore[no-any-return]
