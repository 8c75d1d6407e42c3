"""What a client submits: agents, tasks, dependencies and a coordination pattern.

Field names and defaults follow the public definition format (`docs/definition-format.md`). These models check
each field on its own; what needs the whole graph (roles, dependencies, cycles) is the planner's.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from engine.contracts.circuits import WhenOpen
from engine.contracts.limits import (
    AGENTS_MAX,
    ATTEMPTS_DEFAULT,
    ATTEMPTS_MAX,
    EVENT_NAME_PATTERN,
    EXECUTION_TIMEOUT_MAX_SECONDS,
    EXPRESSION_LENGTH_MAX,
    NAME_LENGTH_MAX,
    NAME_PATTERN,
    RETRY_DELAY_MAX_SECONDS,
    TASK_TIMEOUT_DEFAULT_SECONDS,
    TASK_TIMEOUT_MAX_SECONDS,
    TRIGGERS_MAX,
    VERSION_LENGTH_MAX,
    VERSION_PATTERN,
)
from engine.contracts.model import StrictModel
from engine.contracts.resources import parse_cpu_cores, parse_memory_bytes


def _no_control_characters(value: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValueError("must not contain control characters")
    return value


Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
Version = Annotated[str, Field(min_length=1, max_length=VERSION_LENGTH_MAX, pattern=VERSION_PATTERN)]
Text = Annotated[str, Field(max_length=4096), AfterValidator(_no_control_characters)]


class Pattern(StrEnum):
    """The seven coordination patterns."""

    SUPERVISOR = "supervisor"
    HIERARCHICAL = "hierarchical"
    HANDOFF = "handoff"
    SWARM = "swarm"
    NETWORK = "network"
    SAGA = "saga"
    CUSTOM = "custom"


class RetryPolicy(StrictModel):
    """How often and when a failed task runs again."""

    max_attempts: int = Field(ATTEMPTS_DEFAULT, ge=1, le=ATTEMPTS_MAX, description="the first one included")
    backoff: Literal["exponential", "linear"] = "exponential"
    initial_delay_seconds: float = Field(1.0, ge=0, le=3600)
    max_delay_seconds: float = Field(RETRY_DELAY_MAX_SECONDS, ge=0, le=3600)

    def delay_seconds(self, failures: int) -> float:
        """Seconds between the `failures`-th failure (from 1) and the next attempt."""
        factor = 2 ** min(failures - 1, 30) if self.backoff == "exponential" else failures
        return min(self.initial_delay_seconds * factor, self.max_delay_seconds)


RetryPolicyName = Literal["exponential_backoff", "linear", "none"]

RETRY_POLICIES: dict[str, RetryPolicy] = {
    "exponential_backoff": RetryPolicy(),
    "linear": RetryPolicy(backoff="linear"),
    "none": RetryPolicy(max_attempts=1),
}


class Resources(StrictModel):
    """What one agent needs. `cpu`: "2 cores", "500m", "1.5"; `memory`: "4GB", "512Mi"."""

    cpu: str | None = Field(None, max_length=64)
    memory: str | None = Field(None, max_length=64)

    @model_validator(mode="after")
    def _parses(self) -> Self:
        parse_cpu_cores(self.cpu)
        parse_memory_bytes(self.memory)
        return self

    @property
    def cpu_cores(self) -> float:
        return parse_cpu_cores(self.cpu)

    @property
    def memory_bytes(self) -> int:
        return parse_memory_bytes(self.memory)


class AgentRequirement(StrictModel):
    """A role: which type of agent, how many instances, what they must be able to do."""

    type: Name
    count: int = Field(1, ge=1, le=AGENTS_MAX)
    capabilities: list[Text] = Field(default_factory=list, max_length=100)
    resources: Resources = Field(default_factory=Resources)


Expression = Annotated[str, Field(min_length=1, max_length=EXPRESSION_LENGTH_MAX)]
"""Text in the expression language of `docs/expressions.md`; parsed by the planner, evaluated by an activity."""

EventName = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=EVENT_NAME_PATTERN)]


class Trigger(StrictModel):
    """An external event that a task waits for once its dependencies are done."""

    event: EventName
    when: Expression | None = Field(
        None, description="over the event's payload; only an event for which it is true counts"
    )
    timeout_seconds: int | None = Field(
        None,
        ge=1,
        le=EXECUTION_TIMEOUT_MAX_SECONDS,
        description="from when the dependencies are done; absent: for ever",
    )
    on_timeout: Literal["fail", "skip", "run"] = Field("fail", description="what becomes of the task")


class TaskDefinition(StrictModel):
    """One task. Its agent gets the execution's input, `input`, and the results of its direct dependencies."""

    id: Name
    agent: Name = Field(description="the role that does it")
    depends_on: list[Name] = Field(default_factory=list)
    parallel: bool | None = Field(None, description="absent: dependencies decide; false: it runs alone")
    timeout_seconds: int = Field(TASK_TIMEOUT_DEFAULT_SECONDS, ge=1, le=TASK_TIMEOUT_MAX_SECONDS)
    retry_policy: RetryPolicyName | RetryPolicy | None = None
    compensation_action: Name | None = None
    input: dict[str, Any] = Field(default_factory=dict)
    action: Name | None = Field(None, description="what the agent is asked to do; the task's id when absent")
    estimated_seconds: float | None = Field(None, ge=0, le=TASK_TIMEOUT_MAX_SECONDS)
    on_failure: Literal["fail_fast", "finish_branches"] | None = None
    when: Expression | None = Field(None, description="false: the task is skipped")
    for_each: Expression | None = Field(None, description="a list: the task runs once for each of its elements")
    triggers: list[Trigger] = Field(
        default_factory=list, max_length=TRIGGERS_MAX, description="any of them sets it off"
    )
    reuse: bool = Field(False, description="take the result of an equal task (type, action, inputs) if there is one")

    @model_validator(mode="before")
    @classmethod
    def _timeout_is_an_alias(cls, data: Any) -> Any:
        if isinstance(data, dict) and "timeout" in data:
            if "timeout_seconds" in data:
                raise ValueError("give timeout or timeout_seconds, not both")
            data = {**data, "timeout_seconds": data["timeout"]}
            del data["timeout"]
        return data


