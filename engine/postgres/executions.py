"""Executions: the planning row, control requests, and what the API asks of the read model."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from engine.contracts.capacity import PRIORITY_RANKS, CapacityLimits, Demand
from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus, Priority, TaskState
from engine.contracts.kernel import Control, ExecutionInput, Metrics, TerminalError
from engine.contracts.views import (
    CheckpointView,
    ExecutionEvent,
    ExecutionSummary,
    ExecutionView,
    Page,
    TaskProgress,
)
from engine.contracts.voting import CountedRound
from engine.errors import (
    AlreadyExecutingError,
    CheckpointNotFoundError,
    IdempotencyConflictError,
    InvalidParametersError,
    InvalidTransitionError,
    NotFoundError,
    TooManyRequestsError,
    UnavailableError,
)
from engine.plans import PLANS, PlanIdentity
from engine.ports import PlannedExecution
from engine.postgres.control import control_in_force
from engine.postgres.documents import client_document, raw_document, reported_document, storable_text
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.plans import PostgresPlanStore, launch_document, plan_to_refer_to
from engine.postgres.pool import Connection, Database, check_tenant
from engine.postgres.statusview import execution_view
from engine.voting.recounting import rounds_of

_ONE_OPEN_INDEX: Final = "idx_execution_one_open"

QUEUE_FULL_RETRY_SECONDS: Final = 30
_PLAN_KEY: Final = "workflow_executions_plan_fkey"


class _PlanGoneError(Exception):
    """The plan that the launch document refers to is not stored any more."""


class PostgresExecutionStore:
    """Implements `engine.ports.ExecutionStore`."""

    def __init__(self, database: Database, limits: CapacityLimits | None = None) -> None:
        self._database = database
        self._queries = database.queries
        self._limits = limits or CapacityLimits()
        self._plans = PostgresPlanStore(database)

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
        priority: Priority = "normal",
        demand: Demand | None = None,
    ) -> PlannedExecution:
        if launch.tenant != tenant:
            raise InvalidParametersError("the launch names another tenant")
        check_tenant(tenant)
        execution_id, workflow_id = UUID(launch.execution_id), UUID(launch.workflow_id)
        roles = {name: role.model_dump(mode="json") for name, role in launch.plan.roles.items()}
        demand = demand or Demand(agents=sum(role.count for role in launch.plan.roles.values()))
        limits, plan = self._limits, plan_to_refer_to(launch)
        arguments = (
            tenant, execution_id, workflow_id, launch.started_at_ms, UUID(launch.trace_id), allow_concurrent,
            request_hash, actor, raw_document(roles), client_document(input_data), client_document(options),
            launch_document(launch, plan), raw_document(Metrics().model_dump()),
            PRIORITY_RANKS[priority], demand.agents, demand.cpu_micros, demand.memory_bytes,
            limits.executions, limits.agents, limits.cpu_micros, limits.memory_bytes, limits.tenant_executions,
            limits.waiting, None if plan is None else plan.plan_hash,
        )  # fmt: skip
        try:
            row = await self._plan(launch, plan, arguments)
        except AlreadyExecutingError as error:
            return await self._repeated_or_refused(tenant, execution_id, workflow_id, request_hash, error)
        if row["outcome"] == "repeat":
            return await self._repeated(tenant, execution_id, request_hash)
        if row["outcome"] == "no_workflow":
            raise NotFoundError("no such workflow")
        if row["outcome"] == "queue_full":
            raise TooManyRequestsError(
                f"{row['waiting_count']} executions wait for capacity: those of low priority are refused; come back "
                "later, or ask with a higher priority",
                waiting=row["waiting_count"],
                retry_after_seconds=QUEUE_FULL_RETRY_SECONDS,
            )
        return PlannedExecution(
            execution_id=execution_id,
            workflow_id=workflow_id,
            status=row["status"],
            started_at=row["started_at"],
            waiting=row["waiting"],
            created=True,
        )

    async def _plan(
        self, launch: ExecutionInput, plan: PlanIdentity | None, arguments: Sequence[Any]
    ) -> asyncpg.Record:
        """The row, its first event and its claim: one statement. A large plan is stored by itself, before."""
        if plan is not None and PLANS.reference(launch.tenant, launch.plan) is None:
            await self._keep_plan(launch, plan)
        try:
            return await self._plan_once(arguments)
        except _PlanGoneError:
            # Deleted by age, between two executions that use it.
            assert plan is not None  # noqa: S101 - only a plan that is referred to can be gone
            await self._keep_plan(launch, plan)
            return await self._plan_once(arguments)

    async def _keep_plan(self, launch: ExecutionInput, plan: PlanIdentity) -> None:
        async with self._database.tenant_connection(launch.tenant) as connection:
            await self._plans.keep(connection, launch, plan)
        PLANS.note_stored(launch.tenant, launch.plan)

    async def _plan_once(self, arguments: Sequence[Any]) -> asyncpg.Record:
        async with self._database.connection() as connection:
            try:
                row = await connection.fetchrow(self._queries["executions.plan"], *arguments)
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name != _ONE_OPEN_INDEX:
                    raise
                raise AlreadyExecutingError("the workflow is executing") from error
            except asyncpg.ForeignKeyViolationError as error:
                if error.constraint_name != _PLAN_KEY:
                    raise
                raise _PlanGoneError from error
        assert row is not None  # noqa: S101 - a function always answers one row
        return row

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
        previous: ExecutionStatus,
        status: ExecutionStatus,
    ) -> None:
        payload = {"previous_status": previous.value, "new_status": status.value}
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

    async def counted_rounds(
        self, tenant: str, execution_id: UUID, *, task_id: str | None, round_number: int | None, limit: int
    ) -> Sequence[CountedRound]:
        async with self._database.tenant_connection(tenant) as connection:
            await self._require(connection, tenant, execution_id)
            counts = await connection.fetch(
                self._queries["executions.counted_rounds"], tenant, execution_id, task_id, round_number, limit
            )
            where = [(count["payload"]["task_id"], count["epoch"], count["payload"]["round"]) for count in counts]
            votes = await connection.fetch(
                self._queries["executions.cast_votes"], tenant, execution_id, *map(list, zip(*where, strict=True))
            ) if where else []  # fmt: skip
        return rounds_of([(count["epoch"], count["payload"]) for count in counts], [vote["payload"] for vote in votes])

    async def last_sequence(self, tenant: str, execution_id: UUID) -> int:
        async with self._database.tenant_connection(tenant) as connection:
            found: int | None = await connection.fetchval(
                self._queries["executions.last_sequence"], tenant, execution_id
            )
        if found is None:
            raise NotFoundError("no such execution")
        return found

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
            waiting = await self._is_waiting(connection, tenant, execution_id, status)
            if waiting and control.action != "cancel":
                raise InvalidTransitionError(
                    f"cannot {control.action} an execution that waits for capacity; it can be cancelled",
                    status=status.value,
                )
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
            if waiting:
                # No workflow runs that could obey.
                await self._close(connection, tenant, execution_id, status, ExecutionStatus.CANCELLED, None)
                return ExecutionStatus.CANCELLED, control
        return status, control

    async def _is_waiting(
        self, connection: Connection, tenant: str, execution_id: UUID, status: ExecutionStatus
    ) -> bool:
        if status is not ExecutionStatus.PLANNING:
            return False
        return bool(await connection.fetchval(self._queries["executions.is_waiting"], tenant, execution_id))

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
            await self._close(connection, tenant, execution_id, previous, status, details)
        return True

    async def _close(
        self,
        connection: Connection,
        tenant: str,
        execution_id: UUID,
        previous: ExecutionStatus,
        status: ExecutionStatus,
        details: bytes | None,
    ) -> None:
        await connection.execute(self._queries["executions.close"], tenant, execution_id, status.value, details)
        await self._append_status_event(connection, tenant, execution_id, previous, status)
        await connection.execute(self._queries["executions.cancel_tasks"], tenant, execution_id)

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
