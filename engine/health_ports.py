"""What the health of hosts needs of PostgreSQL, as a protocol, beside `engine.ports` and by its rules."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from engine.contracts.agent_views import AgentDetail, AgentView, HostState
from engine.contracts.views import Page


class Measured(NamedTuple):
    """What one worker saw of one host, compared with others that did the same work at the same time."""

    speed: float
    tasks: int


class HostHealthStore(Protocol):
    """Implemented by `engine.postgres.host_health`."""

    async def mark_suspect(self, tenant: str, host_ids: Sequence[str], reason: str) -> Sequence[str]:
        """Returns those that were not suspect until now."""
        ...

    async def mark_recovered(self, tenant: str, host_ids: Sequence[str]) -> Sequence[str]:
        """Returns those that were suspect until now."""
        ...

    async def explain_gone(self, tenant: str, host_id: str, reason: str) -> None:
        """Why it is about to be marked as gone."""
        ...

    async def note_measured(self, tenant: str, measured: Mapping[str, Measured]) -> None:
        """By host id."""
        ...

    async def measured(self, limit: int) -> Sequence[tuple[str, str, float]]:
        """Across tenants: (tenant, host, speed) of live hosts that are slower than others, or were."""
        ...

    async def set_speed(self, tenant: str, host_id: str, speed: float, reason: str) -> bool:
        """By which it is given work from now on. False when that is so already, or it is gone."""
        ...


class AgentReader(Protocol):
    """What people may see of hosts. Implemented by `engine.postgres.host_health`."""

    async def page(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        agent_type: str | None = None,
        states: Sequence[HostState] = ("healthy", "suspect"),
    ) -> Page[AgentView]: ...

    async def get(self, tenant: str, host_id: str) -> AgentDetail:
        """With its history. Raises NotFoundError."""
        ...
