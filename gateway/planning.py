"""The planner, in the form that the operations ask for."""

import time
from collections.abc import Callable
from typing import Any

from engine.contracts.definition import RetryPolicyName, WorkflowDefinition
from engine.contracts.kernel import KernelPlan
from engine.contracts.patterns.language import PatternProgram, PatternRegistration
from engine.contracts.patterns.registered import RegisteredPattern
from engine.contracts.plan import Plan
from planner.kernel_plan import kernel_plan
from planner.language.check import check_definition, parse_registration
from planner.parse import parse_definition
from planner.pattern_config import complete_settings
from planner.planner import Planner


class GraphPlanning:
    """Implements `gateway.operations.planning.Planning`."""

    def __init__(self, planner: Planner, observe: Callable[[float], None] | None = None) -> None:
        """`observe` is told how many seconds each planning took, on whatever thread it ran."""
        self._planner = planner
        self._observe = observe

    def parse(self, definition: dict[str, Any]) -> WorkflowDefinition:
        return parse_definition(definition)

    def plan(self, definition: WorkflowDefinition) -> Plan:
        started = time.perf_counter()
        plan = self._planner.plan(definition)
        if self._observe is not None:
            self._observe(time.perf_counter() - started)
        return plan

    def kernel_plan(self, definition: WorkflowDefinition, plan: Plan, retry_policy: RetryPolicyName) -> KernelPlan:
        return kernel_plan(definition, plan, retry_policy)

    def pattern_config(self, definition: WorkflowDefinition) -> dict[str, Any]:
        return complete_settings(definition)

    def check_pattern(self, registration: PatternRegistration) -> None:
        parse_registration(registration)

    def program(self, definition: WorkflowDefinition, pattern: RegisteredPattern) -> PatternProgram:
        config = check_definition(definition, pattern)
        return PatternProgram(
            name=pattern.name, version=pattern.version, config=config, logic=pattern.coordination_logic
        )
