"""Settings of the handoff pattern: one agent after another, each taking over the context."""

from engine.contracts.model import StrictModel


class HandoffConfig(StrictModel):
    """`pattern_config` of the handoff pattern."""
