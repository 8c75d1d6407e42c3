"""Use cases around workflow definitions: create, get, list, delete."""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson
from pydantic import Field

from engine.contracts.capacity import NO_CEILING, AgentCeiling, AgentNeed, least_demand
from engine.contracts.definition import AgentRequirement, Name, WorkflowDefinition
from engine.contracts.model import Model, StrictModel
from engine.contracts.views import Page, ValidationReport, WorkflowCreated, WorkflowDetail, WorkflowSummary
from engine.errors import (
    InvalidParametersError,
    ResourcesUnsatisfiableError,
    UnsupportedPatternError,
)
from engine.ports import DefinitionStore, IdempotencyKeys
from gateway.operations.operation import (
    Caller,
    Id,
    IdempotencyKey,
    PageParameters,
    parse_parameters,
)
from gateway.operations.planning import PlanningDesk

CREATE_POSITIONAL: Final = (
    *(field for field in WorkflowDefinition.model_fields if field != "pattern"),
    "idempotency_key",
    "pattern",  # behind those that were there first
)


class CapabilityCheck(Protocol):
    async def __call__(self, tenant: str, definition: WorkflowDefinition) -> None:
        """Raises CapabilitiesUnavailableError when no known agent type could ever serve a role."""
        ...


@dataclass(frozen=True, slots=True)
class AgentSizeLimits:
    """The largest agent that any host here could take."""

    cpu_cores_max: float
    memory_bytes_max: int
    needs: Callable[[AgentRequirement], AgentNeed] = AgentNeed.of
    tenant: AgentCeiling = NO_CEILING
    """What a tenant's agents may ever take together."""


@dataclass(frozen=True, slots=True)
class CreateWorkflow:
    """The parameters of `workflow.create` are the definition's own fields."""

    definition: dict[str, Any]
    idempotency_key: str | None


class _IdempotencyParameter(StrictModel):
    idempotency_key: IdempotencyKey | None = None


def parse_create(given: dict[str, Any]) -> CreateWorkflow:
    definition = dict(given)
    key = definition.pop("idempotency_key", None)
    checked = parse_parameters(_IdempotencyParameter, {"idempotency_key": key})
    return CreateWorkflow(definition, checked.idempotency_key)


class WorkflowReference(StrictModel):
    workflow_id: Id


class ListWorkflows(PageParameters):
    name: Name | None = None
    pattern: str | None = Field(None, max_length=64)


class WorkflowDeleted(Model):
    workflow_id: Id
    status: str = "deleted"


class DefinitionOperations:
    def __init__(
        self,
        definitions: DefinitionStore,
        desk: PlanningDesk,
        idempotency: IdempotencyKeys,
        check_capabilities: CapabilityCheck,
        supported_patterns: Collection[str],
        agent_size: AgentSizeLimits,
    ) -> None:
        self._definitions = definitions
        self._desk = desk
        self._idempotency = idempotency
        self._check_capabilities = check_capabilities
        self._supported_patterns = frozenset(supported_patterns)
        self._agent_size = agent_size

    async def create(self, caller: Caller, request: CreateWorkflow) -> WorkflowCreated:
        self._check_pattern(request.definition)
        definition = await self._desk.parse(request.definition)
        await self._desk.check_registered(caller.tenant, definition)
        await self._check_capabilities(caller.tenant, definition)
        self._check_sizes(definition)
        plan = await self._desk.plan(definition)
        if request.idempotency_key is not None:
            await self._idempotency.claim(
                caller.tenant, "workflow.create", request.idempotency_key, content_hash(request.definition)
            )
        workflow_id, _ = await self._definitions.create(
            caller.tenant,
            definition.model_dump(mode="json"),
            plan.plan_hash,
            plan,
            caller.principal.subject,
        )
        return WorkflowCreated(
            workflow_id=workflow_id,
            validation_report=ValidationReport(
                warnings=tuple(str(problem) for problem in plan.warnings),
                optimizations=tuple(str(problem) for problem in plan.optimizations),
            ),
            estimated_resources=plan.estimated_resources,
        )

    async def get(self, caller: Caller, request: WorkflowReference) -> WorkflowDetail:
        return await self._definitions.get(caller.tenant, request.workflow_id)

    async def list(self, caller: Caller, request: ListWorkflows) -> Page[WorkflowSummary]:
        return await self._definitions.list(
            caller.tenant,
            limit=request.limit,
            page_token=request.page_token,
            name=request.name,
            pattern=request.pattern,
        )

    async def delete(self, caller: Caller, request: WorkflowReference) -> WorkflowDeleted:
        await self._definitions.delete(caller.tenant, request.workflow_id)
        return WorkflowDeleted(workflow_id=request.workflow_id)

    def _check_pattern(self, definition: dict[str, Any]) -> None:
        """Before all else: a definition for another engine should hear that, not a list of details."""
        pattern = definition.get("orchestration_pattern")
        if isinstance(pattern, str) and pattern not in self._supported_patterns:
            raise UnsupportedPatternError(
                "this orchestration pattern is not supported", supported=sorted(self._supported_patterns)
            )

    def _check_sizes(self, definition: WorkflowDefinition) -> None:
        cpu_max, memory_max = self._agent_size.cpu_cores_max, self._agent_size.memory_bytes_max
        too_large = [
            f"agents.{role}.resources"
            for role, agent in definition.agents.items()
            if agent.resources.cpu_cores > cpu_max or agent.resources.memory_bytes > memory_max
        ]
        if too_large:
            raise ResourcesUnsatisfiableError(
                "no host could ever take an agent of this size",
                roles=too_large,
                cpu_cores_max=cpu_max,
                memory_bytes_max=memory_max,
            )
        needs = {role: self._agent_size.needs(agent) for role, agent in definition.agents.items()}
        exceeded = least_demand(needs).exceeding(self._agent_size.tenant)
        if exceeded:
            raise ResourcesUnsatisfiableError(
                "one agent of each role alone takes more than a tenant may have: " + "; ".join(exceeded),
                roles=[f"agents.{role}.resources" for role in sorted(needs)],
                exceeded=list(exceeded),
            )


def content_hash(value: Any) -> str:
    """SHA-256 of a JSON value whose keys are sorted: tells whether two requests ask the same."""
    try:
        return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except TypeError as error:
        raise InvalidParametersError("the parameters cannot be written as JSON") from error
