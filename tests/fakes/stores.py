"""The ports in memory, with the same rules as the real ones: tenants apart, stable answers, stated errors."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from engine.contracts.capacity import PRIORITIES, CapacityReport, CapacityUse, Demand, Usage
from engine.contracts.compensation import RetryRequest
from engine.contracts.execution import ExecutionStatus, Priority, TaskState
from engine.contracts.kernel import Control, ExecutionInput
from engine.contracts.plan import Plan
from engine.contracts.views import (
    CheckpointView,
    ExecutionEvent,
    ExecutionSummary,
    ExecutionView,
    OperationRecord,
    Page,
    PerformanceMetrics,
    TaskProgress,
    WorkflowDetail,
    WorkflowSummary,
)
from engine.contracts.voting import CountedRound
from engine.errors import (
    AlreadyExecutingError,
    CheckpointNotFoundError,
    IdempotencyConflictError,
    InvalidDefinitionError,
    InvalidParametersError,
    InvalidTransitionError,
    NotFoundError,
    TooManyRequestsError,
    UnavailableError,
)
from engine.ports import HostRecord, PlannedExecution
from engine.voting.recounting import rounds_of


def page_of(items: Sequence[Any], limit: int, page_token: str | None) -> Page[Any]:
    if page_token is not None and not page_token.isdigit():
        raise InvalidParametersError("the page token is not valid")
    start = int(page_token or 0)
    more = start + limit < len(items)
    return Page(items=tuple(items[start : start + limit]), next_page_token=str(start + limit) if more else None)


class FakeDefinitionStore:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, UUID], tuple[WorkflowDetail, Plan, str]] = {}
        self.executing: set[UUID] = set()

    async def create(
        self, tenant: str, definition: dict[str, Any], content_hash: str, plan: Plan, created_by: str
    ) -> tuple[UUID, bool]:
        for (owner, workflow_id), (detail, _, stored) in self.rows.items():
            if owner == tenant and (detail.name, detail.version) == (definition["name"], definition["version"]):
                if stored != content_hash:
                    raise InvalidDefinitionError("another definition has that name and version", errors=[])
                return workflow_id, False
        workflow_id, now = uuid4(), datetime.now(UTC)
        detail = WorkflowDetail(
            workflow_id=workflow_id,
            name=definition["name"],
            version=definition["version"],
            orchestration_pattern=definition["orchestration_pattern"],
            task_count=len(plan.tasks),
            created_at=now,
            updated_at=now,
            created_by=created_by,
            definition=definition,
            estimated_resources=plan.estimated_resources,
        )
        self.rows[tenant, workflow_id] = (detail, plan, content_hash)
        return workflow_id, True

    def _row(self, tenant: str, workflow_id: UUID) -> tuple[WorkflowDetail, Plan, str]:
        try:
            return self.rows[tenant, workflow_id]
        except KeyError:
            raise NotFoundError("no such workflow") from None

    async def get(self, tenant: str, workflow_id: UUID) -> WorkflowDetail:
        return self._row(tenant, workflow_id)[0]

    async def get_plan(self, tenant: str, workflow_id: UUID) -> Plan:
        return self._row(tenant, workflow_id)[1]

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        name: str | None = None,
        pattern: str | None = None,
    ) -> Page[WorkflowSummary]:
        items = [
            WorkflowSummary(**detail.model_dump(exclude={"definition", "estimated_resources"}))
            for (owner, _), (detail, _, _) in self.rows.items()
            if owner == tenant and name in (None, detail.name) and pattern in (None, detail.orchestration_pattern)
        ]
        return page_of(items, limit, page_token)

    async def delete(self, tenant: str, workflow_id: UUID) -> None:
        self._row(tenant, workflow_id)
        if workflow_id in self.executing:
            raise AlreadyExecutingError("the workflow is executing")
        del self.rows[tenant, workflow_id]


class FakeExecution:
    """One execution's rows. `obey` is what a tick does when it reads the control row."""

    def __init__(self, launch: ExecutionInput, request_hash: str | None) -> None:
        self.launch = launch
        self.request_hash = request_hash
        self.status = ExecutionStatus.PLANNING
        self.events: list[ExecutionEvent] = []
        self.checkpoints: dict[UUID, CheckpointView] = {}
        self.task_states = {task.id: TaskState.PENDING for task in launch.plan.tasks}
        self.controls: list[Control] = []
        self.pending: Control | None = None
        self.controlled = asyncio.Event()
        self.started_at = datetime.now(UTC)
        self.waiting = False
        self.priority: Priority = "normal"
        self.demand = Demand()
        self.add_event("workflow.status_changed", {"previous_status": None, "new_status": "planning"})

    @property
    def execution_id(self) -> UUID:
        return UUID(self.launch.execution_id)

    def add_event(self, kind: str, payload: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        self.events.append(
            ExecutionEvent(
                sequence=len(self.events) + 1,
                epoch=1,
                event_type=kind,
                timestamp=now,
                recorded_at=now,
                payload=payload,
                trace_id=UUID(self.launch.trace_id),
            )
        )

    def change(self, status: ExecutionStatus) -> None:
        previous, self.status = self.status, status
        self.add_event("workflow.status_changed", {"previous_status": previous.value, "new_status": status.value})

    def add_checkpoint(self, checkpoint_id: UUID, reason: str) -> CheckpointView:
        done = tuple(task for task, state in self.task_states.items() if state is TaskState.COMPLETED)
        checkpoint = CheckpointView(
            checkpoint_id=checkpoint_id,
            execution_id=self.execution_id,
            reason=reason,
            epoch=1,
            completed_tasks=done,
            in_flight=(),
            recovery_instructions={},
            created_at=datetime.now(UTC),
        )
        self.checkpoints[checkpoint_id] = checkpoint
        self.add_event("workflow.checkpoint_created", {"checkpoint_id": str(checkpoint_id), "reason": reason})
        return checkpoint

    def obey(self) -> None:
        control, self.pending = self.pending, None
        if control is None:
            return
        if control.action in ("pause", "checkpoint"):
            assert control.checkpoint_id is not None
            if control.action == "pause":
                self.change(ExecutionStatus.PAUSED)
            self.add_checkpoint(UUID(control.checkpoint_id), control.action)
        elif control.action == "resume":
            self.change(ExecutionStatus.EXECUTING)
        else:
            self.change(ExecutionStatus.CANCELLED)


_ALLOWED = {
    "pause": {ExecutionStatus.PLANNING, ExecutionStatus.EXECUTING},
    "resume": {ExecutionStatus.PAUSED},
    "cancel": {ExecutionStatus.PLANNING, ExecutionStatus.EXECUTING, ExecutionStatus.PAUSED},
    "checkpoint": {ExecutionStatus.EXECUTING, ExecutionStatus.PAUSED},
}


class FakeExecutionStore:
    def __init__(self, definitions: FakeDefinitionStore) -> None:
        self.definitions = definitions
        self.rows: dict[tuple[str, UUID], FakeExecution] = {}
        self.full = False
        """New executions wait for capacity."""
        self.queue_full = False

    def row(self, tenant: str, execution_id: UUID) -> FakeExecution:
        try:
            return self.rows[tenant, execution_id]
        except KeyError:
            raise NotFoundError("no such execution") from None

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
        execution_id, workflow_id = UUID(launch.execution_id), UUID(launch.workflow_id)
        row = self.rows.get((tenant, execution_id))
        if row is not None and row.request_hash != request_hash:
            raise IdempotencyConflictError("the idempotency key was used before with another request")
        created = row is None
        if row is None:
            await self.definitions.get(tenant, workflow_id)
            running = [
                other
                for (owner, _), other in self.rows.items()
                if owner == tenant and other.launch.workflow_id == launch.workflow_id and not other.status.closed
            ]
            if running and not allow_concurrent:
                raise AlreadyExecutingError("the workflow is executing", execution_id=str(running[0].execution_id))
            if self.queue_full and priority == "low":
                raise TooManyRequestsError("many wait", waiting=1_000, retry_after_seconds=30)
            row = self.rows[tenant, execution_id] = FakeExecution(launch, request_hash)
            row.waiting, row.priority, row.demand = self.full, priority, demand or Demand()
        return PlannedExecution(
            execution_id=execution_id,
            workflow_id=workflow_id,
            status=row.status,
            created=created,
            started_at=row.started_at,
            waiting=row.waiting,
        )

    async def status(self, tenant: str, execution_id: UUID, *, include_tasks: bool = True) -> ExecutionView:
        row = self.row(tenant, execution_id)
        completed = sum(state is TaskState.COMPLETED for state in row.task_states.values())
        return ExecutionView(
            workflow_id=UUID(row.launch.workflow_id),
            execution_id=execution_id,
            status=row.status,
            task_states=dict(row.task_states) if include_tasks else {},
            performance_metrics=PerformanceMetrics(
                total_runtime_seconds=0,
                agents_allocated=0,
                tasks_completed=completed,
                tasks_failed=0,
                coordination_overhead=0.0,
            ),
            latest_checkpoint_id=list(row.checkpoints)[-1] if row.checkpoints else None,
            trace_id=UUID(row.launch.trace_id),
            started_at=row.started_at,
        )

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        status: str | None = None,
        workflow_id: UUID | None = None,
    ) -> Page[ExecutionSummary]:
        items = [
            ExecutionSummary(
                execution_id=row.execution_id,
                workflow_id=UUID(row.launch.workflow_id),
                workflow_name=row.launch.workflow_name,
                orchestration_pattern=row.launch.pattern,
                status=row.status,
                started_at=row.started_at,
                tasks_total=len(row.task_states),
                tasks_completed=0,
                tasks_failed=0,
            )
            for (owner, _), row in self.rows.items()
            if owner == tenant and status in (None, row.status) and workflow_id in (None, UUID(row.launch.workflow_id))
        ]
        return page_of(items, limit, page_token)

    async def tasks(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None, state: str | None = None
    ) -> Page[TaskProgress]:
        row = self.row(tenant, execution_id)
        items = [
            TaskProgress(task_id=task, state=now, attempt=1)
            for task, now in row.task_states.items()
            if state in (None, now)
        ]
        return page_of(items, limit, page_token)

    async def events(
        self, tenant: str, execution_id: UUID, *, after_sequence: int, limit: int
    ) -> tuple[Sequence[ExecutionEvent], bool]:
        later = [event for event in self.row(tenant, execution_id).events if event.sequence > after_sequence]
        return later[:limit], len(later) > limit

    async def counted_rounds(
        self, tenant: str, execution_id: UUID, *, task_id: str | None, round_number: int | None, limit: int
    ) -> Sequence[CountedRound]:
        events = self.row(tenant, execution_id).events
        counts = {
            event.payload["task_id"]: (event.epoch, event.payload)
            for event in events
            if event.event_type == "vote.counted"
            and task_id in (None, event.payload["task_id"])
            and round_number in (None, event.payload["round"])
        }
        wanted = {(name, epoch, counted["round"]) for name, (epoch, counted) in counts.items()}
        votes = [
            event.payload
            for event in events
            if event.event_type == "vote.cast"
            and (event.payload["task_id"], event.epoch, event.payload["round"]) in wanted
        ]
        return rounds_of([counts[name] for name in sorted(counts)][:limit], votes)

    async def last_sequence(self, tenant: str, execution_id: UUID) -> int:
        return len(self.row(tenant, execution_id).events)

    async def checkpoints(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None
    ) -> Page[CheckpointView]:
        return page_of(list(self.row(tenant, execution_id).checkpoints.values()), limit, page_token)

    async def checkpoint(self, tenant: str, execution_id: UUID, checkpoint_id: UUID) -> CheckpointView:
        try:
            return self.row(tenant, execution_id).checkpoints[checkpoint_id]
        except KeyError:
            raise CheckpointNotFoundError("no such checkpoint of this execution") from None

    async def request_control(
        self, tenant: str, execution_id: UUID, control: Control
    ) -> tuple[ExecutionStatus, Control]:
        row = self.row(tenant, execution_id)
        if row.controls and row.controls[-1].request_id == control.request_id:
            return row.status, row.controls[-1]
        if row.status not in _ALLOWED[control.action] or (row.waiting and control.action != "cancel"):
            raise InvalidTransitionError(f"cannot {control.action} an execution that is {row.status}")
        row.controls.append(control)
        if row.waiting:
            row.waiting = False
            row.change(ExecutionStatus.CANCELLED)
            return row.status, control
        row.pending = control
        row.controlled.set()
        return row.status, control

    async def report(self, tenant: str) -> CapacityReport:
        """As `CapacityStore` does; the same rows are its claims."""
        everyone = [(owner, row) for (owner, _), row in self.rows.items() if not row.status.closed]
        own = [row for owner, row in everyone if owner == tenant]
        return CapacityReport(
            engine=_use([row for _, row in everyone]),
            tenant=_use(own),
            open_executions=dict(Counter(row.status.value for row in own)),
        )

    async def pending_control(self, tenant: str, execution_id: UUID) -> Control | None:
        return self.row(tenant, execution_id).pending

    async def close_from_outside(
        self, tenant: str, execution_id: UUID, status: ExecutionStatus, code: str, message: str
    ) -> bool:
        row = self.row(tenant, execution_id)
        if row.status.closed:
            return False
        row.change(status)
        return True


