"""What passes between a running workflow and its activities: the input, the tick and its outcome.

A tick is the unit of durability. The workflow proposes a `Delta`; one transaction journals it; what the
journal holds is what the workflow applies. Deltas are self-contained: applying the journal's deltas in order
to the initial state gives the present state, whatever was in whose inbox.
"""

from typing import Any, Literal

from pydantic import Field

from engine.contracts.circuits import CircuitCheck, CircuitRule, CircuitView
from engine.contracts.compensation import Compensated, Compensating, LeftCompensation, Uncompensated, UndoStep
from engine.contracts.definition import RetryPolicy
from engine.contracts.dynamic import Arrival, Expanded, ExternalEvent, GraphWrites, Looked, Triggered
from engine.contracts.events import AuditEvent, InboxBatch
from engine.contracts.execution import ExecutionStatus
from engine.contracts.hooks import HookEntry
from engine.contracts.model import Model


class KernelTrigger(Model):
    """What the kernel must know of a trigger; its expression stays in PostgreSQL."""

    event: str
    conditional: bool = Field(False, description="it has an expression over the payload")
    timeout_ms: int | None = None
    on_timeout: Literal["fail", "skip", "run"] = "fail"


class KernelTask(Model):
    """What the kernel must know of a task. Its input stays in PostgreSQL until it is dispatched."""

    id: str
    role: str
    deps: tuple[int, ...] = Field((), description="indexes of tasks; in a plan always smaller than its own")
    slack_ms: int = 0
    estimate_ms: int = 1000
    timeout_ms: int = 300_000
    retry: RetryPolicy
    alone: bool = False
    on_failure: Literal["fail_fast", "finish_branches"] | None = None
    fused: bool = Field(False, description="goes out with its only dependency, to the same agent, and runs after it")
    when: bool = Field(False, description="a condition is evaluated before it starts")
    for_each: bool = Field(False, description="it stands for one task an element")
    triggers: tuple[KernelTrigger, ...] = ()
    reuse: bool = False
    agent: str | None = Field(None, description="the one agent that may do it; None for any of the role")
    asked: bool = Field(False, description="asked for by the pattern, which judges its end")
    action: str | None = Field(None, description="what its agent does, where the pattern must know; None: the id")
    resources: tuple[str, ...] = Field((), description="what it uses, where the pattern must know")
    guarded: bool = Field(False, description="blocking hooks are asked before it starts")
    compensation: str | None = Field(None, description="the action that undoes it")


class KernelRole(Model):
    type: str
    count: int
    capabilities: tuple[str, ...] = ()
    wanted: int | None = Field(None, description="in the definition, where the constraints allot fewer: `count`")
    cpu_micros: int = Field(0, description="what each agent takes; 0: the definition does not say")
    memory_bytes: int = 0


class KernelPlan(Model):
    """The plan in the form that the kernel runs, in topological order."""

    tasks: tuple[KernelTask, ...]
    roles: dict[str, KernelRole]
    on_failure: Literal["fail_fast", "finish_branches"] = "fail_fast"
    compensates: bool = Field(True, description="tasks with a compensation are registered for it")
    rolls_back: bool = Field(True, description="what is registered is undone when the execution does not complete")
    circuit: CircuitRule | None = Field(None, description="of the agent types' breakers; None: they are not asked")


class AgentBinding(Model):
    """A logical agent and the host process that serves it at present."""

    agent_id: str
    role: str
    host_id: str | None = None
    slots: int = Field(1, description="tasks that it does at once")
    chains: bool = Field(False, description="its host understands fused chains")
    speed: float = Field(1.0, description="of its host: 1.0 is that of most of its type, 0.5 takes twice as long")


class Paced(Model):
    """An agent whose host works at this speed now."""

    agent_id: str
    speed: float


class Suspected(Model):
    """An agent whose host is silent: it gets nothing new until it is heard again, or this time."""

    agent_id: str
    until_ms: int


class Attempt(Model):
    """An attempt of a task. Results count only for the current (epoch, task, attempt)."""

    task_id: str
    agent_id: str
    attempt: int
    host_id: str = Field("", description="where it was sent; in assignments, so that they can be sent again")
    after: tuple[str, ...] = Field((), description="dependencies at the same host, after which it is to run")
    note: Any = Field(None, description="what the pattern tells the agent beside the task's input")
    overlay: dict[str, Any] | None = Field(None, description="what the pattern lays over the task's input")
    input: dict[str, Any] | None = Field(None, description="what a blocking hook gives it instead of the task's input")


