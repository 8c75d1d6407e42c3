"""Settings of the hierarchical pattern: levels of agents that delegate down and escalate up."""

from engine.contracts.model import StrictModel


class HierarchicalConfig(StrictModel):
    """`pattern_config` of the hierarchical pattern."""
