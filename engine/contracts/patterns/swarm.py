"""Settings of the swarm pattern: equal agents that decide by vote."""

from engine.contracts.model import StrictModel


class SwarmConfig(StrictModel):
    """`pattern_config` of the swarm pattern."""