class Started(Model):
    task_id: str
    attempt: int
    at_ms: int


class Done(Model):
    task_id: str
    attempt: int
    agent_id: str
    started_at_ms: int
    at_ms: int


class Failed(Model):
    """The end of an attempt without a result. `retry_at_ms` is None when the task is given up."""

    task_id: str
    attempt: int
    agent_id: str
    code: str
    message: str
    at_ms: int
    retry_at_ms: int | None = None
    blamed: bool = Field(True, description="false when the agent was lost: counts as a loss, not as a failure")


class Submission(Model):
    """A task whose end the pattern judges: an attempt's result, an attempt's failure, or (attempt 0) the task itself.

    It stands in the state until it is settled, so that the pattern finds it at any later tick.
    """

    task_id: str
    attempt: int = 0
    agent_id: str = ""
    started_at_ms: int = 0
    at_ms: int
    result: Any = None
    result_ref: str | None = Field(None, description="where a large result is stored, instead of `result`")
    code: str = Field("", description="of the failure; empty for a result")
    message: str = ""
    spawn: tuple[dict[str, Any], ...] = Field((), description="tasks that it adds to the graph once it is accepted")

    @property
    def failed(self) -> bool:
        return bool(self.code)


class Settled(Model):
    """What the pattern made of a submission: completed as it is, with a result of the pattern's own, or to do again."""

    task_id: str
    verdict: Literal["accept", "resolve", "again"]


class Errand(Model):
    """A regular activity that the kernel asks for. It is done at least once; its outcome comes back by its key."""

    key: str = Field(description="unique in the execution")
    kind: str = Field(description="names the activity, see `workflows.errands`")
    task_id: str = ""
    input: Any = None


class ErrandRequest(Model):
    """The argument of an errand's activity."""

    tenant: str
    execution_id: str
    workflow_id: str
    trace_id: str
    epoch: int
    errand: Errand


class ErrandOutcome(Model):
    """What came of an errand. Its activity fails only where trying again may help."""

    key: str
    ok: bool = True
    value: Any = None
    code: str = ""
    message: str = ""


class TerminalError(Model):
    """`error_details` of a failed execution."""

    error_code: str
    error_message: str
    failed_task: str | None = None
    compensation_status: str = "not_required"
    details: dict[str, Any] = Field(default_factory=dict)


class Undoing(Model):
    """Instead of closing: what is to be undone first, in this order, and how the execution then ends."""

    status: ExecutionStatus
    error: TerminalError
    steps: tuple[UndoStep, ...]
    side_by_side: bool = Field(False, description="independent steps are undone at the same time")


class Checkpoint(Model):
    """A named point to resume from: which tasks were done, and which were in flight."""

    checkpoint_id: str
    reason: Literal["pause", "interval", "requested"]
    completed: tuple[str, ...]
    in_flight: tuple[Attempt, ...] = ()


class Rewind(Model):
    """Resumption from an earlier checkpoint: these tasks run again, in the next epoch."""

    checkpoint_id: str
    epoch: int
    tasks: tuple[str, ...]
    dropped: tuple[str, ...] = Field((), description="added tasks that are no more: what added them runs again")


class Spawned(Model):
    """Tasks that an agent's result added."""

    task_id: str = Field(description="the task whose result it was")
    tasks: tuple[KernelTask, ...]
    blocks: tuple[tuple[int, int], ...] = Field(
        (), description="(index of a task that was there, index of a new one that it now waits for)"
    )


