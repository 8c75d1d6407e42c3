"""Which host process serves which logical agent, and asking for hosts where there are too few."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import Final, TypeVar
from zlib import crc32

from engine.agents.catalogue import LIVE_HOSTS_MAX, has_capabilities, hosts_started_here
from engine.agents.hostport import WishPort
from engine.contracts.catalogue import Catalogue
from engine.contracts.hosts import Group
from engine.contracts.kernel import AgentBinding, BindRequest, BindResult, KernelRole
from engine.ports import HostRecord, HostStore
from engine.settings import Settings

CACHE_SECONDS: Final = 0.5
CACHE_GROUPS_MAX: Final = 2_000
POLL_SECONDS: Final = 0.1
REPEAT_WISH_SECONDS: Final = 1.0

CHAINS: Final = "chains"
"""The feature of hosts that take a fused chain as one assignment."""

Value = TypeVar("Value")


def agent_ids(role: str, count: int) -> list[str]:
    """The logical agents of a role, in order: `worker-1`, `worker-2`."""
    return [f"{role}-{number}" for number in range(1, count + 1)]


class Binder:
    """Implements `engine.ports.AgentBinder`."""

    def __init__(self, hosts: HostStore, wishes: WishPort, catalogue: Catalogue, settings: Settings) -> None:
        self._hosts = hosts
        self._wishes = wishes
        self._catalogue = catalogue
        self._idle_seconds = settings.host_idle_seconds
        self._live: OrderedDict[Group, tuple[float, Sequence[HostRecord]]] = OrderedDict()
        self._wished: OrderedDict[Group, tuple[int, float]] = OrderedDict()
        """Hosts that were asked for, and when."""

    async def bind(self, request: BindRequest) -> BindResult:
        """Spread the agents over the live hosts of their types; ask for hosts where there are fewer than wanted.

        With `wait_seconds` it waits until each role has a host, and, for half of that time, until each has as many
        as it wants. Agents for which no host is there are `missing`.
        """
        roles = _roles_of(request)
        started = time.monotonic()
        while True:
            waited = time.monotonic() - started
            # What a wait is for is news: it must not come from the cache.
            fresh = request.wait_seconds > 0 and waited > 0
            live = {name: await self._live_hosts(request.tenant, role, fresh=fresh) for name, role in roles.items()}
            enough = True
            for name, role in roles.items():
                wanted = self._wanted(role)
                await self._wish(Group(request.tenant, role.type), wanted, len(live[name]))
                patient = waited < request.wait_seconds / 2
                enough &= len(live[name]) >= (wanted if patient else 1)
            if enough or waited >= request.wait_seconds:
                return _spread(request, roles, live)
            await asyncio.sleep(min(POLL_SECONDS, request.wait_seconds - waited))

    def _wanted(self, role: KernelRole) -> int:
        agent_type = self._catalogue.agents.get(role.type)
        if agent_type is None or not hosts_started_here(agent_type):
            return 1
        return max(1, min(-(-role.count // agent_type.agents_per_host), agent_type.hosts_max))

    async def _wish(self, group: Group, wanted: int, live: int) -> None:
        """Say what is wanted when hosts are missing, and now and then so that hosts in use are kept."""
        if not hosts_started_here(self._catalogue.agents.get(group.agent_type)):
            return
        said, said_at = self._wished.get(group, (0, float("-inf")))
        now = time.monotonic()
        fresh_seconds = self._idle_seconds / 4 if live >= wanted else REPEAT_WISH_SECONDS
        if said >= wanted and now - said_at < fresh_seconds:
            return
        await self._wishes.want(group, wanted, int((time.time() + self._idle_seconds) * 1000))
        _remember(self._wished, group, (wanted, now))

    async def _live_hosts(self, tenant: str, role: KernelRole, *, fresh: bool) -> list[HostRecord]:
        group = Group(tenant, role.type)
        read_at, hosts = self._live.get(group, (float("-inf"), ()))
        if fresh or time.monotonic() - read_at > CACHE_SECONDS:
            hosts = await self._hosts.live(tenant, role.type, LIVE_HOSTS_MAX)
            _remember(self._live, group, (time.monotonic(), hosts))
        well = (host for host in hosts if host.suspect_since is None)
        return [host for host in well if has_capabilities(host.capabilities, role.capabilities)]


def _roles_of(request: BindRequest) -> dict[str, KernelRole]:
    """The roles that the request is about."""
    if request.agent_ids is None:
        return request.roles
    asked = set(request.agent_ids)
    return {name: role for name, role in request.roles.items() if any(a in asked for a in agent_ids(name, role.count))}


def _spread(request: BindRequest, roles: dict[str, KernelRole], live: dict[str, list[HostRecord]]) -> BindResult:
    """Each agent goes to the host that serves the fewest of this execution's agents, those bound before included.

    Executions begin at different hosts: small ones must not all meet at the first. An agent at a host of half the speed
    counts for two, so that a slow host serves fewer.
    """
    offset = crc32(request.execution_id.encode())
    asked = None if request.agent_ids is None else set(request.agent_ids)
    load = Counter(host for agent_id, host in request.bound.items() if asked is None or agent_id not in asked)
    bindings: list[AgentBinding] = []
    missing: list[str] = []
    for name, role in roles.items():
        hosts = live[name]
        heap = [(_share(host, load[host.host_id]), (n - offset) % len(hosts), n) for n, host in enumerate(hosts)]
        heapify(heap)
        for agent_id in agent_ids(name, role.count):
            if asked is not None and agent_id not in asked:
                continue
            if not hosts:
                missing.append(agent_id)
                continue
            _, turn, n = heap[0]
            host = hosts[n]
            load[host.host_id] += 1
            heapreplace(heap, (_share(host, load[host.host_id]), turn, n))
            bindings.append(
                AgentBinding(
                    agent_id=agent_id,
                    role=name,
                    host_id=host.host_id,
                    slots=host.slots,
                    chains=CHAINS in host.features,
                    speed=host.speed,
                )
            )
    return BindResult(bindings=tuple(bindings), missing=tuple(missing))


def _share(host: HostRecord, serving: int) -> float:
    return (serving + 1) / host.speed - 1


def _remember(table: OrderedDict[Group, Value], group: Group, value: Value) -> None:
    table[group] = value
    table.move_to_end(group)
    while len(table) > CACHE_GROUPS_MAX:
        table.popitem(last=False)
