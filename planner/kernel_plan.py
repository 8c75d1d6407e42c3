"""A plan in the form that the kernel runs."""

from engine.contracts.capacity import AgentNeed
from engine.contracts.circuits import CircuitRule
from engine.contracts.definition import (
    RETRY_POLICIES,
    FaultTolerance,
    Pattern,
    RetryPolicy,
    RetryPolicyName,
    TaskDefinition,
    Trigger,
    WorkflowDefinition,
)
from engine.contracts.kernel import KernelPlan, KernelRole, KernelTask, KernelTrigger
from engine.contracts.plan import Plan
from engine.hierarchy import resources_of


def kernel_plan(definition: WorkflowDefinition, plan: Plan, default_retry: RetryPolicyName) -> KernelPlan:
    """`plan` with what the kernel needs of `definition`; `default_retry` is for tasks without a policy of their own."""
    by_id = {task.id: task for task in definition.tasks}
    default = RETRY_POLICIES[default_retry]
    fused = {index for chain in plan.chains for index in chain[1:]}
    # What a hierarchy must know of a task to say who may do it; others need not carry it.
    ranked = definition.orchestration_pattern is Pattern.HIERARCHICAL
    tasks = []
    for index, planned in enumerate(plan.tasks):
        task = by_id[planned.id]
        tasks.append(
            KernelTask.trusted(
                id=planned.id,
                role=planned.role,
                deps=planned.depends_on,
                slack_ms=round(planned.slack_seconds * 1000),
                estimate_ms=round(planned.estimate_seconds * 1000),
                timeout_ms=task.timeout_seconds * 1000,
                retry=_retry(task, default),
                alone=task.parallel is False,
                on_failure=task.on_failure,
                fused=index in fused,
                when=task.when is not None,
                for_each=task.for_each is not None,
                triggers=tuple(_trigger(trigger) for trigger in task.triggers) if task.triggers else (),
                reuse=task.reuse,
                compensation=task.compensation_action,
                action=task.action if ranked else None,
                resources=(resources_of(task.input) or ()) if ranked else (),
            )
        )
    roles = {
        role: KernelRole(
            type=agent.type,
            count=agent.count,
            capabilities=tuple(agent.capabilities),
            cpu_micros=(need := AgentNeed.of(agent)).cpu_micros,
            memory_bytes=need.memory_bytes,
        )
        for role, agent in sorted(definition.agents.items())
    }
    saga = (definition.fault_tolerance or FaultTolerance()).saga_pattern
    return KernelPlan(
        tasks=tuple(tasks),
        roles=roles,
        on_failure=definition.on_failure,
        compensates=saga.compensation_enabled,
        rolls_back=saga.rollback_on_failure,
        circuit=_circuit(definition),
    )


def _circuit(definition: WorkflowDefinition) -> CircuitRule | None:
    """Without `fault_tolerance` nothing was asked for; with it, what it leaves open has its defaults."""
    wanted = None if definition.fault_tolerance is None else definition.fault_tolerance.circuit_breaker
    if wanted is None:
        return None
    return CircuitRule(
        failure_threshold=wanted.failure_threshold,
        timeout_ms=wanted.timeout_seconds * 1000,
        half_open_probes=wanted.half_open_probes,
        when_open=wanted.when_open,
    )


def _trigger(trigger: Trigger) -> KernelTrigger:
    return KernelTrigger(
        event=trigger.event,
        conditional=trigger.when is not None,
        timeout_ms=trigger.timeout_seconds * 1000 if trigger.timeout_seconds is not None else None,
        on_timeout=trigger.on_timeout,
    )


def _retry(task: TaskDefinition, default: RetryPolicy) -> RetryPolicy:
    match task.retry_policy:
        case None:
            return default
        case RetryPolicy() as policy:
            return policy
        case name:
            return RETRY_POLICIES[name]
