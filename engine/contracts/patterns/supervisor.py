"""Settings of the supervisor pattern: ready tasks go to capable workers."""

from typing import Literal

from pydantic import Field

from engine.contracts.model import StrictModel


class SupervisorConfig(StrictModel):
    """`pattern_config` of the supervisor pattern."""

    strategy: Literal["least_loaded"] = Field(
        "least_loaded", description="which capable worker gets a task: the one with the fewest running"
    )
