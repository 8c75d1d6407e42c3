"""What the planner makes of a definition: the graph, ready to be run and to be looked at."""

from typing import Literal

from pydantic import Field

from engine.contracts.model import Model


class Problem(Model):
    """One thing that is wrong with (or could be better in) a definition, and where."""

    code: str = Field(description="stable, e.g. UNKNOWN_DEPENDENCY")
    location: str = Field(description='path in the definition, e.g. "tasks[3].depends_on[0]"')
    message: str = Field(description="what is wrong and the remedy")

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" if self.location else self.message


class PlanTask(Model):
    """A task's place in the graph. Indexes refer to `Plan.tasks`, which is in topological order."""

    id: str
    role: str
    depends_on: tuple[int, ...] = ()
    wave: int = Field(description="topological generation, from 0; for people, never a barrier")
    estimate_seconds: float
    earliest_start_seconds: float
    slack_seconds: float = Field(description="delay that does not lengthen the whole; 0 on the critical path")
    on_critical_path: bool = False
    dynamic: tuple[Literal["when", "for_each", "triggers", "reuse"], ...] = Field(
        (), description="what is decided about it only while the workflow runs"
    )


class EstimatedResources(Model):
    agents_required: int
    estimated_duration_seconds: int
    cpu_cores: float
    memory_gb: float


class Plan(Model):
    """A definition's graph with its schedule. Pure data, cached by content."""

    plan_hash: str = Field(description="SHA-256 of the canonical definition, hexadecimal")
    tasks: tuple[PlanTask, ...]
    waves: tuple[tuple[int, ...], ...]
    critical_path: tuple[int, ...]
    critical_path_seconds: float
    parallelism: tuple[int, ...] = Field(description="tasks in each wave")
    parallelism_max: int = Field(description="most tasks at once when each starts as early as it can")
    estimated_resources: EstimatedResources
    chains: tuple[tuple[int, ...], ...] = Field(
        (), description="fused: an agent gets all tasks of a chain at once and does them one after the other"
    )
    warnings: tuple[Problem, ...] = ()
    optimizations: tuple[Problem, ...] = ()
