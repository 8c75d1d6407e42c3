"""Settings of the handoff pattern: one agent after another, each taking over the context."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from engine.contracts.definition import Expression, Name
from engine.contracts.limits import AGENTS_MAX, TASK_TIMEOUT_MAX_SECONDS
from engine.contracts.model import StrictModel
from engine.contracts.patterns.swarm import SETTINGS_MAX, check_each
from engine.contracts.topology import AgentId

CONTEXT_BYTES_MAX = 48 * 1024
"""It goes with a task, and leaves room beside it for the history and for feedback."""

EXPRESSIONS_MAX = 20


class JudgingAgent(StrictModel):
    """An agent that looks at a hand-over and answers {"verdict": "accept" or "reject", "feedback": ...}."""

    agent: Name = Field(description="its role")
    action: Name = "judge"
    criteria: str = Field("", max_length=4_096, description="goes to it as it is")
    bad_answers_max: int = Field(
        2, ge=0, le=10, description="answers in a row that failed or made no sense and are asked for once more"
    )
    timeout_seconds: int | None = Field(None, ge=1, le=TASK_TIMEOUT_MAX_SECONDS)


class Gate(StrictModel):
    """What a hand-over must pass. All that is given must hold; without any, everything passes."""

    expressions: list[Expression] = Field(
        default_factory=list, max_length=EXPRESSIONS_MAX, description="over `result` and `context`, the one handed in"
    )
    json_schema: dict[str, Any] | bool | None = Field(None, description="which the result must fit")
    judge: JudgingAgent | None = None


class Station(StrictModel):
    """How a task hands over."""

    gate: Gate = Field(default_factory=Gate)
    to: Annotated[list[AgentId], Field(max_length=AGENTS_MAX)] = Field(
        default_factory=list, description="roles and agents to whom its agent may hand over within the task"
    )
    hops_max: int = Field(10, ge=1, le=100, description="agents that hold a task, one after the other")
    rejections_max: int = Field(
        3, ge=0, le=20, description="times that a hand-over goes back with feedback; the next rejection rolls back"
    )
    rollbacks_max: int = Field(1, ge=0, le=20, description="of a task; then it fails")

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if len(set(self.to)) < len(self.to):
            raise ValueError("to names someone twice")
        return self


class HandoffConfig(Station):
    """`pattern_config` of the handoff pattern."""

    context: dict[str, Any] = Field(default_factory=dict, description="that the first agent is handed")
    context_bytes_max: int = Field(32 * 1024, ge=2, le=CONTEXT_BYTES_MAX, description="of the whole context, as JSON")
    history_shown_max: int = Field(20, ge=0, le=100, description="hand-overs of which an agent is told")
    stations: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, max_length=SETTINGS_MAX, description="for single tasks, the settings that differ"
    )

    @model_validator(mode="after")
    def _stations_are_valid(self) -> Self:
        check_each(self.stations, self.station)
        return self

    def station(self, task_id: str) -> Station:
        """The settings of one task."""
        shared = set(Station.model_fields)
        own = self.model_dump(include=shared, exclude_unset=True)
        return Station.model_validate({**own, **self.stations.get(task_id, {})})
