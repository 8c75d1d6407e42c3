"""The seven coordination patterns: what each is for, the model of its settings, and whether this engine runs it yet."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from engine.contracts.definition import Pattern
from engine.contracts.model import Model, StrictModel
from engine.contracts.patterns.custom import CustomConfig
from engine.contracts.patterns.handoff import HandoffConfig
from engine.contracts.patterns.hierarchical import HierarchicalConfig
from engine.contracts.patterns.network import NetworkConfig
from engine.contracts.patterns.saga import SagaPatternConfig
from engine.contracts.patterns.supervisor import SupervisorConfig
from engine.contracts.patterns.swarm import SwarmConfig

PATTERN_CONFIGS: Final[Mapping[str, type[StrictModel]]] = {
    Pattern.SUPERVISOR: SupervisorConfig,
    Pattern.HIERARCHICAL: HierarchicalConfig,
    Pattern.HANDOFF: HandoffConfig,
    Pattern.SWARM: SwarmConfig,
    Pattern.NETWORK: NetworkConfig,
    Pattern.SAGA: SagaPatternConfig,
    Pattern.CUSTOM: CustomConfig,
}
"""The model of each pattern's `pattern_config`: the planner checks against it, the API serves its JSON Schema."""


class PatternDescription(Model):
    name: str
    version: str = "1.0.0"
    description: str
    supported: bool = False
    config: type[StrictModel] = Field(description="model of `pattern_config`")

    def config_schema(self) -> dict[str, Any]:
        return self.config.model_json_schema()


def _described(name: Pattern, description: str, *, supported: bool = False) -> PatternDescription:
    return PatternDescription(name=name, description=description, supported=supported, config=PATTERN_CONFIGS[name])


PATTERNS: Final[dict[str, PatternDescription]] = {
    described.name: described
    for described in (
        _described(
            Pattern.SUPERVISOR, "ready tasks go to the least-loaded capable worker, critical path first", supported=True
        ),
        _described(Pattern.HIERARCHICAL, "levels of agents that delegate down and escalate up", supported=True),
        _described(Pattern.HANDOFF, "one agent after another, each taking over the context", supported=True),
        _described(Pattern.SWARM, "equal agents that decide each task by rounds of votes", supported=True),
        _described(Pattern.NETWORK, "agents that send messages to each other along named links", supported=True),
        _described(Pattern.SAGA, "steps with compensations, undone in reverse when one fails", supported=True),
        _described(Pattern.CUSTOM, "a registered pattern, described as data", supported=True),
    )
}

SUPPORTED_PATTERNS: Final = frozenset(name for name, described in PATTERNS.items() if described.supported)
