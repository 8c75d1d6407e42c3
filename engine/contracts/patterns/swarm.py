"""Settings of the swarm pattern: equal agents that decide by vote."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from engine.contracts.definition import Name
from engine.contracts.model import StrictModel
from engine.contracts.topology import TopologyConfig
from engine.contracts.voting import Choice, Share, VotingRule

OPTIONS_MAX = 100
ROUNDS_MAX = 100
SHOWN_MAX = 100

SETTINGS_MAX = 100
"""Tasks with settings of their own: each is checked together with the settings of all."""


def check_each(settings: Mapping[str, Any], read: Callable[[str], object]) -> None:
    """Read the settings of each task; a ValueError says which one is wrong, and where."""
    for task_id in settings:
        try:
            read(task_id)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in (task_id, *first["loc"]))
            raise ValueError(f"{where}: {first['msg']}") from error


class Convergence(StrictModel):
    """When further rounds are not worth it."""

    share: Share = Field(1.0, description="of the members that did not change their vote from one round to the next")
    rounds: int = Field(1, ge=1, le=ROUNDS_MAX, description="in so many rounds one after the other")


class Question(StrictModel):
    """How the members decide a task."""

    voting: VotingRule = Field(default_factory=VotingRule)
    options: Annotated[list[Choice], Field(max_length=OPTIONS_MAX)] = Field(
        default_factory=list, description="what may be voted for; empty: anything, or what was proposed"
    )
    proposals: Literal["none", "first", "every"] = Field(
        "none", description="members propose before the first round, or before every round, and vote on the proposals"
    )
    candidates_max: int = Field(
        20, ge=2, le=OPTIONS_MAX, description="proposals that are voted on: those most often made"
    )
    rounds_max: int = Field(3, ge=1, le=ROUNDS_MAX)
    round_seconds: float | None = Field(
        None, gt=0, le=7 * 24 * 3600, description="a round ends after so long, whoever has not voted; absent: never"
    )
    early: bool = Field(False, description="decide as soon as votes that are still out cannot change who is chosen")
    topology: TopologyConfig = Field(
        default_factory=TopologyConfig, description="whose votes of the last round a member sees"
    )
    shown_max: int = Field(
        20, ge=0, le=SHOWN_MAX, description="votes that one member is shown; beyond that a full swarm sees the tally"
    )
    convergence: Convergence = Field(default_factory=Convergence)
    on_undecided: Literal["fail", "complete"] = Field(
        "fail", description="without a decision the task fails, or completes with `decision: null`"
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.options and self.proposals != "none":
            raise ValueError("options and proposals exclude each other: either the choices are given or they are found")
        if len({(type(option) is bool, option) for option in self.options}) < len(self.options):
            raise ValueError("an option stands twice")
        return self


class SwarmConfig(Question):
    """`pattern_config` of the swarm pattern."""

    questions: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, max_length=SETTINGS_MAX, description="for single tasks, the settings that differ"
    )

    @model_validator(mode="after")
    def _questions_are_valid(self) -> Self:
        check_each(self.questions, self.question)
        return self

    def question(self, task_id: str) -> Question:
        """The settings of one task."""
        own = self.model_dump(exclude={"questions"}, exclude_unset=True)
        return Question.model_validate({**own, **self.questions.get(task_id, {})})
