"""The coordination patterns: what each is for, its settings, and whether this engine runs it yet."""

from typing import Any, Final, Literal

from pydantic import Field

from engine.contracts.definition import Pattern
from engine.contracts.model import Model, StrictModel


class SupervisorConfig(StrictModel):
    """`pattern_config` of the supervisor pattern."""

    strategy: Literal["least_loaded"] = Field(
        "least_loaded", description="which capable worker gets a task: the one with the fewest running"
    )


class PatternDescription(Model):
    name: str
    version: str = "1.0.0"
    description: str
    supported: bool = False
    config: type[StrictModel] | None = Field(None, description="model of `pattern_config`")

    def config_schema(self) -> dict[str, Any]:
        return self.config.model_json_schema() if self.config else {"type": "object"}


PATTERNS: Final[dict[str, PatternDescription]] = {
    described.name: described
    for described in (
        PatternDescription(
            name=Pattern.SUPERVISOR,
            description="ready tasks go to the least-loaded capable worker, critical path first",
            supported=True,
            config=SupervisorConfig,
        ),
        PatternDescription(
            name=Pattern.HIERARCHICAL, description="levels of agents that delegate down and escalate up"
        ),
        PatternDescription(name=Pattern.HANDOFF, description="one agent after another, each taking over the context"),
        PatternDescription(name=Pattern.SWARM, description="equal agents that take work themselves and decide by vote"),
        PatternDescription(name=Pattern.NETWORK, description="agents that talk to each other along named links"),
        PatternDescription(name=Pattern.SAGA, description="steps with compensations, undone in reverse when one fails"),
        PatternDescription(name=Pattern.CUSTOM, description="a registered pattern, described as data"),
    )
}

SUPPORTED_PATTERNS: Final = frozenset(name for name, described in PATTERNS.items() if described.supported)
