"""Checks a definition of a custom pattern: it must say which one.

That the registered pattern takes these settings is checked where the pattern is known, when the definition is created.
"""

from collections.abc import Iterable

from engine.contracts.definition import WorkflowDefinition
from engine.contracts.patterns.custom import CustomConfig
from planner.patterns.finding import Finding


def check(definition: WorkflowDefinition, config: CustomConfig) -> Iterable[Finding]:  # noqa: ARG001
    """What is wrong with this definition under these settings."""
    if definition.pattern is None:
        message = 'is required with orchestration_pattern "custom": {"name": ..., "version": ...} of a registered one'
        yield Finding("MISSING_FIELD", ("pattern",), message)
