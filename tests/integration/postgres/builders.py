"""Definitions, executions and ticks as small as the tests allow."""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from engine.contracts.definition import RetryPolicy
from engine.contracts.events import AuditEvent, AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import (
    AgentBinding,
    Attempt,
    Delta,
    Done,
    ExecutionInput,
    KernelPlan,
    KernelRole,
    KernelTask,
    TaskResult,
    TickProposal,
)
from engine.contracts.plan import EstimatedResources, Plan, PlanTask
from engine.ports import Committed
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal

BASE_MS = 1_700_000_000_000
DIAMOND = ("a", "b", "c", "d")
HASH = "0" * 64


def plan_of(task_ids: Sequence[str]) -> Plan:
    tasks = tuple(
        PlanTask(id=task_id, role="worker", wave=0, estimate_seconds=1, earliest_start_seconds=0, slack_seconds=0)
        for task_id in task_ids
    )
    return Plan(
        plan_hash=HASH,
        tasks=tasks,
        waves=(tuple(range(len(tasks))),),
        critical_path=(0,),
        critical_path_seconds=1,
        parallelism=(len(tasks),),
        parallelism_max=len(tasks),
        estimated_resources=EstimatedResources(
            agents_required=1, estimated_duration_seconds=1, cpu_cores=1, memory_gb=1
        ),
    )


def definition_of(task_ids: Sequence[str], name: str = "", version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    return {
        "name": name or f"w-{uuid.uuid4().hex[:12]}",
        "version": version,
        "orchestration_pattern": "supervisor",
        "agents": {"worker": {"type": "synthetic", "count": 2}},
        "tasks": [{"id": task_id, "agent": "worker"} for task_id in task_ids],
        "coordination": {"type": "hybrid"},
        **more,
    }


def content_hash(definition: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)).hexdigest()


async def create_workflow(
    definitions: PostgresDefinitionStore, tenant: str, task_ids: Sequence[str] = DIAMOND, **definition: Any
) -> UUID:
    document = definition_of(task_ids, **definition)
    workflow_id, _ = await definitions.create(tenant, document, content_hash(document), plan_of(task_ids), "someone")
    return workflow_id


def launch_of(
    tenant: str, workflow_id: UUID, task_ids: Sequence[str] = DIAMOND, execution_id: UUID | None = None
) -> ExecutionInput:
    return ExecutionInput(
        tenant=tenant,
        execution_id=str(execution_id or uuid.uuid4()),
        workflow_id=str(workflow_id),
        workflow_name="w",
        pattern="supervisor",
        plan=KernelPlan(
            tasks=tuple(KernelTask(id=task_id, role="worker", retry=RetryPolicy()) for task_id in task_ids),
            roles={"worker": KernelRole(type="synthetic", count=2)},
        ),
        partition=0,
        trace_id=str(uuid.uuid4()),
        timeout_ms=3_600_000,
        checkpoint_interval_ms=300_000,
        pause_grace_ms=30_000,
        started_at_ms=BASE_MS,
    )


@dataclass
class Run:
    """One planned execution, ticked forward."""

    journal: PostgresJournal
    launch: ExecutionInput
    tick: int = 0
    epoch: int = 1
    base_tick: int | None = None
    proposals: list[TickProposal] = field(default_factory=list)

    @property
    def tenant(self) -> str:
        return self.launch.tenant

    @property
    def execution_id(self) -> UUID:
        return UUID(self.launch.execution_id)

    @property
    def workflow_id(self) -> UUID:
        return UUID(self.launch.workflow_id)

    def proposal(self, tick: int, **fields: Any) -> TickProposal:
        """`fields` go into the proposal where it has them, else into the delta."""
        own = {name: fields.pop(name) for name in list(fields) if name in TickProposal.model_fields}
        defaults = {
            "epoch": self.epoch,
            "base_tick": self.base_tick if self.base_tick is not None else max(0, tick - 1),
        }
        return TickProposal(
            tenant=self.launch.tenant,
            execution_id=self.launch.execution_id,
            workflow_id=self.launch.workflow_id,
            trace_id=self.launch.trace_id,
            tick=tick,
            partition=0,
            delta=Delta(tick=tick, at_ms=BASE_MS + tick * 1000, **fields),
            **(defaults | own),
        )

    async def commit(self, **fields: Any) -> Committed:
        """The next tick."""
        proposal = self.proposal(self.tick + 1, **fields)
        committed = await self.journal.commit(proposal)
        if committed.own:
            self.tick = proposal.tick
            self.proposals.append(proposal)
        return committed

    async def start(self, *agents: str) -> None:
        """Executing, with agents on `host-1`."""
        await self.commit(
            status=ExecutionStatus.EXECUTING,
            current_phase="executing",
            bound=tuple(bound(agent) for agent in agents or ("worker-1", "worker-2")),
            audit=(event(AuditEventType.STATUS_CHANGED, previous_status="planning", new_status="executing"),),
        )


async def plan_execution(
    definitions: PostgresDefinitionStore,
    executions: PostgresExecutionStore,
    journal: PostgresJournal,
    tenant: str,
    task_ids: Sequence[str] = DIAMOND,
) -> Run:
    workflow_id = await create_workflow(definitions, tenant, task_ids)
    launch = launch_of(tenant, workflow_id, task_ids)
    await executions.insert_planning(
        tenant, launch, {"the": "input"}, {}, "someone", allow_concurrent=False, request_hash=None
    )
    return Run(journal, launch)


def bound(agent_id: str, host_id: str | None = "host-1", role: str = "worker") -> AgentBinding:
    return AgentBinding(agent_id=agent_id, role=role, host_id=host_id, slots=8)


def attempt(task_id: str, number: int = 1, agent_id: str = "worker-1") -> Attempt:
    return Attempt(task_id=task_id, agent_id=agent_id, attempt=number)


def done(task_id: str, number: int = 1, agent_id: str = "worker-1", at_ms: int = BASE_MS + 5000) -> Done:
    return Done(task_id=task_id, attempt=number, agent_id=agent_id, started_at_ms=at_ms - 1000, at_ms=at_ms)


def result(task_id: str, value: Any, number: int = 1) -> TaskResult:
    return TaskResult(task_id=task_id, attempt=number, result=value)


def event(kind: AuditEventType, at_ms: int = BASE_MS, **payload: Any) -> AuditEvent:
    return AuditEvent(type=kind, at_ms=at_ms, payload=payload)
