"""All operations in one table: name, permission, parameters, use case."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, get_type_hints

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.model import Model, StrictModel
from engine.contracts.views import ExecutionStarted, WorkflowCreated
from engine.ports import OperationLog
from engine.security.permissions import Permission
from gateway.operations.agents import AGENT_METHODS, AgentOperations, agent_operations
from gateway.operations.breakers import BREAKER_METHODS, BreakerOperations, breaker_operations
from gateway.operations.compensations import (
    COMPENSATION_METHODS,
    CompensationOperations,
    compensation_operations,
)
from gateway.operations.control import ControlExecution, ControlOperations, ResumeExecution
from gateway.operations.dead_letters import (
    ChosenDeadLetters,
    DeadLetterOperations,
    DeadLetterReference,
    ListDeadLetters,
)
from gateway.operations.definitions import (
    CREATE_POSITIONAL,
    DefinitionOperations,
    ListWorkflows,
    WorkflowReference,
    parse_create,
)
from gateway.operations.executions import (
    ExecuteWorkflow,
    ExecutionOperations,
    ExecutionReference,
    ListExecutions,
    ListOfExecution,
    ListTasks,
    RecountVotes,
    SendEvent,
    TaskReference,
)
from gateway.operations.hooks import HOOK_METHODS, HookOperations, hook_operations
from gateway.operations.operation import (
    Caller,
    LoadGauge,
    NoParameters,
    Operation,
    Operations,
    PageParameters,
    parse_parameters,
)
from gateway.operations.patterns import PatternOperations, pattern_operations
from gateway.operations.statistics import ReadStatistics, StatisticsOperations
from gateway.operations.system import SystemOperations
from gateway.operations.watch_tickets import WatchTicketOperations

METHODS = (
    "workflow.create",
    "workflow.execute",
    "workflow.status",
    "workflow.pause",
    "workflow.resume",
    "workflow.cancel",
    "workflow.get",
    "workflow.list",
    "workflow.delete",
    "execution.list",
    "execution.result",
    "execution.send_event",
    "swarm.recount",
    "pattern.register",
    "pattern.list",
    "pattern.get",
    "execution.watch_token",
    "dead_letter.list",
    "dead_letter.get",
    "dead_letter.replay",
    "dead_letter.purge",
    *HOOK_METHODS,
    *COMPENSATION_METHODS,
    *AGENT_METHODS,
    *BREAKER_METHODS,
)
"""The operations that JSON-RPC offers; REST offers all."""


def build_operations(
    definitions: DefinitionOperations,
    executions: ExecutionOperations,
    control: ControlOperations,
    system: SystemOperations,
    patterns: PatternOperations,
    log: OperationLog,
    dead_letters: DeadLetterOperations,
    watch_tickets: WatchTicketOperations,
    hooks: HookOperations,
    compensations: CompensationOperations,
    statistics: StatisticsOperations,
    agents: AgentOperations,
    breakers: BreakerOperations,
    pressure: LoadGauge | None = None,
) -> Operations:
    create = Operation(
        name="workflow.create",
        permission=Permission.WORKFLOW_CREATE,
        parse=parse_create,
        run=definitions.create,
        parameters=WorkflowDefinition,
        result=WorkflowCreated,
        positional=CREATE_POSITIONAL,
        subject_type="workflow",
        result_subject="workflow_id",
    )
    execute = Operation(
        name="workflow.execute",
        permission=Permission.WORKFLOW_EXECUTE,
        parse=partial(parse_parameters, ExecuteWorkflow),
        run=executions.execute,
        parameters=ExecuteWorkflow,
        result=ExecutionStarted,
        positional=tuple(ExecuteWorkflow.model_fields),
        subject_type="execution",
        subject_field="workflow_id",
        result_subject="execution_id",
    )
    of_workflow = partial(_operation, subject_type="workflow", subject_field="workflow_id")
    of_execution = partial(_operation, subject_type="execution", subject_field="execution_id")
    of_engine = partial(_operation, subject_type="engine")
    of_letters = partial(_operation, subject_type="dead_letter")
    read, admin = Permission.WORKFLOW_READ, Permission.WORKFLOW_ADMIN
    table = (
        create,
        execute,
        of_workflow("workflow.get", read, WorkflowReference, definitions.get),
        _operation("workflow.list", read, ListWorkflows, definitions.list, "workflow"),
        of_workflow("workflow.delete", admin, WorkflowReference, definitions.delete),
        of_execution("workflow.status", read, ExecutionReference, executions.status),
        of_execution("execution.watch", read, ExecutionReference, executions.watch),
        of_execution("execution.watch_token", read, ExecutionReference, watch_tickets.issue),
        of_execution("workflow.pause", admin, ControlExecution, control.pause),
        of_execution("workflow.resume", admin, ResumeExecution, control.resume, positional=_RESUME),
        of_execution("workflow.cancel", admin, ControlExecution, control.cancel),
        _operation("execution.list", read, ListExecutions, executions.list, "execution"),
        of_execution("execution.tasks", read, ListTasks, executions.tasks),
        of_execution("execution.result", read, TaskReference, executions.result),
        of_execution("execution.send_event", Permission.WORKFLOW_EXECUTE, SendEvent, executions.send_event),
        of_execution("swarm.recount", read, RecountVotes, executions.recount),
        of_execution("execution.events", read, ListOfExecution, executions.events),
        of_execution("execution.checkpoints", read, ListOfExecution, executions.checkpoints),
        of_execution("execution.checkpoint", admin, ControlExecution, control.checkpoint),
        *pattern_operations(patterns),
        *hook_operations(hooks),
        *compensation_operations(compensations),
        *agent_operations(agents),
        *breaker_operations(breakers),
        of_engine("capacity.get", read, NoParameters, system.capacity),
        of_engine("statistics.get", read, ReadStatistics, statistics.get),
        of_engine("audit.list", admin, PageParameters, system.audit),
        of_letters("dead_letter.list", admin, ListDeadLetters, dead_letters.list),
        of_letters("dead_letter.get", admin, DeadLetterReference, dead_letters.get, subject_field="letter_id"),
        of_letters("dead_letter.replay", admin, ChosenDeadLetters, dead_letters.replay, subject_field="letter_ids"),
        of_letters("dead_letter.purge", admin, ChosenDeadLetters, dead_letters.purge, subject_field="letter_ids"),
    )
    return Operations(table, log, pressure)


_RESUME = ("execution_id", "checkpoint_id", "reason", "idempotency_key")


def _operation(
    name: str,
    permission: Permission,
    parameters: type[StrictModel],
    run: Callable[[Caller, Any], Awaitable[Model | None]],
    subject_type: str,
    subject_field: str | None = None,
    positional: tuple[str, ...] | None = None,
) -> Operation:
    return Operation(
        name=name,
        permission=permission,
        parse=partial(parse_parameters, parameters),
        run=run,
        parameters=parameters,
        result=get_type_hints(run)["return"],
        positional=tuple(parameters.model_fields) if positional is None else positional,
        subject_type=subject_type,
        subject_field=subject_field,
    )
