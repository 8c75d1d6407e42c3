"""Checks a definition of the saga pattern against its settings."""

from collections.abc import Iterable

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.saga import SagaPatternConfig
from planner.patterns.finding import Finding


def check(definition: WorkflowDefinition, config: SagaPatternConfig) -> Iterable[Finding]:  # noqa: ARG001
    """What is wrong with this definition under these settings."""
    return ()
