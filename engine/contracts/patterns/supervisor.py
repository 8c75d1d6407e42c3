"""Settings of the supervisor pattern: ready tasks go to capable workers."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engine.contracts.definition import Name, Text
from engine.contracts.limits import AGENTS_MAX, TASK_TIMEOUT_MAX_SECONDS, TASKS_MAX
from engine.contracts.model import StrictModel
from engine.contracts.topology import AgentId

WISHES_MAX = 100

Wishes = Annotated[list[Text], Field(min_length=1, max_length=WISHES_MAX)]


class Review(StrictModel):
    """An agent of the role `agent` looks at results, and says what becomes of them."""

    agent: Name = Field(description="the supervising role; what its own tasks bring is not reviewed")
    action: Name = Field("review", description="of the review's task")
    tasks: list[Name] | None = Field(
        None, min_length=1, max_length=TASKS_MAX, description="which tasks are reviewed; absent: all"
    )
    failures: bool = Field(False, description="tasks that failed for good are reviewed, too")
    rounds_max: int = Field(3, ge=1, le=20, description="reviews of one task")
    on_exhausted: Literal["fail", "accept"] = Field(
        "fail", description="what becomes of a task that the last review sends back"
    )
    bad_answers_max: int = Field(
        2, ge=0, le=10, description="reviews in a row that failed or made no sense and are asked for once more"
    )
    on_no_verdict: Literal["fail", "accept"] = Field(
        "fail", description="what becomes of a task about which no review says anything that makes sense"
    )
    timeout_seconds: int | None = Field(
        None, ge=1, le=TASK_TIMEOUT_MAX_SECONDS, description="of a review; absent: the reviewed task's"
    )


class SupervisorConfig(StrictModel):
    """`pattern_config` of the supervisor pattern."""

    strategy: Literal["least_loaded", "round_robin", "weighted"] = Field(
        "least_loaded",
        description="which worker gets a task: the one with the least to do; the one whose turn it is; or the one with "
        "the least to do for its weight",
    )
    weight_by: Literal["speed", "capability"] = Field(
        "speed",
        description="weighted: by how fast the worker has been, or by how many of the capabilities in `wanted` it has",
    )
    capabilities: dict[AgentId, Wishes] = Field(
        default_factory=dict, max_length=AGENTS_MAX, description="of single workers, beyond what their role requires"
    )
    wanted: dict[Name, Wishes] = Field(
        default_factory=dict, max_length=TASKS_MAX, description="for tasks, the capabilities that a worker should have"
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        le=1_000,
        description="attempts that one worker has at a time; absent: its slots and some ahead",
    )
    review: Review | None = None

    @model_validator(mode="after")
    def _weights_where_they_count(self) -> Self:
        by_capability = self.strategy == "weighted" and self.weight_by == "capability"
        if self.weight_by == "capability" and self.strategy != "weighted":
            raise ValueError("weight_by belongs to the strategy weighted")
        if (self.capabilities or self.wanted) and not by_capability:
            raise ValueError("capabilities and wanted belong to the strategy weighted by capability")
        if by_capability and not self.wanted:
            raise ValueError("weighted by capability needs wanted")
        return self
