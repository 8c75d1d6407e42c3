"""Hosts as people may see them, in memory."""

from collections.abc import Sequence
from datetime import UTC, datetime

from engine.contracts.agent_views import AgentDetail, AgentView, HostChange, HostLoad, HostState
from engine.contracts.views import Page
from engine.errors import NotFoundError

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def agent_detail(host_id: str, state: HostState = "healthy", **fields: object) -> AgentDetail:
    values: dict[str, object] = {
        "host_id": host_id,
        "types": ("synthetic",),
        "capabilities": "*",
        "slots": 8,
        "state": state,
        "speed": 1.0,
        "load": HostLoad(agents=2, executions=1, tasks_in_flight=3),
        "registered_at": MOMENT,
        "last_seen": MOMENT,
        "history": (HostChange(at=MOMENT, state=state, speed=1.0, reason=""),),
        **fields,
    }
    return AgentDetail.model_validate(values)


class FakeAgents:
    """Implements `engine.health_ports.AgentReader`."""

    def __init__(self) -> None:
        self.of: dict[str, list[AgentDetail]] = {}

    async def page(
        self,
        tenant: str,
        *,
        limit: int,
        page_token: str | None,
        agent_type: str | None = None,
        states: Sequence[HostState] = ("healthy", "suspect"),
    ) -> Page[AgentView]:
        found = [
            AgentView.model_validate(host.model_dump(exclude={"history"}))
            for host in self.of.get(tenant, ())
            if host.state in states and (agent_type is None or agent_type in host.types)
        ]
        more = len(found) > limit
        return Page(items=tuple(found[:limit]), next_page_token="more" if more else None)

    async def get(self, tenant: str, host_id: str) -> AgentDetail:
        for host in self.of.get(tenant, ()):
            if host.host_id == host_id:
                return host
        raise NotFoundError(f"there is no agent host {host_id}")
