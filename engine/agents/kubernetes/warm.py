"""Warm pools: pods of a type that run and wait, so that an execution need not wait for its pods to start.

The keeper fills them (`WarmPools`), allocations claim from them (`PoolClaims`). A claim is made in PostgreSQL, in the
host's row: two executions cannot get the same one, and a pod that the keeper is about to remove cannot be claimed any
more, since its row is retired first. The labels follow, for people and for the release of all pods of an execution
in one call; where that did not happen, the keeper goes by PostgreSQL. The process in the pod is told nothing: its
registration says that it is of a pool, and whom it serves the engine knows.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.agents.catalogue import runs_in_pods
from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import PODS, KubernetesApi, ObjectExistsError, QuotaExceededError
from engine.agents.kubernetes.names import Identity
from engine.agents.kubernetes.pods import PodDefaults, pool_pod
from engine.agents.kubernetes.reasons import Standing
from engine.agents.kubernetes.seen import SeenPod
from engine.agents.sizes import AgentSizes
from engine.contracts.catalogue import Catalogue
from engine.contracts.pods import WarmPool
from engine.errors import EngineError, NotFoundError
from engine.observability.log import get_logger
from engine.pod_ports import HostKey, PodOwners
from engine.ports import HostStore

log = get_logger(__name__)

DEMAND_SECONDS: Final = 60.0
"""A pool holds as many pods as agents of its type were begun in this time, between its `size` and its `max`."""

FULL_SECONDS: Final = 30.0
"""Where the quota had no room, it is asked again after this: executions come before pools."""

BEGUN_KEPT_MAX: Final = 10_000


@dataclass(slots=True)
class PoolState:
    """Of one type for one tenant."""

    used_at: float
    begun: deque[float] = field(default_factory=lambda: deque(maxlen=BEGUN_KEPT_MAX))
    """When agents of the type got their pods, of the last minute."""
    full_until: float = 0.0

    def wanted(self, pool: WarmPool, now: float) -> int:
        """How many pods are to wait."""
        while self.begun and now - self.begun[0] > DEMAND_SECONDS:
            self.begun.popleft()
        if now - self.used_at > pool.idle_seconds:
            return 0
        return min(max(pool.size, len(self.begun)), pool.max)


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What one pool needs: numbers of pods to make, and pods that are too many."""

    create: tuple[int, ...] = ()
    remove: tuple[SeenPod, ...] = ()


def pool_change(
    waiting: Sequence[SeenPod], taken: Collection[str], wanted: int, name_of: Callable[[int], str]
) -> PoolChange:
    """`taken`: names in use, also by pods that are being deleted, or that were claimed and keep their name."""
    if len(waiting) >= wanted:
        # Those that are not ready go first, of the others the youngest.
        order = sorted(waiting, key=lambda pod: (pod.state.ready, -pod.created_at, pod.uid))
        return PoolChange(remove=tuple(order[: len(waiting) - wanted]))
    numbers: list[int] = []
    number = 0
    while len(waiting) + len(numbers) < wanted:
        number += 1
        if name_of(number) not in taken:
            numbers.append(number)
    return PoolChange(create=tuple(numbers))


