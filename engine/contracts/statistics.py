"""Statistics of executions, as they were counted last."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from engine.contracts.model import Model
from engine.contracts.views import Page


class RunStatistics(Model):
    executions: dict[str, int] = Field(description="by status")
    duration_p50_seconds: float | None = Field(None, description="of completed executions; null without one")
    duration_p95_seconds: float | None = None
    tasks_completed: int = 0
    tasks_failed: int = 0
    failures: dict[str, int] = Field(default_factory=dict, description="failed executions by error code, at most 20")
    last_started_at: datetime | None = None


class WorkflowStatistics(RunStatistics):
    workflow_id: UUID
    workflow_name: str
    version: str
    orchestration_pattern: str


class Statistics(Page[WorkflowStatistics]):
    """One page of workflows, and the sums of all of them."""

    as_of: datetime | None = Field(None, description="when they were counted; null before the first time")
    total: RunStatistics
    patterns: dict[str, RunStatistics]
