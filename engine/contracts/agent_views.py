"""What the API answers about host processes of agents."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from engine.contracts.model import Model

HostState = Literal["healthy", "suspect", "gone"]


class HostLoad(Model):
    agents: int = Field(0, description="logical agents of open executions that it serves")
    executions: int = 0
    tasks_in_flight: int = Field(0, description="assigned to them, started or not")


class AgentView(Model):
    """One host process."""

    host_id: str
    types: tuple[str, ...]
    capabilities: tuple[str, ...] | Literal["*"]
    slots: int = Field(description="tasks that it does at once")
    features: tuple[str, ...] = Field((), description="what it understands beyond the basic protocol")
    pid: int | None = None
    state: HostState
    state_reason: str = Field("", description="why it is in this state, where that is known")
    suspect_since: datetime | None = None
    speed: float = Field(description="by which it is given work: 1.0 is that of most of its type, 0.5 half of it")
    measured_speed: float | None = Field(None, description="as measured against others that do the same work")
    measured_tasks: int = 0
    load: HostLoad
    registered_at: datetime
    last_seen: datetime = Field(description="last heartbeat, to about five seconds")


class HostChange(Model):
    """One line of a host's history."""

    at: datetime
    state: HostState
    speed: float
    reason: str


class AgentDetail(AgentView):
    history: tuple[HostChange, ...] = Field(description="newest first, at most 200")
