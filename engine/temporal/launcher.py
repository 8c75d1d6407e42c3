"""Starting, signalling and inspecting executions' workflows."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from engine.contracts.activity_names import COMPENSATION_WORKFLOW, WORKFLOW_TYPES
from engine.contracts.compensation import RetryRequest
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput
from engine.errors import LaunchRefusedError, NotFoundError, UnavailableError, UnsupportedPatternError
from engine.settings import Settings

RPC_TIMEOUT = timedelta(seconds=10)

TENANT = SearchAttributeKey.for_keyword("OrchestratorTenant")
PATTERN = SearchAttributeKey.for_keyword("OrchestratorPattern")
WORKFLOW = SearchAttributeKey.for_keyword("OrchestratorWorkflow")

WORKFLOW_TASK_TIMEOUT = timedelta(seconds=5)
"""After a worker's death Temporal waits so long before another worker gets the execution's workflow task."""

_CLOSED = {
    WorkflowExecutionStatus.COMPLETED: ExecutionStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED: ExecutionStatus.FAILED,
    WorkflowExecutionStatus.TIMED_OUT: ExecutionStatus.FAILED,
    WorkflowExecutionStatus.TERMINATED: ExecutionStatus.CANCELLED,
    WorkflowExecutionStatus.CANCELED: ExecutionStatus.CANCELLED,
}


def temporal_id(tenant: str, execution_id: UUID | str) -> str:
    return f"{tenant}/{execution_id}"


class TemporalLauncher:
    """The `Launcher` port on a Temporal client."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._task_queue = settings.task_queue

    async def launch(self, launch: ExecutionInput) -> None:
        workflow_type = WORKFLOW_TYPES.get(launch.pattern)
        if workflow_type is None:
            raise UnsupportedPatternError(f"no workflow carries out the pattern {launch.pattern}")
        attributes = TypedSearchAttributes(
            [
                SearchAttributePair(TENANT, launch.tenant),
                SearchAttributePair(PATTERN, launch.pattern),
                SearchAttributePair(WORKFLOW, launch.workflow_name),
            ]
        )
        try:
            await self._client.start_workflow(
                workflow_type,
                launch,
                id=temporal_id(launch.tenant, launch.execution_id),
                task_queue=self._task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=attributes,
                task_timeout=WORKFLOW_TASK_TIMEOUT,
                static_summary=f"{launch.workflow_name}: {len(launch.plan.tasks)} tasks, {launch.pattern}",
                rpc_timeout=RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return
        except RPCError as error:
            if error.status is RPCStatusCode.INVALID_ARGUMENT:
                raise LaunchRefusedError(f"Temporal does not take this execution: {error.message}") from error
            raise UnavailableError(f"Temporal did not start the execution: {error.status.name}") from error

    async def signal(self, tenant: str, execution_id: UUID, name: str, *args: Any) -> None:
        handle = self._client.get_workflow_handle(temporal_id(tenant, execution_id))
        try:
            await handle.signal(name, args=list(args), rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise NotFoundError("no open run of this execution") from error
            raise UnavailableError(f"Temporal did not take the signal: {error.status.name}") from error

    async def retry_compensations(self, request: RetryRequest) -> None:
        """A run for each request. Asked again, it begins anew if the former run was ended from outside."""
        try:
            await self._client.start_workflow(
                COMPENSATION_WORKFLOW,
                request,
                id=f"{temporal_id(request.tenant, request.execution_id)}/compensation/{request.request_id}",
                task_queue=self._task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                search_attributes=TypedSearchAttributes([SearchAttributePair(TENANT, request.tenant)]),
                static_summary=f"undo {request.task_id}",
                rpc_timeout=RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return
        except RPCError as error:
            raise UnavailableError(f"Temporal did not start the retry: {error.status.name}") from error

    async def closed_status(self, tenant: str, execution_id: UUID) -> ExecutionStatus | None:
        handle = self._client.get_workflow_handle(temporal_id(tenant, execution_id))
        try:
            description = await handle.describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise NotFoundError("Temporal has no such execution") from error
            raise UnavailableError(f"Temporal does not answer: {error.status.name}") from error
        return _CLOSED.get(description.status) if description.status is not None else None
