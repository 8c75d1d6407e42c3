"""What hooks need of the world, as protocols, beside `engine.ports` and by its rules."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from engine.contracts.hooks import (
    DeliveryKey,
    HookDetail,
    HookEntry,
    HookExecution,
    HookExecutionStatus,
    HookRule,
    HookRun,
    HookSummary,
    HookTrigger,
    NewHook,
)
from engine.contracts.model import Model
from engine.contracts.views import Page


class HookSwitch(Model):
    """Whether a tenant's hooks run at all, and a number that rises with every change of them."""

    enabled: bool = True
    revision: int = 0


class HookRules(Protocol):
    """What matching keeps in memory."""

    async def switch(self, tenant: str) -> HookSwitch: ...

    async def rules(self, tenant: str) -> tuple[HookSwitch, Sequence[HookRule]]:
        """The enabled hooks, in the order in which they run, and the revision that they are at least of."""
        ...


class HookStore(HookRules, Protocol):
    """Registered hooks. Implemented by `engine.postgres.hooks`. Unknown ids raise HookNotFoundError."""

    async def register(self, tenant: str, hook: NewHook, created_by: str) -> HookDetail:
        """Raises HookNameConflictError, TooLargeError (too many hooks)."""
        ...

    async def get(self, tenant: str, hook_id: UUID) -> HookDetail: ...

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        trigger: HookTrigger | None = None,
        enabled: bool | None = None,
    ) -> Page[HookSummary]:
        """The oldest first."""
        ...

    async def update(self, tenant: str, hook_id: UUID, hook: NewHook, seen_at: datetime) -> HookDetail:
        """Raises InvalidTransitionError when it was changed after `seen_at`, HookNameConflictError."""
        ...

    async def enable(self, tenant: str, hook_id: UUID, *, enabled: bool) -> HookDetail:
        """Also closes its circuit."""
        ...

    async def delete(self, tenant: str, hook_id: UUID) -> None: ...

    async def set_switch(self, tenant: str, *, enabled: bool) -> None: ...

    async def runnable(self, tenant: str, hook_ids: Sequence[UUID]) -> Sequence[HookDetail]:
        """Those of them that are there and enabled at present; none while the tenant's hooks are off."""
        ...

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
        """Newest first."""
        ...


class ClaimedEntry(Model):
    """An entry that is this worker's until its lease ends."""

    key: DeliveryKey
    entry: HookEntry
    claims: int
    """How often it was taken up, this time included."""


class RecordedRuns(Model):
    recorded: tuple[UUID, ...]
    """Those that were not recorded before."""
    switched_off: tuple[UUID, ...]
    """Hooks whose circuit these runs opened."""
    last_sequence: int


class OverdueEntry(Model):
    tenant: str
    key: DeliveryKey
    band: int


class HookDeliveries(Protocol):
    """Entries that committed ticks left for hook workers. Implemented by `engine.postgres.hooks`."""

    async def claim(
        self, tenant: str, keys: Sequence[DeliveryKey], worker: str, lease_seconds: float
    ) -> Sequence[ClaimedEntry]:
        """Those that are there and nobody else's."""
        ...

    async def renew(self, tenant: str, keys: Sequence[DeliveryKey], worker: str, lease_seconds: float) -> None: ...

    async def release(self, tenant: str, worker: str) -> None:
        """The worker stops: others may have what it did not finish."""
        ...

    async def finish(self, tenant: str, keys: Sequence[DeliveryKey]) -> None:
        """They are done with, and gone."""
        ...

    async def recorded(self, tenant: str, run_ids: Sequence[UUID]) -> frozenset[UUID]: ...

    async def record(self, tenant: str, runs: Sequence[HookRun]) -> RecordedRuns:
        """Runs of one execution (or of none), once each: records, statistics, circuits, events."""
        ...

    async def skipped(self, tenant: str, hook_ids: Sequence[UUID]) -> None: ...

    async def overdue(self, limit: int, again_seconds: float) -> Sequence[OverdueEntry]:
        """Across tenants: entries that nobody has taken up in time, or whose worker has died."""
        ...


class HookQueue(Protocol):
    """The streams of entries, one a tenant and band. Implemented by `engine.events.hook_queue`."""

    async def put(self, tenant: str, entries: Sequence[HookEntry]) -> None:
        """Tell hook workers. Losing it is allowed: overdue entries are told of again."""
        ...

    async def changed(self, tenant: str) -> None:
        """Tell whoever keeps the tenant's hooks in memory. Losing it is allowed."""
        ...