class Delta(Model):
    """All that one tick changes. Order of application: as the fields stand here."""

    tick: int
    at_ms: int
    consumed: tuple[str, ...] = Field((), description="stream entries consumed by this tick")
    low: str = Field("0-0", description="entries below this need not be remembered any more")
    fence: int = 0
    rewind: Rewind | None = None
    bound: tuple[AgentBinding, ...] = ()
    started: tuple[Started, ...] = ()
    done: tuple[Done, ...] = ()
    submitted: tuple[Submission, ...] = Field((), description="attempts whose end the pattern judges")
    spawned: tuple[Spawned, ...] = ()
    received: tuple[Arrival, ...] = Field((), description="external events, kept until a trigger takes them")
    forgotten: tuple[str, ...] = Field((), description="external events dropped because too many were waiting")
    failed: tuple[Failed, ...] = ()
    suspected: tuple[Suspected, ...] = ()
    recovered: tuple[str, ...] = Field((), description="agents whose host was suspect and is not any more")
    paced: tuple[Paced, ...] = ()
    gone: tuple[str, ...] = Field((), description="agents whose host is lost")
    returned: tuple[Attempt, ...] = Field((), description="given back unstarted: ready again, same failure count")
    retried: tuple[str, ...] = Field((), description="whose retry delay is over: ready again")
    looked: tuple[Looked, ...] = ()
    triggered: tuple[Triggered, ...] = ()
    waited: tuple[str, ...] = Field((), description="whose wait for an event is over without one: they go on")
    admitted: tuple[str, ...] = Field((), description="evaluated, or let pass by blocking hooks: ready")
    guarded: tuple[str, ...] = Field((), description="evaluated: blocking hooks are asked before they start")
    expanded: tuple[Expanded, ...] = ()
    reused: tuple[str, ...] = Field((), description="completed with the result of an equal task")
    gathered: tuple[str, ...] = Field((), description="`for_each` tasks all of whose elements are completed")
    passed: tuple[str, ...] = Field((), description="skipped by a condition: their dependents go on")
    returned_errands: tuple[str, ...] = Field((), description="keys of errands whose outcome was taken in")
    taken: tuple[Submission, ...] = Field((), description="tasks that the pattern took over before any attempt")
    settled: tuple[Settled, ...] = ()
    asked: tuple[Spawned, ...] = Field((), description="tasks that the pattern asked for")
    posted: dict[str, Any] = Field(default_factory=dict, description="changes of the board; None deletes")
    errands: tuple[Errand, ...] = Field((), description="begun")
    skipped: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    assigned: tuple[Attempt, ...] = ()
    resent: tuple[Attempt, ...] = ()
    registered: tuple[str, ...] = Field((), description="assigned here for the first time, and can be undone")
    doubted: tuple[str, ...] = Field((), description="of those: an attempt ended, and what it did is not known")
    compensated: tuple[Compensated, ...] = ()
    uncompensated: tuple[Uncompensated, ...] = ()
    undoing: Undoing | None = None
    compensating: tuple[Compensating, ...] = ()
    left: tuple[LeftCompensation, ...] = Field((), description="what could not be undone, for an operator")
    grace_over: bool = Field(False, description="what still ran after the pause's grace was given up")
    checkpoint: Checkpoint | None = None
    status: ExecutionStatus | None = None
    error: TerminalError | None = None
    control_seen: str | None = Field(None, description="id of the control request that this tick obeyed")


def delta_text(delta: Delta) -> str:
    """How the journal holds it."""
    return delta.model_dump_json(exclude_defaults=True)


class TaskResult(Model):
    """The result of a completed attempt, on its way to the read model. Not part of the workflow's state."""

    task_id: str
    attempt: int
    result: Any = None
    result_ref: str | None = None


class Metrics(Model):
    """Running totals, written with each tick into the read model."""

    tasks_completed: int = 0
    tasks_failed: int = 0
    tasks_running: int = 0
    tasks_added: int = Field(0, description="by `for_each` and `spawn`")
    awaiting: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="tasks that wait for external events, and for which; the first few"
    )
    idle_ms: int = Field(0, description="time in which no task ran although the execution was not paused")
    paused_ms: int = 0


