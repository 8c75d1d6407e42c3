"""Settings of the network pattern: agents that talk to each other along named links."""

from engine.contracts.model import StrictModel


class NetworkConfig(StrictModel):
    """`pattern_config` of the network pattern."""
