"""How votes are counted: the settings of a rule, as a definition and a recount give them."""

import re
from fractions import Fraction
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from engine.contracts.limits import AGENTS_MAX, NAME_LENGTH_MAX, NAME_PATTERN
from engine.contracts.model import Model, StrictModel

CHOICE_LENGTH_MAX: Final = 200
WEIGHT_MAX: Final = 1_000_000
SHARE_PATTERN: Final = r"^[0-9]{1,6}/[0-9]{1,6}$"
_RATIO: Final = re.compile(SHARE_PATTERN)


def fraction_of(share: float | str) -> Fraction:
    """The exact value of a share. A decimal means what it says, not the binary number next to it."""
    if isinstance(share, str):
        if not _RATIO.match(share):
            raise ValueError('a share is a number from 0 to 1 or a ratio such as "2/3"')
        upper, lower = (int(part) for part in share.split("/"))
        if lower == 0:
            raise ValueError("a ratio's lower part is not 0")
        return Fraction(upper, lower)
    return Fraction(str(share))


def _share(share: float | str) -> float | str:
    if not 0 <= fraction_of(share) <= 1:
        raise ValueError("a share lies between 0 and 1")
    return share


Share = Annotated[
    Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | Annotated[str, Field(pattern=SHARE_PATTERN)],
    AfterValidator(_share),
]
"""A part of a whole, exact: 0.5 or "2/3"."""

Choice = (
    Annotated[str, Field(min_length=1, max_length=CHOICE_LENGTH_MAX)]
    | int
    | Annotated[float, Field(allow_inf_nan=False)]
    | bool
)
"""What may be voted for."""

Member = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
Weight = Annotated[float, Field(ge=0, le=WEIGHT_MAX, allow_inf_nan=False)]

RuleName = Literal["majority", "supermajority", "unanimous", "weighted", "ranked_choice", "quorum"]
TieBreak = Literal["earliest", "lowest", "seeded", "none"]

_WITH_THRESHOLD: Final = ("supermajority", "weighted")
_HALF: Final = Fraction(1, 2)


class VotingRule(StrictModel):
    """When votes make a decision."""

    rule: RuleName = Field(
        "majority",
        description="majority: more than half; supermajority: at least `threshold`; unanimous: all; weighted: more "
        "than half of the weight, or at least `threshold` of it; ranked_choice: instant run-off; quorum: the most "
        "votes, once `quorum` of the members have voted",
    )
    threshold: Share | None = Field(
        None, description='supermajority (2/3 when absent) and weighted: the share that decides, above one half; "3/4"'
    )
    of: Literal["members", "votes"] = Field(
        "members", description="what the share is taken of: all members, or the votes that were cast"
    )
    quorum: Share | None = Field(
        None, description="no decision unless this share of the members voted; 1/2 for the rule quorum, else 0"
    )
    tie_break: TieBreak = Field(
        "earliest",
        description="among equals: the one that stands first in the options, the lowest, one drawn by a hash of the "
        "execution, or none, so that there is no decision",
    )
    weights: dict[Member, Weight] = Field(
        default_factory=dict, max_length=AGENTS_MAX, description="weighted: of each agent, by its id; 1 when absent"
    )
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        None, description="numbers that lie no further apart count as one vote for their median; not in ranked_choice"
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.threshold is not None:
            if self.rule not in _WITH_THRESHOLD:
                raise ValueError(f"threshold belongs to the rules {' and '.join(_WITH_THRESHOLD)}, not to {self.rule}")
            if fraction_of(self.threshold) <= _HALF:
                raise ValueError("threshold must be above one half: else two choices could both reach it")
        if self.weights and self.rule != "weighted":
            raise ValueError(f"weights belong to the rule weighted, not to {self.rule}")
        if self.tolerance is not None and self.rule == "ranked_choice":
            raise ValueError("tolerance has no meaning for rankings")
        return self

    @property
    def least_share(self) -> Fraction | None:
        """The share that a choice must reach; None where it must be more than half."""
        if self.threshold is not None:
            return fraction_of(self.threshold)
        return {"supermajority": Fraction(2, 3), "unanimous": Fraction(1)}.get(self.rule)

    @property
    def quorum_share(self) -> Fraction:
        if self.quorum is not None:
            return fraction_of(self.quorum)
        return _HALF if self.rule == "quorum" else Fraction(0)


class CountedRound(Model):
    """A round of votes as it was counted, with the votes: enough to count it again."""

    task_id: str
    role: str
    round: int
    epoch: int
    recorded: dict[str, Any] = Field(description="what the count came to then")
    candidates: tuple[Any, ...] = Field((), description="in their order; empty where any value could be voted for")
    votes: dict[str, tuple[Any, ...]] = Field(description="by agent: the choice, or a ranking; empty: it abstained")


class Recount(Model):
    """A round counted again under another rule."""

    task_id: str
    round: int
    recorded: dict[str, Any] = Field(description="rule, verdict, decision and tally as they were")
    recounted: dict[str, Any] = Field(description="the same under the rule that was asked for")
    changed: bool = Field(description="whether the decision is another one")
    dissent: tuple[str, ...] = Field((), description="agents whose first choice is not the recounted decision")


class Recounts(Model):
    """The answer of a recount. The execution itself is not changed."""

    execution_id: UUID
    voting: VotingRule
    items: tuple[Recount, ...]
