"""Checks a definition of the swarm pattern against its settings."""

from collections.abc import Iterable

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.swarm import SwarmConfig
from planner.patterns.finding import Finding


def check(definition: WorkflowDefinition, config: SwarmConfig) -> Iterable[Finding]:  # noqa: ARG001
    """What is wrong with this definition under these settings."""
    return ()
