"""What the engine needs of the world, as protocols. Implementations live in the packages named beside each.

Every method is tenant-scoped by its first argument; "not the caller's" and "not there" are the same
`NotFoundError`. Methods raise `engine.errors` only: drivers' errors are wrapped where they arise.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

from engine.contracts.capacity import CapacityReport, CapacityUse, Demand, QueueState, Turn, Waiting
from engine.contracts.compensation import (
    CompensationAnswer,
    CompensationView,
    PendingRetry,
    RetryOutcome,
    RetryRequest,
    TaskToUndo,
)
from engine.contracts.dead_letters import DeadLetterDetail, DeadLetterPage, DeadLettersPurged, DeadLettersReplayed
from engine.contracts.execution import ExecutionStatus, Priority
from engine.contracts.hosts import Dedication
from engine.contracts.kernel import BindRequest, BindResult, Control, Delta, ExecutionInput, TickProposal
from engine.contracts.model import Model
from engine.contracts.patterns.language import PatternRegistration
from engine.contracts.patterns.registered import PatternSummary, RegisteredPattern
from engine.contracts.plan import Plan
from engine.contracts.statistics import Statistics
from engine.contracts.views import (
    CheckpointView,
    ExecutionEvent,
    ExecutionSummary,
    ExecutionView,
    OperationRecord,
    Page,
    TaskProgress,
    TaskResultView,
    WorkflowDetail,
    WorkflowSummary,
)
from engine.contracts.voting import CountedRound


class DefinitionStore(Protocol):
    """Definitions with their plans. Implemented by `engine.postgres.definitions`."""

    async def create(
        self, tenant: str, definition: dict[str, Any], content_hash: str, plan: Plan, created_by: str
    ) -> tuple[UUID, bool]:
        """Store it; returns (workflow_id, created). The same name, version and content answers the same id.

        Raises InvalidDefinitionError when other content stands under that name and version.
        """
        ...

    async def get(self, tenant: str, workflow_id: UUID) -> WorkflowDetail: ...

    async def get_plan(self, tenant: str, workflow_id: UUID) -> Plan: ...

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        name: str | None = None,
        pattern: str | None = None,
    ) -> Page[WorkflowSummary]: ...

    async def delete(self, tenant: str, workflow_id: UUID) -> None:
        """Soft: running history keeps its definition. Raises AlreadyExecutingError while one is open."""
        ...


class PatternStore(Protocol):
    """Patterns that tenants have registered. Implemented by `engine.postgres.patterns`."""

    async def register(
        self, tenant: str, registration: PatternRegistration, content_hash: str, created_by: str
    ) -> tuple[UUID, bool]:
        """Store it; returns (pattern_id, created). The same name, version and content answers the same id.

        Raises PatternConflictError when other content stands under that name and version.
        """
        ...

    async def get(self, tenant: str, name: str, version: str | None = None) -> RegisteredPattern:
        """That version, or the one that was registered last. Raises NotFoundError."""
        ...

    async def list(self, tenant: str, *, limit: int, page_token: str | None) -> Page[PatternSummary]:
        """By name and version."""
        ...


class PlannedExecution(Model):
    """The row that is there before Temporal hears of the execution."""

    execution_id: UUID
    workflow_id: UUID
    status: ExecutionStatus
    created: bool
    started_at: datetime
    waiting: bool = False
    """For capacity: the scheduler launches it when its turn comes."""


class Committed(Model):
    """What the journal answers to a tick."""

    ticks: tuple[Delta, ...]
    own: bool
    """True when the first of `ticks` is the proposal itself, stored just now."""
    more: bool
    control: Control | None
    last_sequence: int
    stored_texts: tuple[str, ...] = ()
    now_ms: int
    status: ExecutionStatus | None = None
    """The execution's status after it. When it is closed and `ticks` is empty, the execution was closed from outside:
    nothing was stored and nothing more will be."""
    facts: tuple[bytes, ...] = ()
    """Payloads of the proposal's audit events, as they were stored; empty unless it is `own`."""
    earlier: tuple[ExecutionEvent, ...] = ()
    """With an execution's first tick: the facts that were there before it."""


