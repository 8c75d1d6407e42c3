"""Use cases about agents: the host processes that serve them, how they are, what they have to do."""

from functools import partial
from typing import Annotated, Final

from pydantic import Field

from engine.contracts.agent_views import AgentDetail, AgentView, HostState
from engine.contracts.hosts import HostId
from engine.contracts.model import StrictModel
from engine.contracts.views import Page
from engine.health_ports import AgentReader
from engine.security.permissions import Permission
from gateway.operations.operation import Caller, Operation, PageParameters, parse_parameters

AGENT_METHODS: Final = ("agent.list", "agent.get")
PRESENT: Final[tuple[HostState, ...]] = ("healthy", "suspect")


class ListAgents(PageParameters):
    type: str | None = Field(None, max_length=255)
    state: Annotated[HostState | None, Field(description="without it, all that are not gone")] = None


class AgentReference(StrictModel):
    host_id: HostId


class AgentOperations:
    def __init__(self, agents: AgentReader) -> None:
        self._agents = agents

    async def list(self, caller: Caller, request: ListAgents) -> Page[AgentView]:
        return await self._agents.page(
            caller.tenant,
            limit=request.limit,
            page_token=request.page_token,
            agent_type=request.type,
            states=PRESENT if request.state is None else (request.state,),
        )

    async def get(self, caller: Caller, request: AgentReference) -> AgentDetail:
        return await self._agents.get(caller.tenant, request.host_id)


def agent_operations(agents: AgentOperations) -> tuple[Operation, ...]:
    return (
        Operation(
            name="agent.list",
            permission=Permission.WORKFLOW_READ,
            parse=partial(parse_parameters, ListAgents),
            run=agents.list,
            parameters=ListAgents,
            result=Page[AgentView],
            positional=tuple(ListAgents.model_fields),
            subject_type="engine",
        ),
        Operation(
            name="agent.get",
            permission=Permission.WORKFLOW_READ,
            parse=partial(parse_parameters, AgentReference),
            run=agents.get,
            parameters=AgentReference,
            result=AgentDetail,
            positional=tuple(AgentReference.model_fields),
            subject_type="agent",
            subject_field="host_id",
        ),
    )
