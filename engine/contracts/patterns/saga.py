"""Settings of the saga pattern: steps with compensations, undone in reverse when one fails."""

from typing import Literal

from pydantic import Field

from engine.contracts.definition import Name
from engine.contracts.model import StrictModel


class SagaPatternConfig(StrictModel):
    """`pattern_config` of the saga pattern."""

    undo_order: Literal["sequential", "side_by_side"] = Field(
        "sequential",
        description="one step after the other, the last completed first; or independent steps at the same time",
    )
    failed_steps: Literal["trust", "compensate"] = Field(
        "trust",
        description="what a step did whose agent says that it failed: nothing, or something that is to be undone",
    )
    forward_attempts: int = Field(
        0, ge=0, le=100, description="how often a step that was given up is done again before anything is undone"
    )
    forward_delay_seconds: float = Field(5.0, ge=0, le=3600, description="between two of these")
    pivots: list[Name] = Field(
        default_factory=list,
        max_length=100,
        description="steps after which there is no way back: once one of them is completed nothing is undone",
    )
    attempts_after_pivot: int = Field(
        10, ge=1, le=1000, description="how often a step is done again once a pivot was passed"
    )
