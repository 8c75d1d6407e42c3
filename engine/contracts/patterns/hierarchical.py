"""Settings of the hierarchical pattern: levels of agents that delegate down and escalate up.

Beside the settings, what a superior answers when it is asked: `EscalationAnswer` and `DelegationAnswer`. An answer is
written by an agent, so it is as strict as what clients write.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from engine.contracts.definition import Name, Text
from engine.contracts.limits import (
    AGENTS_MAX,
    NAME_LENGTH_MAX,
    TASK_TIMEOUT_DEFAULT_SECONDS,
    TASK_TIMEOUT_MAX_SECONDS,
    TASKS_MAX,
)
from engine.contracts.model import StrictModel

LEVELS_MAX: Final = 20
"""Levels of one hierarchy, those of the members at the bottom counted too."""

TEAMS_MAX: Final = 1_000
MEMBERS_MAX: Final = 1_000
ENTRIES_MAX: Final = 1_000
"""Of one list of what is allowed."""

ESCALATION_ACTION: Final = "escalation"
"""What a lead is asked to do with a failure of one below it."""

DELEGATION_ACTION: Final = "delegation"
"""What a lead is asked to do with a task of its team."""

RESOURCES_FIELD: Final = "resources"
"""In a task's `input`: the names of what it uses."""

Decision = Literal["retry", "reassign", "resolve", "fail"]
LevelName = Annotated[str, Field(pattern=r"^L[1-9][0-9]?$")]
Allowed = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=r"^[^\x00-\x1f\x7f*]*\*?$")]
"""A name, or the beginning of names with a star behind it."""


class Team(StrictModel):
    """A lead and who reports to it."""

    lead: Name = Field(description="the role that leads it")
    members: list[Name] = Field(min_length=1, max_length=MEMBERS_MAX, description="roles, or teams led by their leads")
    delegation: Literal["direct", "lead"] = Field(
        "direct",
        description="direct: a ready task goes to a free agent of its role; lead: the lead is asked who does it, and "
        "with what input",
    )
    reports_max: int | None = Field(None, ge=1, le=AGENTS_MAX, description="overrides that of span_of_control")
    in_flight_max: int | None = Field(None, ge=1, le=TASKS_MAX, description="overrides that of span_of_control")

    @model_validator(mode="after")
    def _members_are_named_once(self) -> Self:
        if len(set(self.members)) < len(self.members):
            raise ValueError("members names one twice")
        return self


class SpanOfControl(StrictModel):
    """How much one lead may have below it. Absent: without limit."""

    reports_max: int | None = Field(None, ge=1, le=AGENTS_MAX, description="agents that report to one lead directly")
    in_flight_max: int | None = Field(None, ge=1, le=TASKS_MAX, description="tasks in flight below one lead at a time")


class Authority(StrictModel):
    """What is allowed. Absent: anything; an empty list: nothing."""

    actions: Annotated[list[Allowed], Field(max_length=ENTRIES_MAX)] | None = None
    resources: Annotated[list[Allowed], Field(max_length=ENTRIES_MAX)] | None = Field(
        None, description="names that tasks list in `resources` of their input"
    )
    decisions: list[Decision] | None = Field(
        None, max_length=4, description="of a superior about a failure; passing it on is always allowed"
    )


class Authorities(StrictModel):
    """A role may do what both its level and its own entry allow."""

    levels: dict[LevelName, Authority] = Field(default_factory=dict, max_length=LEVELS_MAX)
    roles: dict[Name, Authority] = Field(default_factory=dict, max_length=AGENTS_MAX)


class Escalation(StrictModel):
    """How failures go up."""

    interventions_max: int = Field(
        1, ge=1, le=10, description="decisions of one level about one task, before its next failure goes past it"
    )
    answers_max: int = Field(2, ge=1, le=5, description="times that a superior is asked, when it answers nonsense")
    decision_timeout_seconds: int = Field(
        TASK_TIMEOUT_DEFAULT_SECONDS, ge=1, le=TASK_TIMEOUT_MAX_SECONDS, description="for one answer"
    )


class HierarchicalConfig(StrictModel):
    """`pattern_config` of the hierarchical pattern."""

    teams: dict[Name, Team] = Field(
        default_factory=dict,
        max_length=TEAMS_MAX,
        description="one of them is no other's member: its lead is level L1; empty: nobody is above anybody",
    )
    authority: Authorities = Field(default_factory=Authorities)
    span_of_control: SpanOfControl = Field(default_factory=SpanOfControl)
    escalation: Escalation = Field(default_factory=Escalation)


class EscalationAnswer(StrictModel):
    """What a superior makes of a failure."""

    decision: Literal["retry", "reassign", "resolve", "fail", "escalate"]
    to: Name | None = Field(None, description="with reassign: an agent, or any of a role")
    input: dict[str, Any] | None = Field(None, description="with retry and reassign: laid over the task's input")
    feedback: Any = Field(None, description="with retry and reassign: what its agent is told beside the input")
    result: Any = Field(None, description="with resolve: the task's result")
    reason: Text | None = Field(None, description="for the audit log")

    @model_validator(mode="after")
    def _fields_fit_the_decision(self) -> Self:
        given = self.model_fields_set
        if (self.decision == "reassign") != (self.to is not None):
            raise ValueError("`to` goes with reassign, and reassign with `to`")
        if given & {"input", "feedback"} and self.decision not in ("retry", "reassign"):
            raise ValueError("`input` and `feedback` go with retry and reassign")
        if ("result" in given) != (self.decision == "resolve"):
            raise ValueError("`result` goes with resolve, and resolve with `result`")
        return self


class DelegationAnswer(StrictModel):
    """Who of a lead's team is to do a task."""

    to: Name = Field(description="an agent, any of a role, or a team whose lead is asked in turn")
    input: dict[str, Any] | None = Field(None, description="laid over the task's input")
    feedback: Any = Field(None, description="what its agent is told beside the input")
