"""Hooks, what they have done, and the entries that wait for hook workers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from engine.contracts.hooks import (
    HOOKS_MAX,
    CircuitState,
    DeliveryKey,
    HookCircuit,
    HookDetail,
    HookEntry,
    HookExecution,
    HookExecutionStatus,
    HookRule,
    HookRun,
    HookStatistics,
    HookSummary,
    HookTrigger,
    NewHook,
)
from engine.contracts.kernel import TickProposal
from engine.contracts.views import Page
from engine.errors import HookNameConflictError, HookNotFoundError, InvalidTransitionError, TooLargeError
from engine.hook_ports import ClaimedEntry, HookSwitch, OverdueEntry, RecordedRuns
from engine.postgres.documents import client_document, raw_document, storable_text
from engine.postgres.literals import documents
from engine.postgres.paging import check_limit, decode_token, encode_token
from engine.postgres.pool import Connection, Database, check_tenant

CIRCUIT_SECONDS_MAX: Final = 3600.0
NEWS_SECONDS: Final = 5.0
"""After so long, news of an entry that nobody has taken up is sent again."""


class PostgresHookStore:
    """Implements `engine.ports.HookStore`."""

    def __init__(self, database: Database, circuit_seconds: float) -> None:
        self._database = database
        self._queries = database.queries
        self._circuit_seconds = circuit_seconds

    async def register(self, tenant: str, hook: NewHook, created_by: str) -> HookDetail:
        async with self._database.tenant_connection(tenant) as connection:
            # First: it also makes those who change hooks of one tenant take turns, so that the count is right.
            await connection.execute(self._queries["hooks.changed"], tenant)
            if await connection.fetchval(self._queries["hooks.count"], tenant) >= HOOKS_MAX:
                raise TooLargeError(f"there are {HOOKS_MAX} hooks already: delete some first")
            row = await connection.fetchrow(self._queries["hooks.insert"], tenant, *_columns(hook), created_by)
            if row is None:
                raise HookNameConflictError(f"there is a hook named {hook.name} already")
        return self._detail(row)

    async def get(self, tenant: str, hook_id: UUID) -> HookDetail:
        async with self._database.tenant_connection(tenant) as connection:
            row = await connection.fetchrow(self._queries["hooks.get"], tenant, hook_id)
        return self._detail(_found(row))

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        trigger: HookTrigger | None = None,
        enabled: bool | None = None,
    ) -> Page[HookSummary]:
        check_limit(limit)
        after = decode_token("hooks", page_token, (datetime, UUID)) or [None, None]
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(
                self._queries["hooks.list"], tenant, limit + 1, *after, trigger and trigger.value, enabled
            )
        items = tuple(self._summary(row) for row in rows[:limit])
        last = items[-1] if len(rows) > limit else None
        return Page(
            items=items, next_page_token=encode_token("hooks", (last.created_at, last.hook_id)) if last else None
        )

    async def update(self, tenant: str, hook_id: UUID, hook: NewHook, seen_at: datetime) -> HookDetail:
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(self._queries["hooks.changed"], tenant)
            arguments = (tenant, hook_id, seen_at, *_columns(hook))
            try:
                row = await connection.fetchrow(self._queries["hooks.update"], *arguments)
            except asyncpg.UniqueViolationError as error:
                raise HookNameConflictError(f"there is a hook named {hook.name} already") from error
            if row is None:
                _found(await connection.fetchrow(self._queries["hooks.get"], tenant, hook_id))
                raise InvalidTransitionError("somebody else has changed the hook meanwhile; try again")
        return self._detail(row)

    async def enable(self, tenant: str, hook_id: UUID, *, enabled: bool) -> HookDetail:
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(self._queries["hooks.changed"], tenant)
            row = _found(await connection.fetchrow(self._queries["hooks.enable"], tenant, hook_id, enabled))
        return self._detail(row)

    async def delete(self, tenant: str, hook_id: UUID) -> None:
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(self._queries["hooks.changed"], tenant)
            _found(await connection.fetchrow(self._queries["hooks.delete"], tenant, hook_id))

    async def switch(self, tenant: str) -> HookSwitch:
        async with self._database.tenant_connection(tenant) as connection:
            return await self._switch(connection, tenant)

    async def set_switch(self, tenant: str, *, enabled: bool) -> None:
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(self._queries["hooks.set_switch"], tenant, enabled)

    async def rules(self, tenant: str) -> tuple[HookSwitch, Sequence[HookRule]]:
        async with self._database.tenant_connection(tenant) as connection:
            # Before the hooks: a change that comes between makes the number look old, never the hooks.
            switch = await self._switch(connection, tenant)
            rows = await connection.fetch(self._queries["hooks.rules"], tenant)
        return switch, [HookRule.model_validate(dict(row)) for row in rows]

    async def runnable(self, tenant: str, hook_ids: Sequence[UUID]) -> Sequence[HookDetail]:
        async with self._database.tenant_connection(tenant) as connection:
            if not (await self._switch(connection, tenant)).enabled:
                return []
            rows = await connection.fetch(self._queries["hooks.runnable"], tenant, list(hook_ids))
        return [self._detail(row) for row in rows if row["enabled"]]

    async def executions(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        hook_id: UUID | None = None,
        workflow_execution_id: UUID | None = None,
        status: HookExecutionStatus | None = None,
    ) -> Page[HookExecution]:
        check_limit(limit)
        before = decode_token("hook_executions", page_token, (datetime, UUID)) or [None, None]
        arguments = (*before, hook_id, workflow_execution_id, status and status.value)
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["hooks.executions"], tenant, limit + 1, *arguments)
        items = tuple(HookExecution.model_validate(dict(row) | {"output": row["output"] or ""}) for row in rows[:limit])
        last = items[-1] if len(rows) > limit else None
        token = encode_token("hook_executions", (last.executed_at, last.execution_id)) if last else None
        return Page(items=items, next_page_token=token)

    async def workflow_name(self, tenant: str, workflow_id: UUID) -> str:
        async with self._database.tenant_connection(tenant) as connection:
            name: str | None = await connection.fetchval(self._queries["hooks.workflow_name"], tenant, workflow_id)
        return name or ""

    async def _switch(self, connection: Connection, tenant: str) -> HookSwitch:
        row = await connection.fetchrow(self._queries["hooks.switch"], tenant)
        return HookSwitch() if row is None else HookSwitch(enabled=row["enabled"], revision=row["revision"])

    def _detail(self, row: asyncpg.Record) -> HookDetail:
        total, good = row["total_executions"], row["successful_executions"]
        return HookDetail(
            hook_id=row["hook_id"],
            name=row["name"],
            description=row["description"] or "",
            trigger=row["trigger"],
            event_pattern=row["event_pattern"],
            action={  # type: ignore[arg-type]  # validated, as it came
                "type": row["action_type"],
                "command": row["action_command"],
                "function": row["action_function"],
                "args": row["action_args"],
                "secrets": row["action_secrets"],
            },
            mode=row["mode"],
            on_error=row["on_error"],
            priority=row["priority"],
            enabled=row["enabled"],
            timeout_seconds=row["timeout_seconds"],
            retry_policy=row["retry_policy"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            execution_stats=HookStatistics(
                total_executions=total,
                successful_executions=good,
                failed_executions=total - good,
                average_duration_ms=round(row["duration_ms_total"] / total, 3) if total else 0.0,
            ),
            circuit=self._circuit(row),
        )

    def _circuit(self, row: asyncpg.Record) -> HookCircuit:
        opened_at: datetime | None = row["circuit_opened_at"]
        state, tried_at = CircuitState.CLOSED, None
        if opened_at is not None:
            # Each opening in a row doubles the time.
            pause = min(self._circuit_seconds * 2 ** min(row["circuit_openings"] - 1, 20), CIRCUIT_SECONDS_MAX)
            tried_at = opened_at + timedelta(seconds=pause)
            state = CircuitState.OPEN if datetime.now(opened_at.tzinfo) < tried_at else CircuitState.HALF_OPEN
        return HookCircuit(
            state=state,
            consecutive_failures=row["consecutive_failures"],
            skipped_executions=row["skipped_executions"],
            opened_at=opened_at,
            tried_at=tried_at,
        )

    def _summary(self, row: asyncpg.Record) -> HookSummary:
        names = ("hook_id", "name", "trigger", "mode", "priority", "enabled", "timeout_seconds", "created_at")
        return HookSummary.model_validate({**{name: row[name] for name in names}, "circuit": self._circuit(row).state})


class PostgresHookDeliveries:
    """Implements `engine.ports.HookDeliveries`."""

    def __init__(self, database: Database, circuit_failures: int, circuit_seconds: float) -> None:
        self._database = database
        self._queries = database.queries
        self._circuit_failures = circuit_failures
        self._circuit_seconds = circuit_seconds

    async def claim(
        self, tenant: str, keys: Sequence[DeliveryKey], worker: str, lease_seconds: float
    ) -> Sequence[ClaimedEntry]:
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(
                self._queries["hooks.claim"], tenant, *_key_columns(keys), worker, lease_seconds
            )
        return [
            ClaimedEntry(
                key=DeliveryKey(execution_id=row["execution_id"], tick=row["tick"], position=row["position"]),
                entry=HookEntry.model_validate(row["entry"]),
                claims=row["claims"],
            )
            for row in rows
        ]

    async def renew(self, tenant: str, keys: Sequence[DeliveryKey], worker: str, lease_seconds: float) -> None:
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(self._queries["hooks.renew"], tenant, *_key_columns(keys), worker, lease_seconds)

    async def release(self, tenant: str, worker: str) -> None:
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(self._queries["hooks.release"], tenant, worker)

    async def finish(self, tenant: str, keys: Sequence[DeliveryKey]) -> None:
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(self._queries["hooks.finish"], tenant, *_key_columns(keys))

    async def recorded(self, tenant: str, run_ids: Sequence[UUID]) -> frozenset[UUID]:
        async with self._database.tenant_connection(tenant) as connection:
            rows = await connection.fetch(self._queries["hooks.recorded"], tenant, list(run_ids))
        return frozenset(row["execution_id"] for row in rows)

    async def record(self, tenant: str, runs: Sequence[HookRun]) -> RecordedRuns:
        check_tenant(tenant)
        first = runs[0]
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                self._queries["hooks.record"],
                tenant,
                first.workflow_execution_id,
                first.trace_id,
                [run.execution_id for run in runs],
                [run.hook_id for run in runs],
                [run.hook_name for run in runs],
                [run.status.value for run in runs],
                [storable_text(run.output) for run in runs],
                [None if run.error_message is None else storable_text(run.error_message) for run in runs],
                [run.duration_ms for run in runs],
                [run.attempts for run in runs],
                [run.trigger.value for run in runs],
                [storable_text(run.event_matched) for run in runs],
                [run.refused for run in runs],
                documents([None if run.announcement is None else raw_document(run.announcement) for run in runs]),
                self._circuit_failures,
                self._circuit_seconds,
                CIRCUIT_SECONDS_MAX,
            )
        assert row is not None  # noqa: S101 - a function answers one row
        return RecordedRuns(
            recorded=tuple(row["recorded"]), switched_off=tuple(row["switched_off"]), last_sequence=row["last_sequence"]
        )

    async def skipped(self, tenant: str, hook_ids: Sequence[UUID]) -> None:
        async with self._database.tenant_connection(tenant) as connection:
            await connection.execute(self._queries["hooks.skipped"], tenant, list(hook_ids))

    async def overdue(self, limit: int, again_seconds: float) -> Sequence[OverdueEntry]:
        async with self._database.maintenance_connection() as connection:
            rows = await connection.fetch(self._queries["hooks.overdue"], limit, again_seconds)
        return [
            OverdueEntry(
                tenant=row["tenant"],
                key=DeliveryKey(execution_id=row["execution_id"], tick=row["tick"], position=row["position"]),
                band=row["band"],
            )
            for row in rows
        ]


def delivery_arguments(proposal: TickProposal) -> tuple[Any, ...]:
    """Of the statement that journals a tick's entries. Their news follows the commit at once, so that they are overdue
    soon."""
    entries = proposal.hook_entries
    return (
        proposal.tenant,
        UUID(proposal.execution_id),
        proposal.tick,
        [entry.position for entry in entries],
        [entry.band for entry in entries],
        documents([entry.model_dump_json().encode() for entry in entries]),
        NEWS_SECONDS,
    )


def _found(row: asyncpg.Record | None) -> asyncpg.Record:
    if row is None:
        raise HookNotFoundError("no such hook")
    return row


def _columns(hook: NewHook) -> list[Any]:
    action, retry = hook.action, hook.retry_policy
    return [
        hook.name,
        storable_text(hook.description),
        hook.trigger.value,
        None if hook.event_pattern is None else storable_text(hook.event_pattern),
        action.type,
        None if action.command is None else storable_text(action.command),
        None if action.function is None else storable_text(action.function),
        client_document(list(action.args)),
        client_document(action.secrets),
        hook.mode.value,
        hook.on_error,
        hook.priority,
        hook.enabled,
        hook.timeout_seconds,
        None if retry is None else client_document(retry.model_dump()),
    ]


def _key_columns(keys: Sequence[DeliveryKey]) -> tuple[list[UUID], list[int], list[int]]:
    return [key.execution_id for key in keys], [key.tick for key in keys], [key.position for key in keys]
