"""What the gateway needs of the planner, and how plans are kept ready for `workflow.execute`."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from engine.contracts.capacity import AgentNeed
from engine.contracts.definition import (
    AgentRequirement,
    Pattern,
    PatternReference,
    RetryPolicyName,
    WorkflowDefinition,
)
from engine.contracts.kernel import KernelPlan
from engine.contracts.patterns.language import PatternProgram, PatternRegistration
from engine.contracts.patterns.registered import RegisteredPattern
from engine.contracts.plan import EstimatedResources, Plan
from engine.errors import InvalidDefinitionError, NotFoundError
from engine.ports import DefinitionStore, PatternStore

RUNNABLE_CACHED_MAX: Final = 64
RUNNABLE_TASKS_MAX: Final = 50_000
"""Tasks of all cached workflows together: what they take grows with them."""

CONCURRENT_PLANNINGS_MAX: Final = 1
"""Planning is pure computation: more than one at a time only makes each of them slower."""

THREAD_ABOVE_TASKS: Final = 200
"""Definitions above this are planned in a thread, so that other requests are answered meanwhile."""


class Planning(Protocol):
    """The planner. Pure functions; the wiring stands in `gateway.serve`."""

    def parse(self, definition: dict[str, Any]) -> WorkflowDefinition:
        """Raises InvalidDefinitionError with every problem, located."""
        ...

    def plan(self, definition: WorkflowDefinition) -> Plan: ...

    def kernel_plan(self, definition: WorkflowDefinition, plan: Plan, retry_policy: RetryPolicyName) -> KernelPlan: ...

    def pattern_config(self, definition: WorkflowDefinition) -> dict[str, Any]:
        """The pattern's settings with every default filled in."""
        ...

    def check_pattern(self, registration: PatternRegistration) -> None:
        """Raises InvalidLogicError with every problem, located."""
        ...

    def program(self, definition: WorkflowDefinition, pattern: RegisteredPattern) -> PatternProgram:
        """What an execution of this definition runs. Raises InvalidDefinitionError when its settings do not fit."""
        ...


@dataclass(frozen=True, slots=True)
class Runnable:
    """A stored workflow, ready to be launched; no more of it than a launch needs."""

    name: str
    pattern: Pattern
    pattern_config: dict[str, Any]
    estimated_resources: EstimatedResources
    kernel_plan: KernelPlan
    needs: dict[str, AgentNeed]


class PlanningDesk:
    """Runs the planner off the event loop when the work is large, one piece at a time."""

    def __init__(
        self,
        planning: Planning,
        definitions: DefinitionStore,
        patterns: PatternStore | None = None,
        need: Callable[[AgentRequirement], AgentNeed] = AgentNeed.of,
    ) -> None:
        """Without `patterns` no definition of a registered pattern is taken. `need` says what agents take of which the
        definition does not."""
        self._need = need
        self._planning = planning
        self._definitions = definitions
        self._patterns = patterns
        self._slots = asyncio.Semaphore(CONCURRENT_PLANNINGS_MAX)
        self._runnable: OrderedDict[tuple[str, UUID, str], Runnable] = OrderedDict()
        self._runnable_tasks = 0

    async def parse(self, raw: dict[str, Any]) -> WorkflowDefinition:
        tasks = raw.get("tasks")
        if not isinstance(tasks, list) or len(tasks) <= THREAD_ABOVE_TASKS:
            return self._planning.parse(raw)
        async with self._slots:
            return await asyncio.to_thread(self._planning.parse, raw)

    async def check_pattern(self, registration: PatternRegistration) -> None:
        async with self._slots:
            await asyncio.to_thread(self._planning.check_pattern, registration)

    async def check_registered(self, tenant: str, definition: WorkflowDefinition) -> None:
        """That the pattern which a definition names is registered and takes its settings.

        Raises InvalidDefinitionError, located. A built-in pattern's settings are checked with the definition.
        """
        if definition.pattern is not None:
            pattern = await self._registered(tenant, definition.pattern)
            self._planning.program(definition, pattern)

    async def _registered(self, tenant: str, reference: PatternReference) -> RegisteredPattern:
        try:
            if self._patterns is None:
                raise NotFoundError("no patterns are kept here")
            return await self._patterns.get(tenant, reference.name, reference.version)
        except NotFoundError as error:
            message = f"no pattern {reference.name} {reference.version} is registered; see pattern.list"
            problem = {"code": "UNKNOWN_PATTERN", "location": "pattern", "message": message}
            raise InvalidDefinitionError(f"pattern: {message}", errors=[problem], error_count=1) from error

    async def plan(self, definition: WorkflowDefinition) -> Plan:
        if len(definition.tasks) <= THREAD_ABOVE_TASKS:
            return self._planning.plan(definition)
        async with self._slots:
            return await asyncio.to_thread(self._planning.plan, definition)

    async def runnable(self, tenant: str, workflow_id: UUID, retry_policy: RetryPolicyName) -> Runnable:
        """Definitions never change under their id, so what is cached stays true.

        Whether the workflow still exists is asked by whoever inserts the execution.
        """
        key = (tenant, workflow_id, retry_policy)
        cached = self._runnable.get(key)
        if cached is not None:
            self._runnable.move_to_end(key)
            return cached
        detail = await self._definitions.get(tenant, workflow_id)
        plan = await self._definitions.get_plan(tenant, workflow_id)

        reference = detail.definition.get("pattern")
        named = PatternReference.model_validate(reference) if reference is not None else None
        pattern = await self._registered(tenant, named) if named is not None else None

        def build() -> Runnable:
            definition = WorkflowDefinition.model_validate(detail.definition)
            settings = (
                self._planning.pattern_config(definition)
                if pattern is None
                else self._planning.program(definition, pattern).model_dump(mode="json")
            )
            kernel_plan = self._planning.kernel_plan(definition, plan, retry_policy)
            return Runnable(
                detail.name,
                definition.orchestration_pattern,
                settings,
                plan.estimated_resources,
                kernel_plan,
                {role: self._need(agent) for role, agent in definition.agents.items()},
            )

        if len(plan.tasks) <= THREAD_ABOVE_TASKS:
            runnable = build()
        else:
            async with self._slots:
                runnable = await asyncio.to_thread(build)
        self._remember(key, runnable)
        return runnable

    def _remember(self, key: tuple[str, UUID, str], runnable: Runnable) -> None:
        if key in self._runnable:  # Another request was faster.
            return
        self._runnable[key] = runnable
        self._runnable_tasks += len(runnable.kernel_plan.tasks)
        while len(self._runnable) > RUNNABLE_CACHED_MAX or self._runnable_tasks > RUNNABLE_TASKS_MAX:
            _, oldest = self._runnable.popitem(last=False)
            self._runnable_tasks -= len(oldest.kernel_plan.tasks)
