"""Checks a definition of the hierarchical pattern against its settings."""

from collections.abc import Iterable

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.hierarchical import HierarchicalConfig
from planner.patterns.finding import Finding


def check(definition: WorkflowDefinition, config: HierarchicalConfig) -> Iterable[Finding]:  # noqa: ARG001
    """What is wrong with this definition under these settings."""
    return ()