def _use(rows: Sequence[FakeExecution]) -> CapacityUse:
    used = Usage()
    for row in rows:
        used = used if row.waiting else used.plus(row.demand)
    waiting = Counter(row.priority for row in rows if row.waiting)
    return CapacityUse(used=used, waiting={priority: waiting[priority] for priority in PRIORITIES})


class FakeLauncher:
    """Temporal with a worker behind it that obeys signals at once, unless told otherwise."""

    def __init__(self, executions: FakeExecutionStore, feed: "FakeFeed") -> None:
        self.executions = executions
        self.feed = feed
        self.launched: list[ExecutionInput] = []
        self.signals: list[tuple[str, UUID, str]] = []
        self.arguments: list[tuple[Any, ...]] = []
        """Of each signal."""
        self.available = True
        self.obeys = True
        self.retries: list[RetryRequest] = []

    async def retry_compensations(self, request: RetryRequest) -> None:
        if not self.available:
            raise UnavailableError("Temporal does not answer")
        self.retries.append(request)

    async def launch(self, launch: ExecutionInput) -> None:
        if not self.available:
            raise UnavailableError("Temporal does not answer")
        self.launched.append(launch)
        row = self.executions.row(launch.tenant, UUID(launch.execution_id))
        if row.status is ExecutionStatus.PLANNING:
            row.change(ExecutionStatus.EXECUTING)

    async def signal(self, tenant: str, execution_id: UUID, name: str, *args: Any) -> None:
        if not self.available:
            raise UnavailableError("Temporal does not answer")
        self.signals.append((tenant, execution_id, name))
        self.arguments.append(args)
        if self.obeys:
            self.executions.row(tenant, execution_id).obey()
            self.feed.nudge(tenant, execution_id, {"sequence": 0})

    async def closed_status(self, tenant: str, execution_id: UUID) -> ExecutionStatus | None:
        status = self.executions.row(tenant, execution_id).status
        return status if status.closed else None


