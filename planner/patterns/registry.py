"""Finds the check of each pattern."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from engine.contracts.definition import Pattern, WorkflowDefinition
from planner.patterns import custom, handoff, hierarchical, network, saga, supervisor, swarm
from planner.patterns.finding import Finding

Check = Callable[[WorkflowDefinition, Any], Iterable[Finding]]

CHECKS: Final[Mapping[str, Check]] = {
    Pattern.SUPERVISOR: supervisor.check,
    Pattern.HIERARCHICAL: hierarchical.check,
    Pattern.HANDOFF: handoff.check,
    Pattern.SWARM: swarm.check,
    Pattern.NETWORK: network.check,
    Pattern.SAGA: saga.check,
    Pattern.CUSTOM: custom.check,
}
"""`check(definition, config)` of each pattern; `config` is the pattern's own model, already valid."""
