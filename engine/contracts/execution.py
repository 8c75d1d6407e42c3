"""States of executions and tasks, and what a client may ask of one execution."""

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from engine.contracts.definition import RetryPolicyName
from engine.contracts.limits import (
    CHECKPOINT_INTERVAL_DEFAULT_SECONDS,
    EXECUTION_TIMEOUT_DEFAULT_SECONDS,
    EXECUTION_TIMEOUT_MAX_SECONDS,
)
from engine.contracts.model import StrictModel
from engine.contracts.resources import parse_cpu_cores, parse_memory_bytes


class ExecutionStatus(StrEnum):
    PLANNING = "planning"
    EXECUTING = "executing"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def closed(self) -> bool:
        return self in (ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED)


class TaskState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    CANCELLED = "cancelled"


class AgentStatus(StrEnum):
    ASSIGNED = "assigned"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class ResourceConstraints(StrictModel):
    max_agents: int | None = Field(None, ge=1, le=1_000_000)
    max_cpu: str | None = None
    max_memory: str | None = None

    @model_validator(mode="after")
    def _parses(self) -> Self:
        parse_cpu_cores(self.max_cpu)
        parse_memory_bytes(self.max_memory)
        return self


Priority = Literal["low", "normal", "high"]
"""Who goes first when executions wait for capacity."""


class ExecutionOptions(StrictModel):
    """`execution_options` of `workflow.execute`."""

    timeout: int = Field(
        EXECUTION_TIMEOUT_DEFAULT_SECONDS, ge=1, le=EXECUTION_TIMEOUT_MAX_SECONDS, description="seconds"
    )
    retry_policy: RetryPolicyName = "exponential_backoff"
    resource_constraints: ResourceConstraints = Field(default_factory=ResourceConstraints)
    checkpoint_interval: int = Field(
        CHECKPOINT_INTERVAL_DEFAULT_SECONDS, ge=1, le=EXECUTION_TIMEOUT_MAX_SECONDS, description="seconds"
    )
    priority: Priority = Field("normal", description="who goes first when executions wait for capacity")
    allow_concurrent: bool = Field(False, description="lift the limit of one open execution a workflow")
    pause_grace_seconds: int = Field(
        30,
        ge=0,
        le=3600,
        description="what still runs this long after a pause is given up and will run again",
    )


JsonObject = dict[str, Any]