class FakeFeed:
    def __init__(self) -> None:
        self.watchers: dict[tuple[str, UUID], list[asyncio.Queue[dict[str, Any]]]] = {}
        self.available = True

    def nudge(self, tenant: str, execution_id: UUID, nudge: dict[str, Any]) -> None:
        for queue in self.watchers.get((tenant, execution_id), ()):
            queue.put_nowait(nudge)

    @asynccontextmanager
    async def subscribe(self, tenant: str, execution_id: UUID) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        if not self.available:
            raise UnavailableError("Redis does not answer")
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        queues = self.watchers.setdefault((tenant, execution_id), [])
        queues.append(queue)

        async def nudges() -> AsyncIterator[dict[str, Any]]:
            while True:
                yield await queue.get()

        try:
            yield nudges()
        finally:
            queues.remove(queue)


class FakeOperationLog:
    def __init__(self) -> None:
        self.records: list[tuple[str, OperationRecord]] = []
        self.available = True

    async def record(self, tenant: str, operation: OperationRecord) -> None:
        if not self.available:
            raise UnavailableError("PostgreSQL does not answer")
        self.records.append((tenant, operation))

    async def list(self, tenant: str, *, limit: int, page_token: str | None) -> Page[dict[str, Any]]:
        items = [record.model_dump(mode="json") for owner, record in reversed(self.records) if owner == tenant]
        return page_of(items, limit, page_token)


