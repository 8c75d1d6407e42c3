"""Settings of the saga pattern: steps with compensations, undone in reverse when one fails."""

from engine.contracts.model import StrictModel


class SagaPatternConfig(StrictModel):
    """`pattern_config` of the saga pattern."""
