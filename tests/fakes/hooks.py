"""Hooks in memory, with the same rules as the real stores; actions that do what a test says; a queue that answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from engine.contracts.hook_actions import HookAction
from engine.contracts.hooks import (
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
from engine.contracts.views import Page
from engine.errors import (
    HookNameConflictError,
    HookNotFoundError,
    InvalidHookActionError,
    InvalidTransitionError,
    UnavailableError,
)
from engine.hook_ports import ClaimedEntry, HookSwitch, OverdueEntry, RecordedRuns
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from tests.fakes.stores import page_of


def new_hook(name: str = "", **fields: Any) -> NewHook:
    return NewHook.model_validate(
        {
            "name": name or f"hook-{uuid4().hex[:8]}",
            "trigger": "post_task",
            "action": {"type": "function", "function": "noop"},
            **fields,
        }
    )


class FakeHookStore:
    def __init__(self) -> None:
        self.hooks: dict[tuple[str, UUID], HookDetail] = {}
        self.switches: dict[str, HookSwitch] = {}
        self.runs: list[tuple[str, HookRun]] = []
        self.available = True
        self.asked = 0

    def add(self, tenant: str, hook: NewHook, **fields: Any) -> HookDetail:
        now = datetime.now(UTC)
        made = HookDetail(**dict(hook), hook_id=uuid4(), created_at=now, updated_at=now)
        made = made.model_copy(update=fields)
        self.hooks[tenant, made.hook_id] = made
        self._changed(tenant)
        return made

    def replace(self, tenant: str, hook_id: UUID, **fields: Any) -> HookDetail:
        now = datetime.now(UTC)
        self.hooks[tenant, hook_id] = self._row(tenant, hook_id).model_copy(update={**fields, "updated_at": now})
        self._changed(tenant)
        return self.hooks[tenant, hook_id]

    def _row(self, tenant: str, hook_id: UUID) -> HookDetail:
        try:
            return self.hooks[tenant, hook_id]
        except KeyError:
            raise HookNotFoundError("no such hook") from None

    def _changed(self, tenant: str) -> None:
        now = self.switches.get(tenant, HookSwitch())
        self.switches[tenant] = HookSwitch(enabled=now.enabled, revision=now.revision + 1)

    async def register(self, tenant: str, hook: NewHook, created_by: str) -> HookDetail:
        if any(owner == tenant and row.name == hook.name for (owner, _), row in self.hooks.items()):
            raise HookNameConflictError(f"there is a hook named {hook.name} already")
        return self.add(tenant, hook)

    async def get(self, tenant: str, hook_id: UUID) -> HookDetail:
        return self._row(tenant, hook_id)

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        trigger: HookTrigger | None = None,
        enabled: bool | None = None,
    ) -> Page[HookSummary]:
        names = set(HookSummary.model_fields) - {"circuit"}
        items = [
            HookSummary(**row.model_dump(include=names), circuit=row.circuit.state)
            for (owner, _), row in self.hooks.items()
            if owner == tenant and trigger in (None, row.trigger) and enabled in (None, row.enabled)
        ]
        return page_of(items, limit, page_token)

    async def update(self, tenant: str, hook_id: UUID, hook: NewHook, seen_at: datetime) -> HookDetail:
        if self._row(tenant, hook_id).updated_at != seen_at:
            raise InvalidTransitionError("changed meanwhile")
        return self.replace(tenant, hook_id, **dict(hook))

    async def enable(self, tenant: str, hook_id: UUID, *, enabled: bool) -> HookDetail:
        return self.replace(tenant, hook_id, enabled=enabled, circuit=HookCircuit())

    async def delete(self, tenant: str, hook_id: UUID) -> None:
        self._row(tenant, hook_id)
        del self.hooks[tenant, hook_id]
        self._changed(tenant)

    async def switch(self, tenant: str) -> HookSwitch:
        self.asked += 1
        if not self.available:
            raise UnavailableError("PostgreSQL does not answer")
        return self.switches.get(tenant, HookSwitch())

    async def set_switch(self, tenant: str, *, enabled: bool) -> None:
        self._changed(tenant)
        self.switches[tenant] = self.switches[tenant].model_copy(update={"enabled": enabled})

    async def rules(self, tenant: str) -> tuple[HookSwitch, Sequence[HookRule]]:
        switch = await self.switch(tenant)
        rows = [row for (owner, _), row in self.hooks.items() if owner == tenant and row.enabled]
        rows.sort(key=lambda row: (row.priority, row.created_at))
        return switch, [HookRule(**row.model_dump(include=set(HookRule.model_fields))) for row in rows]

    async def runnable(self, tenant: str, hook_ids: Sequence[UUID]) -> Sequence[HookDetail]:
        if not (await self.switch(tenant)).enabled:
            return []
        found = [self.hooks.get((tenant, hook_id)) for hook_id in hook_ids]
        return [hook for hook in found if hook is not None and hook.enabled]

    async def workflow_name(self, tenant: str, workflow_id: UUID) -> str:
        return "build"

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
        items = [
            HookExecution(**run.model_dump(include=set(HookExecution.model_fields)), executed_at=datetime.now(UTC))
            for owner, run in reversed(self.runs)
            if owner == tenant
            and hook_id in (None, run.hook_id)
            and workflow_execution_id in (None, run.workflow_execution_id)
            and status in (None, run.status)
        ]
        return page_of(items, limit, page_token)


class FakeDeliveries:
    """Entries and records; `hooks` gets the statistics."""

    def __init__(self, hooks: FakeHookStore) -> None:
        self.hooks = hooks
        self.entries: dict[tuple[str, DeliveryKey], HookEntry] = {}
        self.claims: dict[tuple[str, DeliveryKey], tuple[str, int]] = {}
        self.late: list[OverdueEntry] = []
        self.skips: list[UUID] = []
        self.renewed: list[DeliveryKey] = []
        self.released: list[str] = []
        self.switched_off: tuple[UUID, ...] = ()
        self.failures: list[Exception] = []
        """Raised by the next calls that write."""

    def deliver(self, tenant: str, entry: HookEntry) -> DeliveryKey:
        key = DeliveryKey(execution_id=UUID(entry.execution_id), tick=entry.tick, position=entry.position)
        self.entries[tenant, key] = entry
        return key

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    async def claim(
        self, tenant: str, keys: Sequence[DeliveryKey], worker: str, lease_seconds: float
    ) -> Sequence[ClaimedEntry]:
        found = []
        for key in keys:
            owner, claims = self.claims.get((tenant, key), (worker, 0))
            if (tenant, key) in self.entries and owner == worker:
                self.claims[tenant, key] = (worker, claims + 1)
                found.append(ClaimedEntry(key=key, entry=self.entries[tenant, key], claims=claims + 1))
        return found

    async def renew(self, tenant: str, keys: Sequence[DeliveryKey], worker: str, lease_seconds: float) -> None:
        self.renewed += keys

    async def release(self, tenant: str, worker: str) -> None:
        self.released.append(tenant)

    async def finish(self, tenant: str, keys: Sequence[DeliveryKey]) -> None:
        self._fail()
        for key in keys:
            self.entries.pop((tenant, key), None)

    async def recorded(self, tenant: str, run_ids: Sequence[UUID]) -> frozenset[UUID]:
        return frozenset(run.execution_id for _, run in self.hooks.runs if run.execution_id in run_ids)

    async def record(self, tenant: str, runs: Sequence[HookRun]) -> RecordedRuns:
        self._fail()
        self.hooks.runs += [(tenant, run) for run in runs]
        for run in runs:
            row = self.hooks.hooks.get((tenant, run.hook_id))
            if row is not None:
                stats = row.execution_stats
                self.hooks.hooks[tenant, run.hook_id] = row.model_copy(
                    update={"execution_stats": HookStatistics(total_executions=stats.total_executions + 1)}
                )
        for hook_id in self.switched_off:
            opened = HookCircuit(state=CircuitState.OPEN, opened_at=datetime.now(UTC))
            row = self.hooks.hooks[tenant, hook_id]
            self.hooks.hooks[tenant, hook_id] = row.model_copy(update={"circuit": opened})
        ids = tuple(run.execution_id for run in runs)
        return RecordedRuns(recorded=ids, switched_off=self.switched_off, last_sequence=7)

    async def skipped(self, tenant: str, hook_ids: Sequence[UUID]) -> None:
        self.skips += hook_ids

    async def overdue(self, limit: int, again_seconds: float) -> Sequence[OverdueEntry]:
        late, self.late = self.late, []
        return late


Behaviour = Callable[[HookContext], Awaitable[ActionOutcome] | ActionOutcome]


def good(output: str = "") -> ActionOutcome:
    return ActionOutcome(status="completed", output=output, duration_ms=1)


def bad(code: str = "FAILED", **fields: Any) -> ActionOutcome:
    return ActionOutcome(**{"status": "failed", "error_code": code, "error_message": "no", "duration_ms": 1, **fields})


class FakeActions:
    """Does for each hook what `behave` says; by default it succeeds."""

    def __init__(self) -> None:
        self.behaviour: dict[str, Behaviour] = {}
        self.calls: list[HookContext] = []
        self.refuses: set[str] = set()

    @property
    def names(self) -> list[str | None]:
        return [context.hook_name for context in self.calls]

    def behave(self, name: str, behaviour: Behaviour) -> None:
        self.behaviour[name] = behaviour

    def check(self, action: HookAction) -> None:
        name = action.function or action.command or ""
        if name in self.refuses:
            raise InvalidHookActionError("it is not allowed", reason="NOT_ALLOWED", field="action", remedy="another")

    async def run(self, action: HookAction, context: HookContext, timeout_seconds: float) -> ActionOutcome:
        self.calls.append(context)
        behaviour = self.behaviour.get(context.hook_name or "")
        if behaviour is None:
            return good()
        outcome = behaviour(context)
        return outcome if isinstance(outcome, ActionOutcome) else await outcome


class FakeHookQueue:
    """What was put, told and asked; `answer` is what a hook worker would say."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, HookEntry]] = []
        self.changes: list[str] = []
        self.requests: list[tuple[str, dict[str, Any], float]] = []
        self.replies: dict[str, dict[str, Any]] = {}
        self.again: list[OverdueEntry] = []
        self.answer: dict[str, Any] | None = None

    async def put(self, tenant: str, entries: Sequence[HookEntry]) -> None:
        self.entries += [(tenant, entry) for entry in entries]

    async def put_again(self, overdue: Sequence[OverdueEntry]) -> None:
        self.again += overdue

    async def changed(self, tenant: str) -> None:
        self.changes.append(tenant)

    async def ask(self, tenant: str, request: dict[str, Any], timeout_seconds: float) -> dict[str, Any] | None:
        self.requests.append((tenant, request, timeout_seconds))
        await asyncio.sleep(0)
        return self.answer

    async def reply(self, tenant: str, request_id: str, answer: dict[str, Any]) -> None:
        self.replies[request_id] = answer
