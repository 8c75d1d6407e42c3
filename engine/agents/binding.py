"""Which host process serves which logical agent, and asking for hosts where there are too few."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Sequence
from heapq import heapify, heapreplace
from typing import Final, Protocol, TypeVar
from zlib import crc32

from engine.agents.catalogue import LIVE_HOSTS_MAX, has_capabilities, hosts_started_here, runs_in_pods
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


class PodBinding(Protocol):
    """Agents that have a pod each. Implemented by `engine.agents.kubernetes.allocation`."""

    async def bind(self, request: BindRequest, *, give_up_when_unreachable: bool = False) -> BindResult: ...


class Binder:
    """Implements `engine.ports.AgentBinder`. With `pods`, the types that the engine starts get pods."""

    def __init__(
        self,
        hosts: HostStore,
        wishes: WishPort,
        catalogue: Catalogue,
        settings: Settings,
        pods: PodBinding | None = None,
    ) -> None:
        self._hosts = hosts
        self._pods = pods
        self._wishes = wishes
        self._catalogue = catalogue
        self._idle_seconds = settings.host_idle_seconds
        self._live: OrderedDict[Group, tuple[float, Sequence[HostRecord]]] = OrderedDict()
        self._wished: OrderedDict[Group, tuple[int, float]] = OrderedDict()
        """Hosts that were asked for, and when."""

    async def bind(self, request: BindRequest) -> BindResult:
        """Each agent to a live host of its type; hosts are asked for where there are too few.

        With `wait_seconds` it waits for them. Agents for which no host is there are `missing`.
        """
        if self._pods is None:
            return await self._bind_to_hosts(request)
        known = self._catalogue.agents
        in_pods = {name: role for name, role in request.roles.items() if runs_in_pods(known.get(role.type))}
        falling_back = {name: role for name, role in in_pods.items() if known[role.type].local_fallback}
        only_pods = {name: role for name, role in in_pods.items() if name not in falling_back}
        shared = {name: role for name, role in request.roles.items() if name not in in_pods}
        parts: list[Awaitable[BindResult]] = []
        if only_pods:
            parts.append(self._pods.bind(_about(request, only_pods)))
        if falling_back:
            parts.append(self._bind_or_fall_back(self._pods, _about(request, falling_back)))
        if shared or not in_pods:
            parts.append(self._bind_to_hosts(_about(request, shared)))
        return _joined(await asyncio.gather(*parts))

    async def _bind_or_fall_back(self, pods: PodBinding, request: BindRequest) -> BindResult:
        """Pods, or host processes of this machine while the Kubernetes API does not answer."""
        started = time.monotonic()
        found = await pods.bind(request, give_up_when_unreachable=True)
        left_seconds = request.wait_seconds - (time.monotonic() - started)
        refused = found.problems and found.problems[0].code == "RESOURCE_ALLOCATION_FAILED"
        if not found.missing or left_seconds <= 0 or refused:
            return found
        here = await self._bind_to_hosts(
            request.model_copy(update={"agent_ids": found.missing, "wait_seconds": left_seconds})
        )
        still = set(here.missing)
        problems = tuple(problem for problem in found.problems if problem.agent_id in still)
        return BindResult(bindings=found.bindings + here.bindings, missing=here.missing, problems=problems)

    async def _bind_to_hosts(self, request: BindRequest) -> BindResult:
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


def _about(request: BindRequest, roles: dict[str, KernelRole]) -> BindRequest:
    return request if len(roles) == len(request.roles) else request.model_copy(update={"roles": roles})


def _joined(results: Sequence[BindResult]) -> BindResult:
    problems = [problem for result in results for problem in result.problems]
    return BindResult(
        bindings=tuple(binding for result in results for binding in result.bindings),
        missing=tuple(agent_id for result in results for agent_id in result.missing),
        problems=tuple(sorted(problems, key=lambda problem: problem.code, reverse=True)),
    )


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
