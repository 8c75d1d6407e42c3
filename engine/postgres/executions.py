"""Executions: the planning row, control requests, and what the API asks of the read model."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus, TaskState
from engine.contracts.kernel import Control, ExecutionInput, Metrics, TerminalError
from engine.contracts.views import (
    CheckpointView,
    ExecutionEvent,
    ExecutionSummary,
    ExecutionView,
    Page,
    TaskProgress,
)
from engine.errors import (
    AlreadyExecutingError,
    CheckpointNotFoundError,
    IdempotencyConflictError,
    InvalidParametersError,
    NotFoundError,
    UnavailableError,
)
from engine.ports import PlannedExecution
from engine.postgres.control import control_in_force
from engine.postgres.documents import client_document, raw_document, reported_document, storable_text
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.pool import Connection, Database, check_tenant
from engine.postgres.statusview import execution_view

_ONE_OPEN_INDEX: Final = "idx_execution_one_open"


class PostgresExecutionStore:
    """Implements `engine.ports.ExecutionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def insert_planning(
        self,
        tenant: str,
        launch: ExecutionInput,
        input_data: dict[str, Any],
        options: dict[str, Any],
        actor: str,
        *,
        allow_concurrent: bool,
        request_hash: str | None,
    ) -> PlannedExecution:
        if launch.tenant != tenant:
            raise InvalidParametersError("the launch names another tenant")
        execution_id, workflow_id = UUID(launch.execution_id), UUID(launch.workflow_id)
        roles = {name: role.model_dump(mode="json") for name, role in launch.plan.roles.items()}
        arguments = (
            tenant, execution_id, workflow_id, launch.started_at_ms, UUID(launch.trace_id), allow_concurrent,
            request_hash, actor, raw_document(roles), client_document(input_data), client_document(options),
            launch.model_dump_json(exclude_defaults=True), raw_document(Metrics().model_dump()),
        )  # fmt: skip
        try:
            async with self._database.tenant_connection(tenant) as connection:
                try:
                    planned = await self._insert_planning(connection, arguments)
                except asyncpg.UniqueViolationError as error:
                    if error.constraint_name != _ONE_OPEN_INDEX:
                        raise
                    raise AlreadyExecutingError("the workflow is executing") from error
        except AlreadyExecutingError as error:
            return await self._repeated_or_refused(tenant, execution_id, workflow_id, request_hash, error)
        if planned is not None:
            return planned
        return await self._repeated(tenant, execution_id, request_hash)

    async def _insert_planning(self, connection: Connection, arguments: Sequence[Any]) -> PlannedExecution | None:
        """None when that execution is there already."""
        tenant, execution_id, workflow_id = arguments[:3]
        row = await connection.fetchrow(self._queries["executions.find_planned"], tenant, execution_id)
        if row is not None:
            return None
        if not await connection.fetchval(self._queries["executions.lock_definition"], tenant, workflow_id):
            raise NotFoundError("no such workflow")
        row = await connection.fetchrow(self._queries["executions.insert_planning"], *arguments)
        if row is None:
            return None
        await self._append_status_event(connection, tenant, execution_id, None, ExecutionStatus.PLANNING)
        return PlannedExecution(**dict(row), created=True)

    async def _repeated(self, tenant: str, execution_id: UUID, request_hash: str | None) -> PlannedExecution:
        """The execution that was planned before under that id. Raises IdempotencyConflictError."""
        async with self._database.tenant_connection(tenant) as connection:
            row = await connection.fetchrow(self._queries["executions.find_planned"], tenant, execution_id)
        if row is None:
            raise UnavailableError("the execution is being planned; try again")
        fields = dict(row)
        if fields.pop("request_hash") != request_hash:
            raise IdempotencyConflictError("the idempotency key was used before with another request")
        return PlannedExecution(**fields, created=False)

    async def _repeated_or_refused(
        self,
        tenant: str,
        execution_id: UUID,
        workflow_id: UUID,
        request_hash: str | None,
        refusal: AlreadyExecutingError,
    ) -> PlannedExecution:
        """Two calls with one id at the same time may meet at the index of open executions instead of the key."""
        async with self._database.tenant_connection(tenant) as connection:
            same = await connection.fetchval(self._queries["executions.exists"], tenant, execution_id)
            running = await connection.fetchval(self._queries["executions.find_open"], tenant, workflow_id)
        if same:
            return await self._repeated(tenant, execution_id, request_hash)
        raise AlreadyExecutingError(refusal.message, **({"execution_id": str(running)} if running else {})) from refusal

    async def _append_status_event(
        self,
        connection: Connection,
        tenant: str,
        execution_id: UUID,
        previous: ExecutionStatus | None,
        status: ExecutionStatus,
    ) -> None:
        payload = {"previous_status": previous.value if previous else None, "new_status": status.value}
        await connection.execute(
            self._queries["executions.append_event"],
            tenant,
            execution_id,
            AuditEventType.STATUS_CHANGED.value,
            raw_document(payload),
        )

    async def status(self, tenant: str, execution_id: UUID, *, include_tasks: bool = True) -> ExecutionView:
        check_tenant(tenant)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(self._queries["executions.status"], tenant, execution_id, include_tasks)
        if row is None or row["workflow_id"] is None:
            raise NotFoundError("no such execution")
        return execution_view(execution_id, row)

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        status: str | None = None,
        workflow_id: UUID | None = None,
    ) -> Page[ExecutionSummary]:
        check_limit(limit)
        if status is not None and status not in set(ExecutionStatus):
            raise InvalidParametersError(f"status must be one of {', '.join(ExecutionStatus)}")
        after = decode_token("executions", page_token, (datetime, UUID)) or [None, None]
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(
                self._queries["executions.list"], tenant, limit + 1, *after, status, workflow_id
            )
        items = tuple(ExecutionSummary.model_validate(dict(row)) for row in rows[:limit])
        last = items[-1] if len(rows) > limit else None
        return Page(
            items=items,
            next_page_token=encode_token("executions", (last.started_at, last.execution_id)) if last else None,
        )

    async def tasks(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None, state: str | None = None
    ) -> Page[TaskProgress]:
        check_limit(limit)
        if state is not None and state not in set(TaskState):
            raise InvalidParametersError(f"state must be one of {', '.join(TaskState)}")
        (after,) = decode_token("tasks", page_token, (int,)) or [0]
        async with self._database.tenant_connection(tenant) as connection:
            await self._require(connection, tenant, execution_id)
            rows = await connection.fetch(
                self._queries["executions.tasks"], tenant, execution_id, limit + 1, after, state
            )
        items = []
        for row in rows[:limit]:
            fields = dict(row)
            del fields["position"]
            items.append(TaskProgress.model_validate(fields))
        more = len(rows) > limit
        return Page(
            items=tuple(items),
            next_page_token=encode_token("tasks", (rows[limit - 1]["position"],)) if more else None,
        )

    async def events(
        self, tenant: str, execution_id: UUID, *, after_sequence: int, limit: int
    ) -> tuple[Sequence[ExecutionEvent], bool]:
        check_limit(limit)
        if not 0 <= after_sequence < 2**63:
            raise InvalidParametersError("after_sequence is out of range")
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(
                self._queries["executions.events"], tenant, execution_id, after_sequence, limit + 1
            )
            if not rows:
                await self._require(connection, tenant, execution_id)
        return [ExecutionEvent.model_validate(dict(row)) for row in rows[:limit]], len(rows) > limit

    async def checkpoints(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None
    ) -> Page[CheckpointView]:
        check_limit(limit)
        after = decode_token("checkpoints", page_token, (datetime, UUID)) or [None, None]
        async with self._database.tenant_connection(tenant) as connection:
            await self._require(connection, tenant, execution_id)
            rows = await connection.fetch(
                self._queries["executions.checkpoints"], tenant, execution_id, limit + 1, *after
            )
        items = tuple(_checkpoint_view(row) for row in rows[:limit])
        last = items[-1] if len(rows) > limit else None
        return Page(
            items=items,
            next_page_token=encode_token("checkpoints", (last.created_at, last.checkpoint_id)) if last else None,
        )

    async def checkpoint(self, tenant: str, execution_id: UUID, checkpoint_id: UUID) -> CheckpointView:
        async with self._database.tenant_connection(tenant) as connection:
            await self._require(connection, tenant, execution_id)
            row = await connection.fetchrow(self._queries["executions.checkpoint"], tenant, execution_id, checkpoint_id)
        if row is None:
            raise CheckpointNotFoundError("no such checkpoint of this execution")
        return _checkpoint_view(row)

    async def request_control(
        self, tenant: str, execution_id: UUID, control: Control
    ) -> tuple[ExecutionStatus, Control]:
        checkpoint_id = UUID(control.checkpoint_id) if control.checkpoint_id else None
        async with self._database.tenant_connection(tenant) as connection:
            status = await self._lock(connection, tenant, execution_id)
            row = await connection.fetchrow(self._queries["executions.control"], tenant, execution_id)
            stored = _control(row) if row is not None else None
            if stored is not None and stored.request_id == control.request_id:
                return status, stored
            pending = stored if row is not None and row["seen_tick"] is None else None
            effective = control_in_force(status, pending, control)
            if effective is not control:
                return status, effective
            if control.action == "resume" and checkpoint_id is not None:
                there = await connection.fetchrow(
                    self._queries["executions.checkpoint"], tenant, execution_id, checkpoint_id
                )
                if there is None:
                    raise CheckpointNotFoundError("no such checkpoint of this execution")
            await connection.execute(
                self._queries["executions.write_control"],
                tenant,
                execution_id,
                control.request_id,
                control.action,
                checkpoint_id,
                storable_text(control.reason) if control.reason is not None else None,
            )
        return status, control

    async def pending_control(self, tenant: str, execution_id: UUID) -> Control | None:
        async with self._database.tenant_connection(tenant) as connection:
            row = await connection.fetchrow(self._queries["executions.control"], tenant, execution_id)
        return _control(row) if row is not None and row["seen_tick"] is None else None

    async def close_from_outside(
        self, tenant: str, execution_id: UUID, status: ExecutionStatus, code: str, message: str
    ) -> bool:
        if not status.closed:
            raise InvalidParametersError(f"{status} does not close an execution")
        details = None
        if status is not ExecutionStatus.COMPLETED:
            error = TerminalError(error_code=code, error_message=message)
            details = reported_document(error.model_dump(mode="json"))
        async with self._database.tenant_connection(tenant) as connection:
            previous = await self._lock(connection, tenant, execution_id)
            if previous.closed:
                return False
            await connection.execute(self._queries["executions.close"], tenant, execution_id, status.value, details)
            await self._append_status_event(connection, tenant, execution_id, previous, status)
            await connection.execute(self._queries["executions.cancel_tasks"], tenant, execution_id)
        return True

    async def _lock(self, connection: Connection, tenant: str, execution_id: UUID) -> ExecutionStatus:
        status = await connection.fetchval(self._queries["executions.lock"], tenant, execution_id)
        if status is None:
            raise NotFoundError("no such execution")
        return ExecutionStatus(status)

    async def _require(self, connection: Connection, tenant: str, execution_id: UUID) -> None:
        if not await connection.fetchval(self._queries["executions.exists"], tenant, execution_id):
            raise NotFoundError("no such execution")


def _control(row: asyncpg.Record) -> Control:
    return Control(
        request_id=row["request_id"],
        action=row["action"],
        checkpoint_id=str(row["checkpoint_id"]) if row["checkpoint_id"] else None,
        reason=row["reason"],
    )


def _checkpoint_view(row: asyncpg.Record) -> CheckpointView:
    snapshot = row["state_snapshot"]
    return CheckpointView(
        checkpoint_id=row["checkpoint_id"],
        execution_id=row["execution_id"],
        reason=row["reason"],
        epoch=row["epoch"],
        completed_tasks=tuple(snapshot["completed"]),
        in_flight=tuple(snapshot["in_flight"]),
        recovery_instructions=row["recovery_instructions"] or {},
        created_at=row["created_at"],
    )
