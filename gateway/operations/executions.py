"""Use cases that start executions and look at them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID, uuid4, uuid5

import orjson
import structlog
from pydantic import Field

from engine.contracts.capacity import (
    AgentCeiling,
    CapacityLimits,
    Demand,
    RoleAllotment,
    allot,
    demand_of,
    least_demand,
)
from engine.contracts.definition import EventName, Name
from engine.contracts.dynamic import ExternalEvent
from engine.contracts.execution import ExecutionOptions, ExecutionStatus, TaskState
from engine.contracts.kernel import BlockingHooks, ExecutionInput, KernelPlan
from engine.contracts.limits import EXTERNAL_EVENT_BYTES_MAX, NAME_LENGTH_MAX, TASK_ID_PATTERN
from engine.contracts.model import StrictModel
from engine.contracts.patterns.swarm import ROUNDS_MAX
from engine.contracts.streams import partition_of
from engine.contracts.views import (
    AllocatedAgent,
    CheckpointView,
    EventSent,
    ExecutionEvent,
    ExecutionStarted,
    ExecutionSummary,
    ExecutionView,
    Page,
    TaskProgress,
    TaskResultView,
)
from engine.contracts.voting import Recounts, VotingRule
from engine.errors import (
    AllocationFailedError,
    EngineError,
    InvalidTransitionError,
    NotFoundError,
    ResourcesUnsatisfiableError,
    TooLargeError,
    UnavailableError,
)
from engine.ports import DispatchStore, ExecutionStore, Launcher
from engine.voting.recounting import recount
from gateway.operations.definitions import content_hash
from gateway.operations.operation import Caller, Id, IdempotencyKey, PageParameters, whole_number_token
from gateway.operations.planning import PlanningDesk, Runnable
from hooks.directory import HookDirectory
from hooks.launching import guard

EXECUTION_NAMESPACE: Final = UUID("6f0c5a52-0f6e-5d6b-9a27-3b1f3c6a4d10")
"""Fixed for ever: the same tenant and idempotency key must give the same execution in every release."""

AGENTS_SHOWN_MAX: Final = 1_000
RECOUNTED_MAX: Final = 100
"""Questions that one request counts again."""
SIGNAL_TIMEOUT_SECONDS: Final = 5.0
LAUNCH_TIMEOUT_SECONDS: Final = 5.0
TASKS_MATCHED_IN_PLACE_MAX: Final = 500


TaskId = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX + 16, pattern=TASK_ID_PATTERN)]
"""A name, and for an element of a `for_each` task its index in brackets."""

EventId = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=r"^[\x21-\x7e]+$")]


class ExecuteWorkflow(StrictModel):
    workflow_id: Id
    input_data: dict[str, Any]
    execution_options: ExecutionOptions = Field(default_factory=ExecutionOptions)
    idempotency_key: IdempotencyKey | None = None


class ExecutionReference(StrictModel):
    execution_id: Id


class ListExecutions(PageParameters):
    status: ExecutionStatus | None = Field(None, strict=False)
    workflow_id: Id | None = None


class ListTasks(PageParameters):
    execution_id: Id
    state: TaskState | None = Field(None, strict=False)


class ListOfExecution(PageParameters):
    execution_id: Id


class TaskReference(StrictModel):
    execution_id: Id
    task_id: TaskId


class RecountVotes(StrictModel):
    """Votes of a swarm under another rule. The agents are not asked again, and the execution is not changed."""

    execution_id: Id
    voting: VotingRule
    task_id: Name | None = Field(None, description="one question; absent: all, at most 100")
    round: int | None = Field(None, ge=1, le=ROUNDS_MAX, description="absent: the last that was counted")


class SendEvent(StrictModel):
    """An external event: tasks with a trigger for its type wait for it."""

    execution_id: Id
    event_type: EventName
    payload: Any = None
    event_id: EventId | None = Field(None, description="names the event: sent again, it counts once")


class ExecutionOperations:
    def __init__(
        self,
        desk: PlanningDesk,
        executions: ExecutionStore,
        dispatch: DispatchStore,
        launcher: Launcher,
        event_partitions: int,
        capacity: CapacityLimits | None = None,
        hooks: HookDirectory | None = None,
        allocation_seconds: float = 30.0,
    ) -> None:
        self._allocation_seconds = allocation_seconds
        self._desk = desk
        self._executions = executions
        self._dispatch = dispatch
        self._launcher = launcher
        self._event_partitions = event_partitions
        self._capacity = capacity or CapacityLimits()
        self._hooks = hooks
        self._logger = structlog.get_logger("gateway.executions")

    async def execute(self, caller: Caller, request: ExecuteWorkflow) -> ExecutionStarted:
        """The row first, Temporal second: what is acknowledged is stored, and a reconciler finishes the rest."""
        options = request.execution_options
        runnable = await self._desk.runnable(caller.tenant, request.workflow_id, options.retry_policy)
        counts = _allotted(options, runnable)
        demand = demand_of(runnable.needs, counts)
        self._check_capacity(demand)
        plan, hooks = await self._guarded(caller.tenant, runnable.name, _with_counts(runnable.kernel_plan, counts))
        launch = self._launch_document(caller, request, runnable, plan, hooks)
        planned = await self._executions.insert_planning(
            caller.tenant,
            launch,
            request.input_data,
            options.model_dump(mode="json"),
            caller.principal.subject,
            allow_concurrent=options.allow_concurrent,
            request_hash=_request_hash(request) if request.idempotency_key is not None else None,
            priority=options.priority,
            demand=demand,
        )
        if planned.status is ExecutionStatus.PLANNING and not planned.waiting:
            await self._launch(launch)
        estimate = timedelta(seconds=runnable.estimated_resources.estimated_duration_seconds)
        return ExecutionStarted(
            execution_id=planned.execution_id,
            workflow_id=planned.workflow_id,
            status=planned.status,
            allocated_agents=_logical_agents(counts),
            execution_url=_websocket_url(caller.base_url, planned.execution_id),
            estimated_completion=planned.started_at + estimate,
            queued=planned.waiting,
            allotment={
                role: RoleAllotment(wanted=runnable.needs[role].count, allotted=count)
                for role, count in sorted(counts.items())
            },
        )

    async def status(self, caller: Caller, request: ExecutionReference) -> ExecutionView:
        return await self._executions.status(caller.tenant, request.execution_id)

    async def watch(self, caller: Caller, request: ExecutionReference) -> ExecutionView:
        """Where a watcher begins: that the execution is there, and whether it is closed."""
        return await self._executions.status(caller.tenant, request.execution_id, include_tasks=False)

    async def list(self, caller: Caller, request: ListExecutions) -> Page[ExecutionSummary]:
        return await self._executions.list(
            caller.tenant,
            limit=request.limit,
            page_token=request.page_token,
            status=request.status,
            workflow_id=request.workflow_id,
        )

    async def tasks(self, caller: Caller, request: ListTasks) -> Page[TaskProgress]:
        return await self._executions.tasks(
            caller.tenant,
            request.execution_id,
            limit=request.limit,
            page_token=request.page_token,
            state=request.state,
        )

    async def result(self, caller: Caller, request: TaskReference) -> TaskResultView:
        """Whole, also where listings and events say only where it is stored."""
        return await self._dispatch.result(caller.tenant, request.execution_id, request.task_id)

    async def send_event(self, caller: Caller, request: SendEvent) -> EventSent:
        """Acknowledged when Temporal has taken it: from then on it is not lost."""
        size_bytes = len(orjson.dumps(request.payload))
        if size_bytes > EXTERNAL_EVENT_BYTES_MAX:
            raise TooLargeError(
                f"an event's payload may have {EXTERNAL_EVENT_BYTES_MAX} bytes as JSON",
                bytes_max=EXTERNAL_EVENT_BYTES_MAX,
            )
        now = await self._executions.status(caller.tenant, request.execution_id, include_tasks=False)
        if now.status.closed:
            raise InvalidTransitionError(f"the execution is {now.status.value}", status=now.status.value)
        event = ExternalEvent(
            event_id=request.event_id or str(uuid4()),
            type=request.event_type,
            at_ms=int(datetime.now(UTC).timestamp() * 1000),
            payload=request.payload,
        )
        try:
            async with asyncio.timeout(SIGNAL_TIMEOUT_SECONDS):
                await self._launcher.signal(caller.tenant, request.execution_id, "external_event", event)
        except (NotFoundError, TimeoutError) as error:
            # It is there, so its run has not begun, or has ended just now.
            raise UnavailableError("the execution takes no events at the moment; try again") from error
        return EventSent(event_id=event.event_id)

    async def recount(self, caller: Caller, request: RecountVotes) -> Recounts:
        kept = await self._executions.counted_rounds(
            caller.tenant,
            request.execution_id,
            task_id=request.task_id,
            round_number=request.round,
            limit=RECOUNTED_MAX,
        )
        if not kept:
            raise NotFoundError("no such votes were counted in this execution")
        items = tuple(recount(item, request.voting, str(request.execution_id)) for item in kept)
        return Recounts(execution_id=request.execution_id, voting=request.voting, items=items)

    async def events(self, caller: Caller, request: ListOfExecution) -> Page[ExecutionEvent]:
        events, more = await self._executions.events(
            caller.tenant,
            request.execution_id,
            after_sequence=whole_number_token(request.page_token),
            limit=request.limit,
        )
        token = str(events[-1].sequence) if more and events else None
        return Page[ExecutionEvent](items=tuple(events), next_page_token=token)

    async def checkpoints(self, caller: Caller, request: ListOfExecution) -> Page[CheckpointView]:
        return await self._executions.checkpoints(
            caller.tenant, request.execution_id, limit=request.limit, page_token=request.page_token
        )

    def _check_capacity(self, demand: Demand) -> None:
        """What is larger than the whole engine would wait for ever."""
        exceeded = demand.exceeding(self._capacity.ceiling)
        if exceeded:
            raise ResourcesUnsatisfiableError(
                f"the execution's agents take more than this engine ever runs at once ({'; '.join(exceeded)}); allow "
                "fewer with execution_options.resource_constraints, or ask for fewer or smaller ones in the definition",
                exceeded=list(exceeded),
            )

    async def _guarded(self, tenant: str, name: str, plan: KernelPlan) -> tuple[KernelPlan, BlockingHooks | None]:
        """What blocking hooks guard of it."""
        index = None if self._hooks is None else await self._hooks.blocking(tenant)
        if index is None:
            return plan, None
        if len(plan.tasks) <= TASKS_MATCHED_IN_PLACE_MAX:
            return guard(plan, name, index)
        return await asyncio.to_thread(guard, plan, name, index)

    def _launch_document(
        self,
        caller: Caller,
        request: ExecuteWorkflow,
        runnable: Runnable,
        plan: KernelPlan,
        hooks: BlockingHooks | None,
    ) -> ExecutionInput:
        key, options = request.idempotency_key, request.execution_options
        execution_id = str(uuid4() if key is None else uuid5(EXECUTION_NAMESPACE, f"{caller.tenant}\n{key}"))
        return ExecutionInput(
            tenant=caller.tenant,
            execution_id=execution_id,
            workflow_id=str(request.workflow_id),
            workflow_name=runnable.name,
            pattern=runnable.pattern.value,
            pattern_config=runnable.pattern_config,
            plan=plan,
            partition=partition_of(execution_id, self._event_partitions),
            trace_id=str(caller.trace_id),
            timeout_ms=options.timeout * 1000,
            checkpoint_interval_ms=options.checkpoint_interval * 1000,
            pause_grace_ms=options.pause_grace_seconds * 1000,
            started_at_ms=int(datetime.now(UTC).timestamp() * 1000),
            allocation_seconds=self._allocation_seconds,
            hooks=hooks,
        )

    async def _launch(self, launch: ExecutionInput) -> None:
        try:
            async with asyncio.timeout(LAUNCH_TIMEOUT_SECONDS):
                await self._launcher.launch(launch)
        except (EngineError, TimeoutError) as error:
            self._logger.warning(
                "launch_left_to_reconciler",
                tenant=launch.tenant,
                execution_id=launch.execution_id,
                error=repr(error),
            )


def _allotted(options: ExecutionOptions, runnable: Runnable) -> dict[str, int]:
    """How many agents each role gets under the execution's own constraints."""
    ceiling = AgentCeiling.of(options.resource_constraints)
    exceeded = least_demand(runnable.needs).exceeding(ceiling)
    if exceeded:
        raise AllocationFailedError(
            "the resource constraints do not allow one agent of each role: these alone are "
            f"{'; '.join(exceeded)}; raise the constraints, or ask for fewer roles or smaller agents",
            exceeded=list(exceeded),
            roles=len(runnable.needs),
        )
    return allot(runnable.needs, ceiling)


def _with_counts(plan: KernelPlan, counts: dict[str, int]) -> KernelPlan:
    """The plan with no more agents than were allotted; itself where that is all."""
    fewer = {
        name: role.model_copy(update={"count": counts[name], "wanted": role.count})
        for name, role in plan.roles.items()
        if counts[name] < role.count
    }
    return plan.model_copy(update={"roles": plan.roles | fewer}) if fewer else plan


def _request_hash(request: ExecuteWorkflow) -> str:
    return content_hash(request.model_dump(mode="json", exclude={"idempotency_key"}))


def _logical_agents(counts: dict[str, int]) -> tuple[AllocatedAgent, ...]:
    agents: list[AllocatedAgent] = []
    for role, allotted in counts.items():
        count = min(allotted, AGENTS_SHOWN_MAX - len(agents))
        agents += (
            AllocatedAgent(agent_id=f"{role}-{number}", role=role, status="assigned") for number in range(1, count + 1)
        )
    return tuple(agents)


def _websocket_url(base_url: str, execution_id: UUID) -> str:
    return f"ws{base_url.removeprefix('http')}/ws/workflows/{execution_id}"