class FakeIdempotencyKeys:
    def __init__(self) -> None:
        self.claimed: dict[tuple[str, str, str], str] = {}

    async def claim(self, tenant: str, operation: str, key: str, request_hash: str) -> None:
        if self.claimed.setdefault((tenant, operation, key), request_hash) != request_hash:
            raise IdempotencyConflictError("the idempotency key was used before with another request")


class FakeHostStore:
    def __init__(self) -> None:
        self.hosts: dict[str, list[HostRecord]] = {}

    async def upsert(self, tenant: str, hosts: Sequence[HostRecord]) -> Sequence[str]:
        self.hosts.setdefault(tenant, []).extend(hosts)
        return []

    async def live(self, tenant: str, agent_type: str, limit: int) -> Sequence[HostRecord]:
        return [host for host in self.hosts.get(tenant, []) if agent_type in host.types][:limit]

    async def live_for(
        self,
        tenant: str,
        execution_id: str,
        limit: int,
        *,
        gone_too: bool = False,
    ) -> Sequence[HostRecord]:
        theirs = [host for host in self.hosts.get(tenant, []) if host.dedicated_to is not None]
        return [host for host in theirs if host.dedicated_to and host.dedicated_to.execution_id == execution_id][:limit]

    async def pooled(self, tenant: str, agent_type: str, limit: int) -> Sequence[HostRecord]:
        return []

    async def claim(self, tenant: str, host_id: str, execution_id: str, agent_id: str) -> bool:
        return False

    async def mark_gone(self, tenant: str, host_ids: Sequence[str]) -> Sequence[str]:
        return []

    async def page(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        agent_type: str | None = None,
        state: str | None = None,
    ) -> Page[HostRecord]:
        hosts = [
            host
            for host in self.hosts.get(tenant, [])
            if (agent_type is None or agent_type in host.types) and state in (None, host.state)
        ]
        return page_of(hosts, limit, page_token)

    async def silent(self, older_than_seconds: float, limit: int) -> Sequence[tuple[str, HostRecord]]:
        return []