class ExecutionStore(Protocol):
    """Executions: the read model and what the API asks of them. Implemented by `engine.postgres.executions`."""

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
        """Insert the `planning` row and its first audit event, or find the one with that id (created=False).

        Where the engine's capacity is short (`demand` is what it takes; the roles' agents when None), it is `waiting`.

        Raises TooManyRequestsError (too many wait, and this one has low priority), AlreadyExecutingError (an open
        execution of the workflow), IdempotencyConflictError (the same id with another `request_hash`), NotFoundError
        (no such workflow).
        """
        ...

    async def status(self, tenant: str, execution_id: UUID, *, include_tasks: bool = True) -> ExecutionView: ...

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        status: str | None = None,
        workflow_id: UUID | None = None,
    ) -> Page[ExecutionSummary]: ...

    async def tasks(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None, state: str | None = None
    ) -> Page[TaskProgress]: ...

    async def events(
        self, tenant: str, execution_id: UUID, *, after_sequence: int, limit: int
    ) -> tuple[Sequence[ExecutionEvent], bool]:
        """Audit events with a greater sequence, in order, and whether there are more."""
        ...

    async def last_sequence(self, tenant: str, execution_id: UUID) -> int:
        """Of its newest audit event."""
        ...

    async def counted_rounds(
        self, tenant: str, execution_id: UUID, *, task_id: str | None, round_number: int | None, limit: int
    ) -> Sequence[CountedRound]:
        """Votes with their last count, of one task or of all, in the order of the tasks' names."""
        ...

    async def checkpoints(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None
    ) -> Page[CheckpointView]: ...

    async def checkpoint(self, tenant: str, execution_id: UUID, checkpoint_id: UUID) -> CheckpointView:
        """Raises CheckpointNotFoundError."""
        ...

    async def request_control(
        self, tenant: str, execution_id: UUID, control: Control
    ) -> tuple[ExecutionStatus, Control]:
        """Write the control row; returns the present status and the request that is in force.

        The same request_id twice is one request. Asking again for what is asked already (a second pause while the
        first is pending) keeps the first, whose checkpoint the caller then waits for.
        Raises InvalidTransitionError when the present status forbids the action.
        """
        ...

    async def pending_control(self, tenant: str, execution_id: UUID) -> Control | None:
        """The control row that no tick has obeyed yet."""
        ...

    async def close_from_outside(
        self, tenant: str, execution_id: UUID, status: ExecutionStatus, code: str, message: str
    ) -> bool:
        """Close an execution whose Temporal run ended without its own last tick (terminated, failed). True if done."""
        ...


class Journal(Protocol):
    """The tick journal. Implemented by `engine.postgres.journal`."""

    async def commit(self, proposal: TickProposal) -> Committed:
        """One transaction: store the tick if it is the next one, with audit and read model; answer what is stored."""
        ...

    async def load_stream_writes(self, tenant: str, execution_id: UUID, ticks: Sequence[int]) -> Sequence[Delta]: ...


class StoredBody(Model):
    """What dispatch needs of one execution, beside the plan: immutable, cached by execution."""

    execution_id: str
    workflow_id: str
    input_data: dict[str, Any]
    definition: dict[str, Any]
    trace_id: str


