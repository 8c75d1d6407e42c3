"""What is undone, beside the journal: a task's result, and the steps that were left to operators."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import orjson

from engine.contracts.compensation import (
    CompensationAnswer,
    CompensationState,
    CompensationView,
    LeftCompensation,
    PendingRetry,
    RetryOutcome,
    RetryRequest,
    TaskToUndo,
)
from engine.contracts.events import AuditEventType
from engine.contracts.views import Page
from engine.errors import InvalidTransitionError, NotFoundError
from engine.postgres.dispatch import decompressed
from engine.postgres.documents import raw_document, storable_text
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.pool import Connection, Database

UNDONE: Final = ("compensated", "never_happened", "marked_done")
PAGE_KIND: Final = "compensations"


class PostgresCompensationStore:
    """Implements `engine.ports.CompensationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    async def task(self, tenant: str, execution_id: UUID, task_id: str) -> TaskToUndo:
        async with self._database.tenant_connection(tenant) as connection:
            row = await connection.fetchrow(self._queries["compensations.task"], tenant, execution_id, task_id)
        if row is None:
            return TaskToUndo()
        result = row["result"]
        if row["body"] is not None:
            result = orjson.loads(await decompressed(row["encoding"], row["body"]))
        return TaskToUndo(agent_id=row["agent_id"], result=result)

    async def list(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None
    ) -> Page[CompensationView]:
        check_limit(limit)
        after = (decode_token(PAGE_KIND, page_token, (int,)) or [0])[0]
        async with self._database.tenant_connection(tenant) as connection:
            if not await connection.fetchval(self._queries["executions.exists"], tenant, execution_id):
                raise NotFoundError("no such execution")
            rows = await connection.fetch(self._queries["compensations.list"], tenant, execution_id, after, limit + 1)
        last = rows[limit - 1]["position"] if len(rows) > limit else None
        return Page[CompensationView](
            items=tuple(_view(row) for row in rows[:limit]),
            next_page_token=encode_token(PAGE_KIND, (last,)) if last is not None else None,
        )

    async def begin_retry(self, tenant: str, execution_id: UUID, task_id: str, actor: str) -> RetryRequest:
        async with self._database.tenant_connection(tenant) as connection:
            execution, row = await self._locked(connection, tenant, execution_id, task_id)
            if row["state"] == "retrying":
                return _request(tenant, execution_id, task_id, execution, row["request_id"])
            if row["state"] != "failed":
                raise _forbidden("retry", row)
            request_id = uuid4()
            await self._set(connection, tenant, execution_id, task_id, "retrying", request_id, actor)
            await self._tell(
                connection,
                tenant,
                execution_id,
                AuditEventType.COMPENSATION_RETRIED,
                {"task_id": task_id, "actor": actor},
            )
            await connection.execute(
                self._queries["compensations.set_task_state"], tenant, execution_id, [task_id], "compensating"
            )
            await connection.fetchval(self._queries["compensations.renew_status"], tenant, execution_id, [])
        return _request(tenant, execution_id, task_id, execution, request_id)

    async def mark_done(
        self, tenant: str, execution_id: UUID, task_id: str, actor: str, reason: str | None
    ) -> tuple[CompensationAnswer, RetryRequest | None]:
        async with self._database.tenant_connection(tenant) as connection:
            execution, row = await self._locked(connection, tenant, execution_id, task_id)
            if row["state"] not in ("failed", "waiting"):
                raise _forbidden("mark as done", row)
            await self._set(connection, tenant, execution_id, task_id, "marked_done", None, actor)
            told = {"task_id": task_id, "outcome": "marked_done", "actor": actor}
            told |= {"reason": storable_text(reason)} if reason else {}
            status, request_id = await self._undone(connection, tenant, execution_id, task_id, told, uuid4(), actor)
        answer = CompensationAnswer(task_id=task_id, state="marked_done", compensation_status=status)
        if request_id is None:
            return answer, None
        return answer, _request(tenant, execution_id, task_id, execution, request_id)

    async def next_retry(self, request: RetryRequest) -> PendingRetry | None:
        async with self._database.tenant_connection(request.tenant) as connection:
            row = await connection.fetchrow(
                self._queries["compensations.next_retry"],
                request.tenant,
                UUID(request.execution_id),
                UUID(request.request_id),
            )
        return PendingRetry.model_validate(dict(row)) if row is not None else None

    async def settle_retry(self, outcome: RetryOutcome) -> None:
        tenant, execution_id, task_id = outcome.tenant, UUID(outcome.execution_id), outcome.task_id
        async with self._database.tenant_connection(tenant) as connection:
            _, row = await self._locked(connection, tenant, execution_id, task_id)
            if row["state"] != "retrying" or row["attempts"] >= outcome.attempt:
                return  # stored before
            state: CompensationState = outcome.outcome if outcome.ok else "failed" if outcome.final else "retrying"
            error = ("", "") if outcome.ok else (storable_text(outcome.code), storable_text(outcome.message))
            await self._set(
                connection, tenant, execution_id, task_id, state, None, None, attempts=outcome.attempt, error=error
            )
            told: dict[str, Any] = {"task_id": task_id, "attempt": outcome.attempt}
            if outcome.ok:
                told["outcome"] = outcome.outcome
                await self._undone(
                    connection, tenant, execution_id, task_id, told, row["request_id"], row["actor"] or ""
                )
            elif outcome.final:
                told["error"] = {"code": outcome.code, "message": outcome.message}
                await self._tell(connection, tenant, execution_id, AuditEventType.COMPENSATION_FAILED, told)
                await connection.fetchval(self._queries["compensations.renew_status"], tenant, execution_id, [])

    async def _undone(
        self,
        connection: Connection,
        tenant: str,
        execution_id: UUID,
        task_id: str,
        told: dict[str, Any],
        request_id: UUID,
        actor: str,
    ) -> tuple[Any, UUID | None]:
        """The status that follows; and, when what had to wait can be undone now, the request that is to do so."""
        queries = self._queries
        await self._tell(connection, tenant, execution_id, AuditEventType.COMPENSATION_COMPLETED, told)
        await connection.execute(
            queries["compensations.set_task_state"], tenant, execution_id, [task_id], "compensated"
        )
        released = await connection.fetch(queries["compensations.release"], tenant, execution_id, request_id, actor)
        names = [row["task_id"] for row in released]
        await connection.execute(queries["compensations.set_task_state"], tenant, execution_id, names, "compensating")
        status = await connection.fetchval(queries["compensations.renew_status"], tenant, execution_id, [task_id])
        return status, request_id if names else None

    async def _locked(
        self, connection: Connection, tenant: str, execution_id: UUID, task_id: str
    ) -> tuple[asyncpg.Record, asyncpg.Record]:
        execution = await connection.fetchrow(self._queries["compensations.lock"], tenant, execution_id)
        if execution is None:
            raise NotFoundError("no such execution")
        row = await connection.fetchrow(self._queries["compensations.one"], tenant, execution_id, task_id)
        if row is None:
            raise NotFoundError("nothing of this task was left to be undone")
        return execution, row

    async def _set(
        self,
        connection: Connection,
        tenant: str,
        execution_id: UUID,
        task_id: str,
        state: CompensationState,
        request_id: UUID | None,
        actor: str | None,
        attempts: int = 0,
        error: tuple[str, str] = ("", ""),
    ) -> None:
        await connection.execute(
            self._queries["compensations.set"],
            tenant,
            execution_id,
            task_id,
            state,
            request_id,
            actor,
            attempts,
            *error,
        )

    async def _tell(
        self, connection: Connection, tenant: str, execution_id: UUID, kind: AuditEventType, payload: dict[str, Any]
    ) -> None:
        await connection.execute(
            self._queries["executions.append_event"], tenant, execution_id, kind.value, raw_document(payload)
        )


async def leave_compensations(
    connection: Connection, queries: Any, tenant: str, execution_id: UUID, left: Sequence[LeftCompensation]
) -> None:
    """In the transaction of the tick that closes the execution."""
    await connection.execute(
        queries["compensations.leave"],
        tenant,
        execution_id,
        [item.task_id for item in left],
        [item.position for item in left],
        ["failed" if item.failed else "waiting" for item in left],
        [item.certain for item in left],
        [item.attempts for item in left],
        [raw_document(item.blocked_by) for item in left],
        [storable_text(item.code) for item in left],
        [storable_text(item.message) for item in left],
        [item.epoch for item in left],
        [raw_document(item.retry.model_dump(mode="json")) for item in left],
    )


def _view(row: asyncpg.Record) -> CompensationView:
    return CompensationView(
        task_id=row["task_id"],
        state=row["state"],
        certain=row["certain"],
        attempts=row["attempts"],
        blocked_by=tuple(row["blocked_by"]),
        error_code=row["error_code"],
        error_message=row["error_message"],
        actor=row["actor"],
        updated_at=row["updated_at"],
    )


def _request(
    tenant: str, execution_id: UUID, task_id: str, execution: asyncpg.Record, request_id: UUID
) -> RetryRequest:
    return RetryRequest(
        tenant=tenant,
        execution_id=str(execution_id),
        workflow_id=str(execution["workflow_id"]),
        trace_id=str(execution["trace_id"]),
        task_id=task_id,
        request_id=str(request_id),
    )


def _forbidden(what: str, row: asyncpg.Record) -> InvalidTransitionError:
    state = row["state"]
    if state in UNDONE:
        why = "it is undone"
    elif state == "retrying":
        why = "it is being tried"
    else:
        why = "these must be undone before it: " + ", ".join(row["blocked_by"][:10])
    return InvalidTransitionError(f"cannot {what} the compensation of {row['task_id']}: {why}", state=state)
