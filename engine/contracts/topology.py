"""Who is linked with whom: settings that the swarm and the network share."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engine.contracts.limits import AGENTS_MAX, NAME_LENGTH_MAX, NAME_PATTERN
from engine.contracts.model import StrictModel

AgentId = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]


class TopologyConfig(StrictModel):
    """Links among the agents of a role, in the order of their numbers."""

    kind: Literal["full", "ring", "star", "tree", "neighbours", "given"] = Field(
        "full",
        description="full: each with each; ring: with the one before and after; star: all with the first; tree: with "
        "its parent and children; neighbours: with the `k` nearest on a ring; given: by `links`",
    )
    k: int = Field(4, ge=1, le=AGENTS_MAX, description="neighbours: how many each has; odd: one more after than before")
    arity: int = Field(2, ge=1, le=AGENTS_MAX, description="tree: children of each")
    links: dict[AgentId, list[AgentId]] = Field(
        default_factory=dict, max_length=AGENTS_MAX, description="given: for each agent, those that it reaches or sees"
    )

    @model_validator(mode="after")
    def _links_where_they_count(self) -> Self:
        if self.kind == "given" and not self.links:
            raise ValueError("the kind given needs links")
        if self.kind != "given" and self.links:
            raise ValueError(f"links belong to the kind given, not to {self.kind}")
        return self
