"""Host processes of agents, as the fleet, the registry and binding speak of them."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from engine.contracts.model import Model

HostId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,255}$")]
Word = Annotated[str, Field(min_length=1, max_length=255)]


HostEvent = Literal["agent.registered", "agent.disconnected", "agent.suspect", "agent.recovered", "agent.speed"]
"""What the registry tells executions of hosts."""


class Group(NamedTuple):
    """The host processes of one agent type for one tenant."""

    tenant: str
    agent_type: str


class Wanted(Model):
    """How many host processes are wanted, and until when they are worth keeping."""

    hosts: int
    until_ms: int


class Dedication(Model):
    """The one agent that a host serves. Empty: it waits in a pool, and serves nobody until an execution claims it."""

    execution_id: str = Field("", max_length=64)
    agent_id: str = Field("", max_length=300)


class HostReport(Model):
    """What a host, or the fleet for it, said in the agents stream."""

    entry_id: str
    event: Literal["agent.registered", "agent.heartbeat", "agent.disconnected"]
    host_id: HostId
    types: tuple[Word, ...] = Field((), max_length=100)
    capabilities: Annotated[tuple[Word, ...], Field(max_length=1_000)] | Literal["*"] = ()
    slots: int = Field(1, ge=1, le=10_000)
    features: tuple[Word, ...] = Field((), max_length=100, description="what it understands beyond the basic protocol")
    pid: int | None = Field(None, ge=0, le=2**31 - 1)
    draining: bool = False
    dedicated_to: Dedication | None = Field(None, description="absent: it serves any agent of its types")
    reason: str = Field("", max_length=1_000, description="on disconnected: why the host is gone, where that is known")
