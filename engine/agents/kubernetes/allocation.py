"""Pods for the agents of an execution: made where they are missing, replaced where they are lost, waited for.

An agent has one pod, whose name follows from who it is (`names`). So it does not matter how many workers ask for the
same agent, or how often: the API server lets one pod have that name, and a replacement can only be made when the former
pod is gone. What all agents of an execution ask for together therefore never exceeds what was allotted to them.

One list by label is shared by all agents of an execution; each pod costs one call more, its creation.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

from engine.agents.binding import CHAINS, agent_ids
from engine.agents.catalogue import has_capabilities, runs_in_pods
from engine.agents.credentials import load_agent_secret
from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import (
    BREAKER,
    BREAKER_RULE,
    PODS,
    ClusterAccess,
    ConflictError,
    Document,
    GoneError,
    KubernetesApi,
    ObjectExistsError,
    QuotaExceededError,
    open_api,
)
from engine.agents.kubernetes.names import Identity
from engine.agents.kubernetes.namespaces import TenantLogins, TenantNamespaces
from engine.agents.kubernetes.pods import PodDefaults, agent_pod
from engine.agents.kubernetes.reasons import CONFIGURATION_ERRORS, PodState, Standing, pod_state
from engine.agents.kubernetes.warm import PoolClaims
from engine.agents.sizes import AgentSizes
from engine.breakers import BreakerStore, CircuitBreaker
from engine.contracts.catalogue import Catalogue
from engine.contracts.kernel import AgentBinding, AllocationProblem, BindRequest, BindResult, KernelRole
from engine.errors import AllocationFailedError, ConfigurationError, NotFoundError, UnavailableError
from engine.observability.log import get_logger
from engine.ports import HostRecord, HostStore
from engine.settings import Settings

log = get_logger(__name__)

FAILED: Final = "RESOURCE_ALLOCATION_FAILED"
TIMEOUT: Final = "AGENT_ALLOCATION_TIMEOUT"

POLL_SECONDS: Final = 0.2
ROUND_SECONDS: Final = 1.5
PODS_LISTED_A_SECOND: Final = 500
"""Large lists are asked for more seldom: ten thousand pods are tens of megabytes."""

HOSTS_MAX: Final = 20_000
STARTS_MAX: Final = 3
"""A pod whose process ends so often within one allocation will not do better the next time."""

START_AGAIN_SECONDS: Final = (0.0, 1.0, 3.0)
HOPELESS: Final = CONFIGURATION_ERRORS | {"InvalidImageName", "ErrImageNeverPull"}
"""Waiting does not help. A pull that failed may be tried again by the kubelet, so it is waited for."""


class WarmPods(Protocol):
    """Pods that are there already."""

    async def claim(self, wanted: Sequence[Identity]) -> Collection[str]:
        """Dedicate waiting pods to these agents, as far as there are any; the ids of the agents that got one."""
        ...


@dataclass(slots=True)
class _Agent:
    """One that needs a pod, in one allocation."""

    who: Identity
    role: KernelRole
    pod_name: str
    starts: int = 0
    """Pods of it that ended while this allocation waited."""
    start_at: float = 0.0
    problem: AllocationProblem | None = None
    hopeless: bool = False

    def note(self, code: Literal["RESOURCE_ALLOCATION_FAILED", "AGENT_ALLOCATION_TIMEOUT"], message: str) -> None:
        self.problem = AllocationProblem(agent_id=self.who.agent_id, code=code, message=message[:1_000])

    def give_up(self, message: str) -> None:
        self.note(FAILED, message)
        self.hopeless = True


@dataclass(slots=True)
class _Allocation:
    """What is known in the course of one."""

    tenant: str
    execution_id: str
    agents: dict[str, _Agent]
    hosts: Sequence[HostRecord] = ()
    pods: dict[str, Document] = field(default_factory=dict)
    listed: bool = False
    """False: the API has not answered yet, so that what PostgreSQL says is all that is known."""
    unreachable: bool = False
    round_at: float = float("-inf")
    full: list[tuple[tuple[int, int], str]] = field(default_factory=list)
    """Amounts for which the quota had no room in this round, and what the API server said."""

    @property
    def pause_seconds(self) -> float:
        return max(ROUND_SECONDS, len(self.pods) / PODS_LISTED_A_SECOND)


class PodAllocator:
    """Binds agents to hosts that run in their own pods. `Binder` asks it for the types that run in pods."""

    def __init__(
        self,
        api: KubernetesApi,
        namespaces: TenantNamespaces,
        hosts: HostStore,
        catalogue: Catalogue,
        settings: Settings,
        warm: WarmPods | None = None,
    ) -> None:
        self._api = api
        self._namespaces = namespaces
        self._hosts = hosts
        self._catalogue = catalogue
        self._sizes = AgentSizes.of(settings, catalogue)
        self._defaults = PodDefaults.of(settings)
        self._start_seconds = settings.kubernetes_start_seconds
        self._slots = asyncio.Semaphore(settings.kubernetes_creates_max)
        self._warm = warm

    async def bind(self, request: BindRequest, *, give_up_when_unreachable: bool = False) -> BindResult:
        """Agents whose hosts are there; with `wait_seconds` pods are made for the others, and waited for.

        Without it Kubernetes is not asked, since that may take longer than a tick has.
        """
        allocation = self._begin(request)
        ends = time.monotonic() + request.wait_seconds
        while True:
            allocation.hosts = await self._hosts.live_for(
                request.tenant, request.execution_id, HOSTS_MAX, gone_too=request.wait_seconds > 0
            )
            if request.wait_seconds > 0 and not allocation.listed and not allocation.unreachable:
                await self._round(allocation)
            bindings = _bindings(allocation)
            missing = [agent for id, agent in allocation.agents.items() if id not in bindings]
            now = time.monotonic()
            done = not missing or now >= ends or all(agent.hopeless for agent in missing)
            if done or (allocation.unreachable and give_up_when_unreachable):
                await self._leave(allocation, missing)
                return _result(bindings, missing)
            if now - allocation.round_at >= allocation.pause_seconds:
                await self._round(allocation)
            await asyncio.sleep(min(POLL_SECONDS, max(ends - time.monotonic(), 0.0)))

    def _begin(self, request: BindRequest) -> _Allocation:
        asked = None if request.agent_ids is None else set(request.agent_ids)
        agents: dict[str, _Agent] = {}
        for name, role in request.roles.items():
            for agent_id in agent_ids(name, role.count):
                if asked is None or agent_id in asked:
                    who = Identity(request.tenant, request.execution_id, name, agent_id, role.type)
                    pod = names.pod_name(self._defaults.owner, request.tenant, request.execution_id, agent_id)
                    agents[agent_id] = _Agent(who, role, pod)
        return _Allocation(request.tenant, request.execution_id, agents)

    # A round: look, then act --------------------------------------------------------------------------------------

    async def _round(self, allocation: _Allocation) -> None:
        """Look at all pods of the execution once, and do what is to be done for each agent without a host."""
        allocation.full.clear()
        try:
            namespace = await self._namespaces.ensure(allocation.tenant)
            selector = names.agents_selector(
                self._defaults.owner, tenant=allocation.tenant, execution_id=allocation.execution_id
            )
            found = await self._api.list(PODS, namespace, selector=selector)
        except (UnavailableError, GoneError) as error:
            self._unreachable(allocation, error.message)
            return
        except (AllocationFailedError, ConfigurationError) as error:
            allocation.round_at = time.monotonic()
            for agent in allocation.agents.values():
                agent.give_up(error.message)
            return
        allocation.pods = {pod["metadata"]["name"]: pod for pod in found.items}
        allocation.listed, allocation.unreachable = True, False
        bindings = _bindings(allocation)
        lacking = [agent for agent_id, agent in allocation.agents.items() if agent_id not in bindings]
        lacking = await self._without_warm(allocation, lacking)
        async with asyncio.TaskGroup() as group:
            for agent in lacking:
                group.create_task(self._serve(namespace, allocation, agent))
        allocation.round_at = time.monotonic()

    def _unreachable(self, allocation: _Allocation, message: str) -> None:
        allocation.round_at = time.monotonic()
        allocation.unreachable = True
        for agent in allocation.agents.values():
            if not agent.hopeless:
                agent.note(TIMEOUT, f"no pod could be made: {message}")

    async def _without_warm(self, allocation: _Allocation, lacking: list[_Agent]) -> list[_Agent]:
        if self._warm is None:
            return lacking
        fresh = [agent.who for agent in lacking if agent.pod_name not in allocation.pods and self._is_usual(agent)]
        claimed = set(await self._warm.claim(fresh)) if fresh else set()
        return [agent for agent in lacking if agent.who.agent_id not in claimed]

    def _is_usual(self, agent: _Agent) -> bool:
        """Pods that wait are as large as the type says: an agent whose definition says more gets one of its own."""
        amounts = self._sizes.amounts(agent.who.agent_type, agent.role.cpu_micros, agent.role.memory_bytes)
        return amounts == self._sizes.amounts(agent.who.agent_type, 0, 0)

    async def _serve(self, namespace: str, allocation: _Allocation, agent: _Agent) -> None:
        """What one agent needs next. Its problem is noted where it has to wait."""
        if agent.hopeless:
            return
        pod = allocation.pods.get(agent.pod_name)
        try:
            async with self._slots:
                if pod is not None and not await self._removed(namespace, allocation, agent, pod):
                    return
                if time.monotonic() < agent.start_at:
                    return
                await self._create(namespace, allocation, agent)
        except NotFoundError:
            self._namespaces.forget(allocation.tenant)
            agent.note(TIMEOUT, f"the namespace {namespace} is gone")
        except UnavailableError as error:
            agent.note(TIMEOUT, f"no pod could be made: {error.message}")
        except (AllocationFailedError, ConfigurationError) as error:
            agent.give_up(error.message)

    async def _create(self, namespace: str, allocation: _Allocation, agent: _Agent) -> None:
        agent_type = self._catalogue.agents.get(agent.who.agent_type)
        if not runs_in_pods(agent_type):
            raise AllocationFailedError(f"the catalogue has no agent type {agent.who.agent_type} that runs in pods")
        amounts = self._sizes.amounts(agent.who.agent_type, agent.role.cpu_micros, agent.role.memory_bytes)
        for size, said in allocation.full:
            if size[0] <= amounts[0] and size[1] <= amounts[1]:
                agent.note(TIMEOUT, said)  # for a smaller one there was no room either
                return
        document = agent_pod(namespace, agent.who, agent_type, amounts, self._defaults)
        try:
            made = await self._api.create(PODS, namespace, document)
        except ObjectExistsError:
            # Another worker was faster, or a former pod is still ending: the next list says which.
            agent.note(TIMEOUT, "its pod is being started")
            return
        except QuotaExceededError as error:
            said = f"the tenant's quota has no room: {error.message}"
            allocation.full.append((amounts, said))
            agent.note(TIMEOUT, said)
            return
        allocation.pods[agent.pod_name] = made
        agent.note(TIMEOUT, "its pod is being started")
        log.info(
            "kubernetes.pod_made", tenant=agent.who.tenant, execution_id=agent.who.execution_id,
            agent_id=agent.who.agent_id, pod=agent.pod_name,
        )  # fmt: skip

    async def _removed(self, namespace: str, allocation: _Allocation, agent: _Agent, pod: Document) -> bool:
        """True when the way is free for a new pod of that name."""
        state = pod_state(pod)
        if _is_another_s(pod, agent.who):
            agent.give_up(f"the pod {agent.pod_name} is there and is not this agent's")
            return False
        if pod["metadata"].get("deletionTimestamp"):
            agent.note(TIMEOUT, "its former pod is still ending")
            if state.node_lost:
                await self._delete(namespace, pod, 0)
            return False
        if pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
            # It takes nothing any more, so that its successor may come at once.
            await self._delete(namespace, pod, 0)
            self._ended(agent, state)
            return not agent.hopeless
        if state.standing is Standing.STUCK:
            said = f"{state.reason}"
            if state.reason is not None and state.reason.code in HOPELESS:
                agent.give_up(said)
            else:
                agent.note(FAILED, said)
            return False
        if state.standing is Standing.LOST or self._is_mute(allocation, pod, state):
            log.info("kubernetes.pod_replaced", pod=agent.pod_name, tenant=agent.who.tenant, why=str(state.reason))
            await self._delete(namespace, pod, 0 if state.node_lost else None)
            agent.note(TIMEOUT, "its former pod is still ending")
            return False
        if state.standing is Standing.RUNNING:
            agent.note(TIMEOUT, "its pod runs, and its agent has not registered yet: see the pod's log")
        else:
            agent.note(TIMEOUT, f"its pod waits: {state.reason}" if state.reason else "its pod is being started")
        return False

    def _ended(self, agent: _Agent, state: PodState) -> None:
        """Its process ended before it was of use; now and then that passes."""
        agent.starts += 1
        said = f"its pod ended before the agent had registered: {state.reason}"
        if agent.starts > STARTS_MAX:
            agent.give_up(said)
            return
        agent.note(FAILED, said)
        agent.start_at = time.monotonic() + START_AGAIN_SECONDS[min(agent.starts, len(START_AGAIN_SECONDS)) - 1]

    def _is_mute(self, allocation: _Allocation, pod: Document, state: PodState) -> bool:
        """It runs, but its host was given up, or has not come in all that time."""
        if state.standing is not Standing.RUNNING:
            return False
        host_id = names.host_id(pod["metadata"]["name"], pod["metadata"]["uid"])
        if any(host.host_id == host_id and host.state == "gone" for host in allocation.hosts):
            return True
        started = pod.get("status", {}).get("startTime")
        if not started:
            return False
        return (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds() > self._start_seconds

    async def _delete(self, namespace: str, pod: Document, grace_seconds: int | None) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        try:
            await self._api.delete(PODS, namespace, name, uid=uid, grace_seconds=grace_seconds)
        except ConflictError:
            log.info("kubernetes.pod_was_replaced", pod=name)  # by another worker, meanwhile

    async def _leave(self, allocation: _Allocation, missing: Sequence[_Agent]) -> None:
        """Pods that cannot start go: the next allocation makes them anew, perhaps from a catalogue that was put right.
        Those that only wait stay: they may still come, and their executions are told then."""
        for agent in missing:
            pod = allocation.pods.get(agent.pod_name)
            if pod is None or pod_state(pod).standing is not Standing.STUCK:
                continue
            try:
                await self._delete(pod["metadata"]["namespace"], pod, None)
            except UnavailableError as error:
                log.warning("kubernetes.pod_not_removed", pod=agent.pod_name, error=error.message)


@asynccontextmanager
async def open_allocator(
    settings: Settings, hosts: HostStore, logins: TenantLogins, catalogue: Catalogue, breakers: BreakerStore
) -> AsyncIterator[PodAllocator]:
    """For the worker. Raises ConfigurationError; whether the cluster answers is found out by the first allocation.

    All workers share one circuit breaker: while it is open, allocations find the API unreachable without asking it.
    """
    secret = load_agent_secret(settings)
    async with open_api(ClusterAccess.of(settings), CircuitBreaker(BREAKER, breakers, BREAKER_RULE)) as api:
        namespaces = TenantNamespaces(api, logins, catalogue, settings, secret)
        warm = PoolClaims(api, hosts, catalogue, namespaces.name)
        yield PodAllocator(api, namespaces, hosts, catalogue, settings, warm)


def _bindings(allocation: _Allocation) -> dict[str, AgentBinding]:
    """Agents with a live host of their own. PostgreSQL may not know yet that a pod is gone: the list does."""
    found: dict[str, AgentBinding] = {}
    for host in allocation.hosts:
        agent_id = host.dedicated_to.agent_id if host.dedicated_to is not None else ""
        agent = allocation.agents.get(agent_id)
        if agent is None or host.state != "live" or agent_id in found:
            continue
        if agent.who.agent_type not in host.types or not has_capabilities(host.capabilities, agent.role.capabilities):
            continue
        if allocation.listed and _is_lost(host, agent, allocation.pods):
            continue
        found[agent_id] = AgentBinding(
            agent_id=agent_id,
            role=agent.who.role,
            host_id=host.host_id,
            slots=host.slots,
            chains=CHAINS in host.features,
        )
    return found


def _is_lost(host: HostRecord, agent: _Agent, pods: Mapping[str, Document]) -> bool:
    """Of the agent's own pod; one that came from a pool has a name of its own, of which this list knows nothing."""
    name, uid = names.pod_of_host(host.host_id)
    if name != agent.pod_name:
        return False
    pod = pods.get(name)
    return pod is None or pod["metadata"]["uid"] != uid or pod_state(pod).standing is Standing.LOST


def _is_another_s(pod: Document, who: Identity) -> bool:
    found = names.identity_of(pod["metadata"])
    return found is None or found[:2] != who[:2] or found.agent_id != who.agent_id


def _result(bindings: Mapping[str, AgentBinding], missing: Sequence[_Agent]) -> BindResult:
    problems = [agent.problem for agent in missing if agent.problem is not None]
    problems.sort(key=lambda problem: problem.code != FAILED)
    return BindResult(
        bindings=tuple(bindings.values()),
        missing=tuple(agent.who.agent_id for agent in missing),
        problems=tuple(problems[:PROBLEMS_MAX]),
    )


PROBLEMS_MAX: Final = 20
"""They travel through the workflow's history."""
