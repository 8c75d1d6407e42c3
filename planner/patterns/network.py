"""Checks a definition of the network pattern against its settings."""

from collections.abc import Iterable

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.network import NetworkConfig
from planner.patterns.finding import Finding


def check(definition: WorkflowDefinition, config: NetworkConfig) -> Iterable[Finding]:  # noqa: ARG001
    """What is wrong with this definition under these settings."""
    return ()
