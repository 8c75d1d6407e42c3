"""Retries what an operator asks for, after the execution was closed, and then what had to wait for it.

A workflow of its own for each request: the execution's has ended. It holds no state but a count: PostgreSQL says what
is to be retried, and each outcome is stored before the next step is looked for. So a long
request goes on in another run.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from engine.contracts import activity_names
    from engine.contracts.compensation import CompensationCall, PendingRetry, RetryOutcome, RetryRequest
    from engine.contracts.kernel import Errand, ErrandOutcome, ErrandRequest

from workflows.errands import COMPENSATION_HEARTBEAT_SECONDS, COMPENSATION_SECONDS_MAX

HISTORY_EVENTS_MAX = 1_000
"""Between two steps, the next run goes on with a history of its own."""

STORE_TIMEOUT = timedelta(seconds=15)
PATIENCE = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10))


@workflow.defn(name=activity_names.COMPENSATION_WORKFLOW)
class CompensationWorkflow:
    """One operator's request."""

    @workflow.run
    async def run(self, request: RetryRequest) -> int:
        """How many steps were undone, with those of the runs before."""
        undone = request.undone
        while True:
            if _is_long() and workflow.patched("compensation-in-several-runs"):
                workflow.continue_as_new(request.model_copy(update={"undone": undone}))
            pending: PendingRetry | None = await workflow.execute_activity(
                activity_names.NEXT_RETRY,
                request,
                result_type=PendingRetry | None,  # type: ignore[arg-type]  # the converter takes unions
                start_to_close_timeout=STORE_TIMEOUT,
                retry_policy=PATIENCE,
                summary="what is to be retried",
            )
            if pending is None:
                return undone
            undone += await self._retry(request, pending)

    async def _retry(self, request: RetryRequest, pending: PendingRetry) -> bool:
        """As often as the task's policy says."""
        n = 0
        while True:
            n += 1
            attempt = pending.attempts + n
            outcome = await self._attempt(request, pending, attempt)
            final = outcome.ok or outcome.value == "final" or n >= pending.retry.max_attempts
            await workflow.execute_activity(
                activity_names.SETTLE_RETRY,
                RetryOutcome(
                    tenant=request.tenant,
                    execution_id=request.execution_id,
                    task_id=pending.task_id,
                    attempt=attempt,
                    ok=outcome.ok,
                    outcome="never_happened" if outcome.value == "never_happened" else "compensated",
                    code=outcome.code,
                    message=outcome.message,
                    final=final,
                ),
                start_to_close_timeout=STORE_TIMEOUT,
                retry_policy=PATIENCE,
                summary=f"what came of {pending.task_id}",
            )
            if final:
                return outcome.ok
            await workflow.sleep(timedelta(seconds=pending.retry.delay_seconds(n)))

    async def _attempt(self, request: RetryRequest, pending: PendingRetry, attempt: int) -> ErrandOutcome:
        call = CompensationCall(attempt=attempt, certain=pending.certain)
        errand = Errand(
            key=f"compensate/{pending.task_id}/{attempt}",
            kind="compensate",
            task_id=pending.task_id,
            input=call.model_dump(mode="json"),
        )
        try:
            outcome: ErrandOutcome = await workflow.execute_activity(
                activity_names.COMPENSATE,
                ErrandRequest(
                    tenant=request.tenant,
                    execution_id=request.execution_id,
                    workflow_id=request.workflow_id,
                    trace_id=request.trace_id,
                    epoch=pending.epoch,
                    errand=errand,
                ),
                result_type=ErrandOutcome,
                start_to_close_timeout=timedelta(seconds=COMPENSATION_SECONDS_MAX),
                heartbeat_timeout=timedelta(seconds=COMPENSATION_HEARTBEAT_SECONDS),
                retry_policy=PATIENCE,
                summary=f"compensate {pending.task_id}",
            )
        except ActivityError as error:
            return ErrandOutcome(key=errand.key, ok=False, code="COMPENSATION_FAILED", message=str(error.cause)[:500])
        return outcome


def _is_long() -> bool:
    info = workflow.info()
    return info.get_current_history_length() >= HISTORY_EVENTS_MAX or info.is_continue_as_new_suggested()
