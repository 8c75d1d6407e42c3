"""Checks a definition of the supervisor pattern against its settings."""

from collections.abc import Iterable

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.supervisor import SupervisorConfig
from planner.patterns.finding import Finding


def check(definition: WorkflowDefinition, config: SupervisorConfig) -> Iterable[Finding]:  # noqa: ARG001
    """What is wrong with this definition under these settings."""
    return ()