class Coordination(StrictModel):
    """How tasks are set off: by the graph, by events, or by both."""

    type: Literal["hybrid", "event_driven", "graph_based"]
    event_driven: list[
        Literal["task_completed", "task_failed", "agent_registered", "agent_disconnected", "external_event"]
    ] = Field(default_factory=list)
    graph_based: list[Literal["dependencies", "critical_path", "parallelism", "priorities"]] = Field(
        default_factory=list
    )


class CircuitBreakerConfig(StrictModel):
    """When the breaker of an agent type opens, for how long, and what then becomes of its tasks."""

    failure_threshold: int = Field(3, ge=1, le=1000, description="failures in a row")
    timeout_seconds: int = Field(30, ge=1, le=3600)
    # Definitions of before there were these fields keep their hash.
    half_open_probes: int = Field(1, ge=1, le=100, exclude_if=lambda value: value == 1)
    when_open: WhenOpen = Field("wait", exclude_if=lambda value: value == "wait")


class SagaConfig(StrictModel):
    compensation_enabled: bool = True
    rollback_on_failure: bool = True


class FaultTolerance(StrictModel):
    circuit_breaker: CircuitBreakerConfig | None = Field(
        default_factory=CircuitBreakerConfig, description="null: agents' breakers are not asked"
    )
    saga_pattern: SagaConfig = Field(default_factory=SagaConfig)


class PatternReference(StrictModel):
    """A registered pattern."""

    name: Name
    version: Version


class WorkflowDefinition(StrictModel):
    """A whole definition, as `workflow.create` takes it."""

    name: Name
    version: Version
    description: Text | None = None
    orchestration_pattern: Pattern = Field(strict=False)
    pattern_config: dict[str, Any] = Field(default_factory=dict)
    agents: dict[Name, AgentRequirement] = Field(min_length=1)
    tasks: list[TaskDefinition] = Field(min_length=1)
    coordination: Coordination
    fault_tolerance: FaultTolerance | None = None
    on_failure: Literal["fail_fast", "finish_branches"] = "fail_fast"
    pattern: PatternReference | None = Field(
        None,
        description="with `custom`: which registered pattern",
        exclude_if=lambda value: value is None,  # definitions of before there was this field keep their hash
    )