class DispatchStore(Protocol):
    """Bodies of tasks and results of their dependencies. Implemented by `engine.postgres.dispatch`."""

    async def body(self, tenant: str, execution_id: UUID) -> StoredBody: ...

    async def results(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> dict[str, Any]:
        """Results by task id, references resolved."""
        ...

    async def result(self, tenant: str, execution_id: UUID, task_id: str) -> TaskResultView:
        """A completed task's result, its reference resolved.

        Raises the same NotFoundError for an unknown execution, an unknown task, and a task without a result.
        """
        ...

    async def put_payload(self, tenant: str, execution_id: UUID, payload: bytes) -> str:
        """Store a large JSON document; returns its reference, a content hash. Idempotent."""
        ...

    async def payload(self, tenant: str, execution_id: UUID, reference: str) -> bytes:
        """The document behind a reference. Raises NotFoundError."""
        ...


class CompensationStore(Protocol):
    """What is undone, beside the journal. Implemented by `engine.postgres.compensations`."""

    async def task(self, tenant: str, execution_id: UUID, task_id: str) -> TaskToUndo:
        """What is stored of a task that is to be undone; nothing of one that never had a row."""
        ...

    async def list(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None
    ) -> Page[CompensationView]:
        """Steps that were left to an operator, in the order of undoing. Raises NotFoundError."""
        ...

    async def begin_retry(self, tenant: str, execution_id: UUID, task_id: str, actor: str) -> RetryRequest:
        """Note that it is to be tried again. Asked again before that has begun, it answers the same.

        Raises NotFoundError, InvalidTransitionError (it is undone, or waits for others).
        """
        ...

    async def mark_done(
        self, tenant: str, execution_id: UUID, task_id: str, actor: str, reason: str | None
    ) -> tuple[CompensationAnswer, RetryRequest | None]:
        """Undone by other means. With a request when what had to wait for it can be undone now.

        Raises NotFoundError, InvalidTransitionError.
        """
        ...

    async def next_retry(self, request: RetryRequest) -> PendingRetry | None:
        """The next step that this request is to have tried again."""
        ...

    async def settle_retry(self, outcome: RetryOutcome) -> None:
        """Store what came of a try, with an event; what had to wait for it is to be tried then. Safe to repeat."""
        ...


class PlanStore(Protocol):
    """Plans by content hash. Implemented by `engine.postgres.plans`."""

    async def plan(self, tenant: str, plan_hash: str) -> str:
        """The plan as JSON. Raises NotFoundError."""
        ...


class PayloadStore(Protocol):
    """Large documents of executions by content hash. Implemented by `engine.postgres.dispatch`."""

    async def put_payload(self, tenant: str, execution_id: UUID, payload: bytes) -> str: ...

    async def payload(self, tenant: str, execution_id: UUID, reference: str) -> bytes: ...


class TaskAddition(Model):
    """What dispatch must know of a task beyond the definition."""

    parent: str | None = None
    """The `for_each` task of an element, or the task whose result added this one."""
    element: int | None = None
    items_ref: str | None = None
    """Where the list is whose element it is."""
    body: dict[str, Any] | None = None
    """Of a spawned task, or of an element's spawned `for_each` task."""
    waits_for: tuple[str, ...] = ()
    """Dependencies that were added."""
    has_event: bool = False
    event: Any = None
    """The payload of the event that set it off."""


class CachedResult(Model):
    """An equal task's result, stored for the execution that takes it."""

    result: Any = None
    result_ref: str | None = None


class GraphStore(Protocol):
    """Graphs that change while they run. Implemented by `engine.postgres.dynamic`."""

    async def describe(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> Mapping[str, TaskAddition]:
        """By task id; also of tasks of which there is nothing to say."""
        ...

    async def event_payloads(self, tenant: str, execution_id: UUID, event_ids: Sequence[str]) -> Mapping[str, Any]: ...

    async def take_results(
        self, tenant: str, execution_id: UUID, keys: Mapping[str, str], days: float
    ) -> Mapping[str, CachedResult]:
        """Results not older than that, by task id; `keys` are hashes of all that decides a task's result.

        The keys of the others are remembered, so that the commits of their results keep them for later.
        """
        ...


class OpenExecution(Model):
    """An execution that the reconciler looks after."""

    tenant: str
    execution_id: UUID
    status: ExecutionStatus
    last_tick: int
    base_tick: int
    updated_at: datetime
    launch: dict[str, Any] | None = None


class MaintenanceStore(Protocol):
    """Across tenants, as the maintenance role. Implemented by `engine.postgres.maintenance`."""

    async def unlaunched(self, older_than_seconds: float, limit: int) -> Sequence[OpenExecution]:
        """`planning` rows with no tick, with `launch`: Temporal may not have heard of them."""
        ...

    async def behind(self, quiet_seconds: float, limit: int) -> Sequence[OpenExecution]:
        """Open executions whose journal is ahead of what Temporal's history held, and quiet for that long."""
        ...

    async def open_executions(self, after: UUID | None, limit: int) -> Sequence[OpenExecution]: ...

    async def launch_document(self, tenant: str, execution_id: UUID) -> dict[str, Any] | None:
        """What the execution was launched with; None when there is none.

        A plan that is stored by itself stands in its place as a `KernelPlan`; in listings, its reference does.
        """
        ...

    async def executions_using_host(self, tenant: str, host_id: str) -> Sequence[UUID]: ...

    async def executions_missing_hosts(self, tenant: str, agent_type: str) -> Sequence[UUID]: ...

    async def is_closed(self, tenant: str, execution_id: UUID) -> bool | None:
        """None when there is no such execution."""
        ...

    async def completed_tasks(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> Sequence[str]:
        """Those of them whose result was counted."""
        ...

    async def write_progress(self, tenant: str, updates: Sequence[tuple[UUID, str, int, float]]) -> None:
        """Coalesced progress: (execution, task, attempt, 0.0 to 1.0). Only running attempts take it."""
        ...

    def leader(self, name: str) -> AbstractAsyncContextManager[bool]:
        """A session-level advisory lock: True for the one process that holds it."""
        ...


class Published(Model):
    """An execution whose facts must all reach the streams."""

    tenant: str
    execution_id: UUID
    workflow_id: UUID
    trace_id: UUID
    last_sequence: int
    completed_at: datetime | None = None


class DeadLetterBox(Protocol):
    """What could not be delivered, of one tenant. Implemented by `engine.events.dead_letters`."""

    async def page(self, tenant: str, *, limit: int, page_token: str | None) -> DeadLetterPage: ...

    async def get(self, tenant: str, letter_id: str) -> DeadLetterDetail:
        """Raises NotFoundError."""
        ...

    async def replay(self, tenant: str, letter_ids: Sequence[str] | None) -> DeadLettersReplayed:
        """These, or with None the oldest ones."""
        ...

    async def purge(self, tenant: str, letter_ids: Sequence[str] | None) -> DeadLettersPurged:
        """These, or with None all."""
        ...


class PublicationStore(Protocol):
    """Which executions have facts to publish, across tenants. Implemented by `engine.postgres.publications`."""

    async def open_executions(self, after: UUID | None, limit: int) -> Sequence[Published]:
        """By id, after that one."""
        ...

    async def closed_executions(self, closed_after: datetime, limit: int) -> Sequence[Published]:
        """Not confirmed yet, closed later than that, the earliest first."""
        ...

    async def facts(self, tenant: str, execution_id: UUID, after_sequence: int, limit: int) -> Sequence[ExecutionEvent]:
        """In order; fewer than `limit` when there are no more."""
        ...

    async def confirm(self, executions: Sequence[Published]) -> None:
        """All their facts are published, for good: they need not be looked at again."""
        ...


class RetentionStore(Protocol):
    """Deletes what is old, across tenants, as the maintenance role. Implemented by `engine.postgres.retention`.

    Each call deletes one batch, so that none holds locks for long.
    """

    def leader(self, name: str) -> AbstractAsyncContextManager[bool]:
        """As `MaintenanceStore.leader`."""
        ...

    async def journals(
        self, older_than_days: float, limit: int, closed_from: datetime | None = None
    ) -> Sequence[tuple[str, UUID, datetime]]:
        """(tenant, execution, closed at) of executions closed longer ago that still have their journal, oldest first;
        only those closed at `closed_from` or later."""
        ...

    async def delete_journal(self, tenant: str, execution_id: UUID) -> None:
        """Once Temporal has closed it too: until then its workflow may ask for its ticks."""
        ...

    async def expired(self, older_than_days: float, limit: int) -> Sequence[tuple[str, UUID]]:
        """Executions without a journal that were closed longer ago than that, oldest first."""
        ...

    async def delete_execution(self, tenant: str, execution_id: UUID) -> None:
        """With everything of it, and its plan when no other execution refers to it."""
        ...

    async def delete_gone_hosts(self, older_than_days: float, limit: int) -> int:
        """Returns how many."""
        ...

    async def delete_host_history(self, older_than_days: float, limit: int) -> int: ...

    async def delete_unused_plans(self, older_than_days: float, limit: int) -> int:
        """Plans that were stored so long ago and that no execution refers to."""
        ...

    async def delete_cached_results(self, older_than_days: float, limit: int) -> int: ...

    async def delete_idempotency_keys(self, older_than_days: float, limit: int) -> int: ...

    async def delete_operations(self, older_than_days: float, limit: int) -> int: ...

    async def delete_hook_executions(self, older_than_days: float, limit: int) -> int: ...

    async def delete_hook_deliveries(self, older_than_days: float, limit: int) -> int: ...

    async def prepare_event_partitions(self, days: int, ahead: int) -> int:
        """So many ahead of now, of so many days each; returns how many were made."""
        ...

    async def drop_event_partitions(self, older_than_days: float) -> tuple[int, int]:
        """Those that ended longer ago, but for the events of executions that are there; returns how many were dropped,
        and how many stay for such executions."""
        ...

    async def delete_events_without_partition(self, older_than_days: float, limit: int) -> int:
        """Of executions that are gone, and that no partition had been made for."""
        ...


class StatisticsReader(Protocol):
    """Implemented by `engine.postgres.statistics`."""

    async def report(
        self, tenant: str, *, limit: int, page_token: str | None = None, workflow_id: UUID | None = None
    ) -> Statistics:
        """As they were counted last; `workflow_id` chooses among the workflows, not what is summed up."""
        ...


class StatisticsStore(StatisticsReader, Protocol):
    """Counts them, as the maintenance role."""

    def leader(self, name: str) -> AbstractAsyncContextManager[bool]:
        """As `MaintenanceStore.leader`."""
        ...

    async def tenants(self, after: str, limit: int) -> Sequence[str]:
        """Those with something to count or to forget, in order."""
        ...

    async def refresh(self, tenant: str) -> None: ...


class CapacityReader(Protocol):
    """What people may see of it. Implemented by `engine.postgres.capacity`."""

    async def report(self, tenant: str) -> CapacityReport:
        """The whole engine's totals and the tenant's own numbers; nothing of other tenants."""
        ...


class CapacityStore(CapacityReader, Protocol):
    """What runs and what waits, across tenants, as the maintenance role. Implemented by `engine.postgres.capacity`."""

    async def totals(self) -> CapacityUse: ...

    async def start_waiting(
        self, choose: Callable[[QueueState, int], Turn], limit: int
    ) -> tuple[Sequence[OpenExecution], Sequence[Waiting]]:
        """Let `choose` say who starts now, at most `limit`, while nobody else starts; and mark those as started.

        Returns them with their launch documents, and those that can never start. What is marked and not launched (a
        crash between the two) is among `MaintenanceStore.unlaunched`.
        """
        ...

    async def recount(self) -> bool:
        """Make claims and sums agree with the open executions again. True when something was wrong."""
        ...


class HostRecord(Model):
    """One host process of agents, as it registered itself. A host takes a new id each time it starts."""

    host_id: str
    types: tuple[str, ...]
    capabilities: tuple[str, ...] | Literal["*"] = "*"
    slots: int
    features: tuple[str, ...] = ()
    """What it understands beyond the basic protocol: `chains`."""
    pid: int | None = None
    state: Literal["live", "gone"] = "live"
    suspect_since: datetime | None = None
    """Silent for longer than it usually is: nothing new is to go there. Changed by `HostHealthStore` only."""
    speed: float = 1.0
    """By which it is to be given work: 1.0 is that of most of its type. Changed by `HostHealthStore` only."""
    dedicated_to: Dedication | None = None
    registered_at: datetime
    last_seen: datetime


class HostStore(Protocol):
    """Host processes of agents. Implemented by `engine.postgres.hosts`."""

    async def upsert(self, tenant: str, hosts: Sequence[HostRecord]) -> Sequence[str]:
        """Register them or note that they were seen. Returns the ids that are gone already: gone is for good."""
        ...

    async def live(self, tenant: str, agent_type: str, limit: int) -> Sequence[HostRecord]:
        """Live hosts that serve the type and are dedicated to nobody, the longest registered first."""
        ...

    async def live_for(
        self, tenant: str, execution_id: str, limit: int, *, gone_too: bool = False
    ) -> Sequence[HostRecord]:
        """Hosts that are dedicated to agents of that execution, live ones first."""
        ...

    async def pooled(self, tenant: str, agent_type: str, limit: int) -> Sequence[HostRecord]:
        """Live hosts that wait in the type's pool, the longest registered first."""
        ...

    async def claim(self, tenant: str, host_id: str, execution_id: str, agent_id: str) -> bool:
        """Dedicate a host of a pool to an agent. False when somebody else was first, it is gone, or the agent has a
        live host of its own already."""
        ...

    async def mark_gone(self, tenant: str, host_ids: Sequence[str]) -> Sequence[str]:
        """Returns those that were live until now."""
        ...

    async def page(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        agent_type: str | None = None,
        state: str | None = None,
    ) -> Page[HostRecord]: ...

    async def silent(self, older_than_seconds: float, limit: int) -> Sequence[tuple[str, HostRecord]]:
        """Across tenants: (tenant, host) of live hosts not seen for that long."""
        ...


class OperationLog(Protocol):
    """The audit log of operations. Implemented by `engine.postgres.operations`."""

    async def record(self, tenant: str, operation: OperationRecord) -> None: ...

    async def list(self, tenant: str, *, limit: int, page_token: str | None) -> Page[dict[str, Any]]: ...


class Launcher(Protocol):
    """Temporal, as far as the engine steers executions through it. Implemented by `engine.temporal.launcher`."""

    async def launch(self, launch: ExecutionInput) -> None:
        """Start the pattern's workflow; does nothing when that id was started before."""
        ...

    async def signal(self, tenant: str, execution_id: UUID, name: str, *args: Any) -> None:
        """Raises NotFoundError when no such run is open; UnavailableError when Temporal does not answer."""
        ...

    async def retry_compensations(self, request: RetryRequest) -> None:
        """Start the workflow that retries what operators ask for, unless it runs."""
        ...

    async def closed_status(self, tenant: str, execution_id: UUID) -> ExecutionStatus | None:
        """How Temporal says it ended; None while it runs. Raises NotFoundError when Temporal has no such id."""
        ...


class ExecutionFeed(Protocol):
    """Nudges: something was committed for this execution. Implemented by `engine.events.feed`.

    A nudge carries no fact: the reader asks the store what is new, so that a lost nudge only costs time.
    """

    def subscribe(self, tenant: str, execution_id: UUID) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """Yields `{"sequence": n}` after commits and `{"progress": {...}}` for progress; may drop either."""
        ...


class WatchTickets(Protocol):
    """One-time tokens for those who cannot send headers. Implemented by `engine.events.tickets`."""

    async def keep(self, token: str, document: dict[str, Any], seconds: float) -> None:
        """Until it is taken, or so long. The token itself is not stored."""
        ...

    async def take(self, token: str) -> dict[str, Any] | None:
        """What was kept under it, once; None when it is not there (any more)."""
        ...

    async def use_once(self, token: str, seconds: float) -> bool:
        """True for the first who asks, for so long."""
        ...


class IdempotencyKeys(Protocol):
    """Idempotency keys of requests that have no id of their own to be found by."""

    async def claim(self, tenant: str, operation: str, key: str, request_hash: str) -> None:
        """Remember what the key was first used for; a repetition with the same hash passes.

        Raises IdempotencyConflictError when the key was used with another hash.
        """
        ...


class Acknowledged(Protocol):
    """Told which stream entries a tick of this process consumed. Implemented by the bridge, where one runs here."""

    def __call__(self, tenant: str, execution_id: str, entry_ids: Sequence[str]) -> None: ...


class AgentBinder(Protocol):
    """Finds host processes for logical agents. Implemented by `engine.agents.binding`."""

    async def bind(self, request: BindRequest) -> BindResult: ...