class WarmPools:
    """The keeper's part."""

    def __init__(
        self,
        api: KubernetesApi,
        owners: PodOwners,
        catalogue: Catalogue,
        sizes: AgentSizes,
        defaults: PodDefaults,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._owners = owners
        self._catalogue = catalogue
        self._sizes = sizes
        self._defaults = defaults
        self._now = now
        self._states: dict[tuple[str, str], PoolState] = {}
        self._known: set[str] = set()
        """Uids of agents' pods that were counted."""

    async def round(self, pods: Sequence[SeenPod]) -> None:
        """Bring every pool to its size. `pods`: all of them, claims taken into account."""
        pooled: dict[str, WarmPool] = {}
        for name, known in self._catalogue.agents.items():
            if runs_in_pods(known) and known.kubernetes.warm is not None:
                pooled[name] = known.kubernetes.warm
        if not pooled:
            return
        groups: dict[tuple[str, str], list[SeenPod]] = defaultdict(list)
        namespaces: dict[str, str] = {}
        taken = {pod.name for pod in pods}
        for pod in pods:
            if pod.tenant and pod.agent_type in pooled:
                namespaces[pod.tenant] = pod.namespace
                groups[pod.tenant, pod.agent_type].append(pod)
        self._count(pods, pooled)
        for key, state in list(self._states.items()):
            namespace = namespaces.get(key[0])
            if namespace is None:
                del self._states[key]  # nothing of the tenant is left
                continue
            tenant, agent_type = key
            waiting = [pod for pod in groups[key] if pod.warm and _is_of_use(pod)]
            wanted = state.wanted(pooled[agent_type], self._now())

            def name_of(number: int, tenant: str = tenant, agent_type: str = agent_type) -> str:
                return names.pool_pod_name(self._defaults.owner, tenant, agent_type, number)

            change = pool_change(waiting, taken, wanted, name_of)
            await self._remove(tenant, change.remove)
            await self._create(namespace, tenant, agent_type, state, change.create)

    def _count(self, pods: Iterable[SeenPod], pooled: Mapping[str, object]) -> None:
        """A type is used while agents of it have pods; each new one is demand."""
        now, seen = self._now(), set()
        for pod in pods:
            if not pod.tenant or pod.agent_type not in pooled:
                continue
            key = (pod.tenant, pod.agent_type)
            state = self._states.get(key)
            if state is None:  # pods that wait were wanted before this keeper came
                state = self._states[key] = PoolState(now)
            if pod.warm:
                continue
            seen.add(pod.uid)
            state.used_at = now
            if pod.uid not in self._known:
                state.begun.append(now)
        self._known = seen

    async def _remove(self, tenant: str, pods: Sequence[SeenPod]) -> None:
        """Nobody may claim them first."""
        if not pods:
            return
        await self._owners.retire_pooled(tenant, [pod.host_id for pod in pods])
        hosts = [HostKey(tenant, pod.host_id) for pod in pods]
        claimed = {host.host_id for host in await self._owners.claims(hosts)}
        unclaimed = [pod for pod in pods if pod.host_id not in claimed]
        for pod in unclaimed:
            try:
                await self._api.delete(PODS, pod.namespace, pod.name, uid=pod.uid)
            except EngineError as error:
                log.warning("pool.pod_not_removed", pod=pod.name, error=str(error))
        log.info("pool.shrunk", tenant=tenant, pods=len(unclaimed))

    async def _create(
        self, namespace: str, tenant: str, agent_type: str, state: PoolState, numbers: Sequence[int]
    ) -> None:
        if not numbers or self._now() < state.full_until:
            return
        amounts = self._sizes.amounts(agent_type, 0, 0)
        known = self._catalogue.agents[agent_type]
        made = 0
        for number in numbers:
            document = pool_pod(namespace, tenant, agent_type, number, known, amounts, self._defaults)
            try:
                await self._api.create(PODS, namespace, document)
                made += 1
            except ObjectExistsError:
                continue  # the watch has not told of it yet
            except QuotaExceededError:
                state.full_until = self._now() + FULL_SECONDS
                break
            except EngineError as error:
                log.warning("pool.pod_not_made", tenant=tenant, agent_type=agent_type, error=str(error))
                state.full_until = self._now() + FULL_SECONDS
                break
        if made:
            log.info("pool.grown", tenant=tenant, agent_type=agent_type, pods=made)


class PoolClaims:
    """The allocation's part: implements `engine.agents.kubernetes.allocation.WarmPods`."""

    def __init__(self, api: KubernetesApi, hosts: HostStore, catalogue: Catalogue, namespace_of: Callable[[str], str]):
        self._api = api
        self._hosts = hosts
        self._catalogue = catalogue
        self._namespace_of = namespace_of

    async def claim(self, wanted: Sequence[Identity]) -> Collection[str]:
        """Dedicate waiting pods to these agents, as far as there are any; the ids of the agents that got one."""
        groups: dict[tuple[str, str], list[Identity]] = defaultdict(list)
        for who in wanted:
            known = self._catalogue.agents.get(who.agent_type)
            if known is None or known.kubernetes.warm is None:
                continue
            if not known.kubernetes.placement_required:  # where a waiting pod is was nobody's choice
                groups[who.tenant, who.agent_type].append(who)
        claimed: list[str] = []
        for (tenant, agent_type), agents in groups.items():
            waiting = list(await self._hosts.pooled(tenant, agent_type, min(1_000, 2 * len(agents) + 10)))
            for who in agents:
                while waiting:
                    host = waiting.pop(0)
                    if await self._hosts.claim(tenant, host.host_id, who.execution_id, who.agent_id):
                        claimed.append(who.agent_id)
                        await self._label(host.host_id, who)
                        break
        return claimed

    async def _label(self, host_id: str, who: Identity) -> None:
        """Not what the claim depends on."""
        pod, uid = names.pod_of_host(host_id)
        labels = {
            names.POOL: None,
            names.EXECUTION: names.label_value(who.execution_id),
            names.ROLE: names.label_value(who.role),
            names.AGENT: names.label_value(who.agent_id),
        }
        metadata = {"uid": uid, "labels": labels, "annotations": names.pod_annotations(who)}
        try:
            await self._api.patch(PODS, self._namespace_of(who.tenant), pod, {"metadata": metadata})
        except NotFoundError:
            log.warning("pool.claimed_pod_is_gone", pod=pod)  # its loss is told by the keeper
        except EngineError as error:
            log.warning("pool.pod_not_labelled", pod=pod, error=str(error))


def _is_of_use(pod: SeenPod) -> bool:
    return pod.deleting_at is None and pod.state.standing in (Standing.WAITING, Standing.RUNNING)