class TickProposal(Model):
    """The argument of the `commit_tick` local activity."""

    tenant: str
    execution_id: str
    workflow_id: str
    trace_id: str
    tick: int
    base_tick: int = Field(description="last tick that was in Temporal's history when this workflow task began")
    epoch: int
    partition: int
    delta: Delta
    delta_text: str = Field("", description="the delta as it is journalled; written anew when empty")
    acknowledge: tuple[str, ...] = Field(
        (), description="entries to acknowledge after the commit: consumed, or repeats"
    )
    results: tuple[TaskResult, ...] = ()
    cancel: tuple[Attempt, ...] = Field((), description="attempts that no longer count; their agents are told to stop")
    hosts: dict[str, str] = Field(default_factory=dict, description="host of each agent that is to be told something")
    audit: tuple[AuditEvent, ...] = ()
    metrics: Metrics = Metrics()
    current_phase: str | None = None
    growth: int = Field(0, description="how often the graph has changed; 0: task bodies are the definition's")
    writes: GraphWrites | None = Field(None, description="what a change of the graph stores beside the delta")
    circuits: CircuitCheck | None = Field(None, description="asked before the commit: it stands for what was assumed")
    agent_failures: dict[str, int] = Field(
        default_factory=dict, description="attempts whose failure speaks against their agent, by its type"
    )
    linger_ms: int = Field(0, description="how long to wait for results after the commit; 0 not at all")
    hook_entries: tuple[HookEntry, ...] = Field(
        (), description="what its events ask of asynchronous hooks; found out by the activity, not by the kernel"
    )


class Control(Model):
    """What the API last asked of the execution; None when nothing is asked."""

    request_id: str
    action: Literal["pause", "resume", "cancel", "checkpoint"]
    checkpoint_id: str | None = None
    reason: str | None = None


class TickOutcome(Model):
    """What the journal holds from the proposed tick onward, and what has arrived since."""

    ticks: tuple[str, ...] = Field(description="deltas as they are journalled: compared as text, seldom parsed")
    control: Control | None = None
    events: tuple[InboxBatch, ...] = ()
    more: bool = Field(False, description="further ticks are stored: ask again for the next one")
    circuits: tuple[CircuitView, ...] = Field(
        (), description="breakers that are not as the proposal took for granted; what it proposed is not stored then"
    )
    now_ms: int


class BindRequest(Model):
    tenant: str
    execution_id: str
    roles: dict[str, KernelRole]
    agent_ids: tuple[str, ...] | None = Field(None, description="only these; None for all")
    bound: dict[str, str] = Field(default_factory=dict, description="host of each agent that has one already")
    wait_seconds: float = 0.0


class AllocationProblem(Model):
    """Why an agent has no host, where that is known. `code` as in `error_details`."""

    agent_id: str
    code: Literal["RESOURCE_ALLOCATION_FAILED", "AGENT_ALLOCATION_TIMEOUT"]
    message: str


class BindResult(Model):
    bindings: tuple[AgentBinding, ...]
    missing: tuple[str, ...] = Field((), description="agents for which no host is there")
    problems: tuple[AllocationProblem, ...] = Field((), description="of the missing: what is known, the worst first")


class CheckpointRequest(Model):
    tenant: str
    execution_id: str
    checkpoint_id: str


class Carry(Model):
    """What continue-as-new hands to the next run. `state_version` guards its meaning."""

    state_version: int = 1
    state: dict[str, Any]
    inbox: tuple[InboxBatch, ...] = ()
    external: tuple[ExternalEvent, ...] = ()
    teams: dict[str, str] = Field(default_factory=dict, description="teams' workflows, and whether they are open")


class BlockingHooks(Model):
    """Of what the tenant's blocking hooks are to be asked, as they were registered when the execution was started.

    Which planned tasks they guard stands in the plan.
    """

    pre_workflow: bool = False
    post_workflow: bool = False
    added_tasks: bool = Field(False, description="tasks that are added while it runs")


class ExecutionInput(Model):
    """The argument of every pattern's workflow."""

    tenant: str
    execution_id: str
    workflow_id: str
    workflow_name: str
    pattern: str
    pattern_config: dict[str, Any] = Field(default_factory=dict)
    plan: KernelPlan
    partition: int
    trace_id: str
    timeout_ms: int
    checkpoint_interval_ms: int
    pause_grace_ms: int
    started_at_ms: int
    allocation_seconds: float = Field(30.0, description="how long one allocation waits for the agents' hosts")
    history_events_max: int = Field(1_000, description="a run goes on as a new one at about this many events")
    hooks: BlockingHooks | None = Field(None, description="None: nothing waits for hooks")
    carry: Carry | None = None


class ExecutionOutcome(Model):
    """The result of every pattern's workflow, as the Temporal UI shows it."""

    status: ExecutionStatus
    tasks_completed: int
    tasks_failed: int
    error: TerminalError | None = None
