"""Use cases around steps that could not be undone: an operator looks, has one tried again, or says that it is done."""

import asyncio
from functools import partial
from typing import Any, Final

from pydantic import Field

from engine.contracts.compensation import CompensationAnswer, CompensationView, RetryRequest
from engine.contracts.model import StrictModel
from engine.contracts.views import Page
from engine.errors import UnavailableError
from engine.ports import CompensationStore, Launcher
from engine.security.permissions import Permission
from gateway.operations.executions import ListOfExecution, TaskId
from gateway.operations.operation import Caller, Id, Operation, parse_parameters

START_TIMEOUT_SECONDS: Final = 5.0

COMPENSATION_METHODS: Final = (
    "execution.compensations",
    "execution.retry_compensation",
    "execution.mark_compensation_done",
)


class CompensationReference(StrictModel):
    execution_id: Id
    task_id: TaskId


class MarkCompensationDone(CompensationReference):
    reason: str | None = Field(None, max_length=1000, description="stands in the audit log")


class CompensationOperations:
    def __init__(self, compensations: CompensationStore, launcher: Launcher) -> None:
        self._compensations = compensations
        self._launcher = launcher

    async def list(self, caller: Caller, request: ListOfExecution) -> Page[CompensationView]:
        return await self._compensations.list(
            caller.tenant, request.execution_id, limit=request.limit, page_token=request.page_token
        )

    async def retry(self, caller: Caller, request: CompensationReference) -> CompensationAnswer:
        """Stored first, started then: asked again after a crash between the two, it is started then."""
        retry = await self._compensations.begin_retry(
            caller.tenant, request.execution_id, request.task_id, caller.principal.subject
        )
        await self._start(retry)
        return CompensationAnswer(task_id=request.task_id, state="retrying", compensation_status="partial")

    async def mark_done(self, caller: Caller, request: MarkCompensationDone) -> CompensationAnswer:
        """What had to wait for it is undone then."""
        answer, retry = await self._compensations.mark_done(
            caller.tenant, request.execution_id, request.task_id, caller.principal.subject, request.reason
        )
        if retry is not None:
            await self._start(retry)
        return answer

    async def _start(self, retry: RetryRequest) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await self._launcher.retry_compensations(retry)
        except TimeoutError as error:
            raise UnavailableError("Temporal has not started the retry; ask for it again") from error


def compensation_operations(compensations: CompensationOperations) -> tuple[Operation, ...]:
    """Their part of the table of operations."""
    admin = Permission.WORKFLOW_ADMIN
    listing, retry, done = COMPENSATION_METHODS
    return (
        _operation(listing, Permission.WORKFLOW_READ, ListOfExecution, compensations.list, Page[CompensationView]),
        _operation(retry, admin, CompensationReference, compensations.retry, CompensationAnswer),
        _operation(done, admin, MarkCompensationDone, compensations.mark_done, CompensationAnswer),
    )


def _operation(name: str, permission: Permission, parameters: type[StrictModel], run: Any, result: Any) -> Operation:
    return Operation(
        name=name,
        permission=permission,
        parse=partial(parse_parameters, parameters),
        run=run,
        parameters=parameters,
        result=result,
        positional=("execution_id", *(name for name in parameters.model_fields if name != "execution_id")),
        subject_type="execution",
        subject_field="execution_id",
        details=_named_task if permission is Permission.WORKFLOW_ADMIN else None,
    )


def _named_task(request: CompensationReference) -> dict[str, Any]:
    """Which step, and why, for the log of operations."""
    return request.model_dump(mode="json", exclude={"execution_id"}, exclude_none=True)
