"""The keeper: watches the pods of every tenant, says which agents are lost and why, and removes what is not wanted.

One watch shows the namespaces that are this deployment's, and one watch each the agents' pods in them. Whatever a pod's
agent is lost by is reported to the registry at once, which tells the executions. Every few seconds PostgreSQL is asked,
in one query, which executions are open, and `reconciling` decides what goes. Nothing that matters is kept here: a
keeper that starts anew finds out everything again, and all it does bears being done twice. One acts at a time.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from engine.agents.hostport import FleetPort
from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import NAMESPACES, PODS, ConflictError, Document, KubernetesApi
from engine.agents.kubernetes.reasons import Standing
from engine.agents.kubernetes.reconciling import Decisions, Removal, decide, executions_of
from engine.agents.kubernetes.seen import SeenPod, read_deleted_pod, read_pod
from engine.agents.kubernetes.watching import ApiSource, Change, Mirror, Watch
from engine.concurrency import end_all
from engine.errors import EngineError, UnavailableError
from engine.observability.log import get_logger
from engine.pod_ports import HostKey, PodOwners

log = get_logger(__name__)

LEADER: Final = "pod-keeper"
TERM_SECONDS: Final = 30.0
"""After this the lead is taken anew: a lock whose session died is not noticed in between."""

STANDBY_SECONDS: Final = 1.0
ROUND_SECONDS: Final = 2.0
REPORT_AGAIN_SECONDS: Final = 0.5
FORCE_SECONDS_MAX: Final = 2.0
"""So long a report waits for the removal of a pod on a lost node, and no longer."""

RELEASED_AT_ONCE: Final = 40
"""Executions in one call: their ids make up its address."""

REMOVED_A_ROUND_MAX: Final = 500
REPORTS_MAX: Final = 100_000


class Pools(Protocol):
    """Pods that wait for executions. Implemented by `engine.agents.kubernetes.warm`."""

    async def round(self, pods: Sequence[SeenPod]) -> None: ...


@dataclass(frozen=True, slots=True)
class SeenNamespace:
    name: str
    uid: str
    tenant: str
    ending: bool


def read_namespace(document: Mapping[str, Any]) -> SeenNamespace:
    metadata = document["metadata"]
    return SeenNamespace(
        name=metadata["name"],
        uid=metadata["uid"],
        tenant=(metadata.get("annotations") or {}).get(names.TENANT, ""),
        ending=bool(metadata.get("deletionTimestamp")),
    )


class Keeper:
    """Runs beside the host fleet, in the role `hosts`."""

    def __init__(
        self, api: KubernetesApi, port: FleetPort, owners: PodOwners, owner: str, pools: Pools | None = None
    ) -> None:
        self._api = api
        self._port = port
        self._owners = owners
        self._owner = owner
        self._pools = pools
        self._namespaces = Watch(
            ApiSource(api, NAMESPACES, None, _selector(names.owner_labels(owner))),
            Mirror(read_namespace, read_namespace),
            self._namespace_changed,
            "namespaces",
        )
        self._watches: dict[str, tuple[Watch[SeenPod], asyncio.Task[None]]] = {}
        self._background: list[asyncio.Task[None]] = []
        self._ended_at: dict[str, float] = {}
        self._reports: OrderedDict[str, SeenPod] = OrderedDict()
        """By uid: whose loss the registry is to hear of."""
        self._to_report = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Leads when no other keeper does; sits out what does not answer."""
        try:
            while True:
                pause_seconds = STANDBY_SECONDS
                try:
                    async with self._owners.leader(LEADER) as leading:
                        if leading:
                            self._begin()
                            await self._lead()
                            pause_seconds = 0.0
                        else:
                            await self._stop()
                except EngineError as error:
                    log.warning("keeper.interrupted", error=str(error))
                await asyncio.sleep(pause_seconds)
        finally:
            await self._stop()

    def counts(self) -> dict[tuple[str, str], int]:
        """Pods by tenant and standing; `pool` for those that wait for an execution."""
        found: dict[tuple[str, str], int] = {}
        for pod in self.pods():
            standing = "pool" if pod.warm else pod.state.standing.value
            found[pod.tenant, standing] = found.get((pod.tenant, standing), 0) + 1
        return found

    def pods(self) -> list[SeenPod]:
        """As they were last seen."""
        return [pod for watch, _ in self._watches.values() for pod in watch.mirror.things.values()]

    def namespaces(self) -> set[str]:
        """Whose pods are watched at present."""
        return {name for name, (watch, _) in self._watches.items() if watch.synced}

    def _begin(self) -> None:
        if not self._background:
            self._background = [
                asyncio.create_task(self._namespaces.run(), name="watch of namespaces"),
                asyncio.create_task(self._report_losses(), name="reports of lost pods"),
            ]

    async def _stop(self) -> None:
        """What was seen is forgotten: another keeper acts meanwhile."""
        tasks = [*self._background, *(task for _, task in self._watches.values())]
        self._background = []
        self._watches.clear()
        self._namespaces.mirror.version = None
        self._namespaces.mirror.things.clear()
        self._reports.clear()
        await end_all(tasks)

    async def _lead(self) -> None:
        ends = time.monotonic() + TERM_SECONDS
        while time.monotonic() < ends:
            for task in [*self._background, *(task for _, task in self._watches.values())]:
                if task.done():
                    task.result()  # it ends by a defect only: say which
            try:
                await self.round()
            except EngineError as error:
                log.warning("keeper.round_failed", error=str(error))
            await asyncio.sleep(ROUND_SECONDS)

    # What is seen ----------------------------------------------------------------------------------------------

    def _namespace_changed(self, change: Change[SeenNamespace]) -> None:
        name = change.last.name
        if change.now is not None and name not in self._watches:
            source = ApiSource(self._api, PODS, name, names.agents_selector(self._owner))
            watch = Watch(source, Mirror(read_pod, read_deleted_pod), self._pod_changed, f"pods of {name}")
            self._watches[name] = (watch, asyncio.create_task(watch.run(), name=f"watch of {name}"))
        elif change.now is None and name in self._watches:
            # Its pods were deleted before it, and their watch has said so; what it has not said is said here.
            watch, task = self._watches.pop(name)
            for gone in watch.mirror.listed({}, ""):
                self._pod_changed(gone)
            task.cancel()

    def _pod_changed(self, change: Change[SeenPod]) -> None:
        pod = change.last
        was_lost = change.before is not None and change.before.state.standing is Standing.LOST
        if change.now is None:
            self._ended_at.pop(pod.uid, None)
            if not was_lost:
                self._note_lost(pod)
        elif pod.state.standing is Standing.LOST:
            self._ended_at.setdefault(pod.uid, time.time())
            if not was_lost:
                self._note_lost(pod)
        elif pod.state.standing is Standing.STUCK and (change.before is None or change.before.state != pod.state):
            log.warning("keeper.pod_cannot_start", pod=pod.name, namespace=pod.namespace, reason=str(pod.state.reason))

    def _note_lost(self, pod: SeenPod) -> None:
        if pod.tenant and len(self._reports) < REPORTS_MAX:
            log.info("keeper.pod_lost", pod=pod.name, namespace=pod.namespace, reason=str(pod.state.reason))
            self._reports[pod.uid] = pod
            self._to_report.set()

    async def _report_losses(self) -> None:
        """To the registry, which tells the executions. Redis being away is waited out."""
        while True:
            await self._to_report.wait()
            self._to_report.clear()
            while self._reports:
                uid, pod = next(iter(self._reports.items()))
                if pod.state.node_lost:
                    # First, so that its replacement finds the name and the room free.
                    await self._remove_from_lost_node(pod)
                reason = "" if pod.state.reason is None else str(pod.state.reason)
                try:
                    await self._port.host_gone(pod.tenant, pod.host_id, reason)
                except UnavailableError as error:
                    log.warning("keeper.redis_unavailable", error=str(error))
                    await asyncio.sleep(REPORT_AGAIN_SECONDS)
                    continue
                self._reports.pop(uid, None)

    async def _remove_from_lost_node(self, pod: SeenPod) -> None:
        try:
            async with asyncio.timeout(FORCE_SECONDS_MAX):
                await self._remove(Removal(pod, "its node is lost", force=True))
        except TimeoutError:
            return  # the next round tries again

    # What is done ----------------------------------------------------------------------------------------------

    async def round(self) -> None:
        """Remove what is not wanted. Raises UnavailableError when PostgreSQL does not answer."""
        if not self._namespaces.synced:
            return
        pods = await self._with_claims([pod for watch, _ in self._watches.values() for pod in _current(watch)])
        is_open = await self._owners.open_among(executions_of(pods))
        await self._act(decide(pods, is_open, self._ended_at, time.time()))
        if self._pools is not None:
            await self._pools.round(pods)

    async def _with_claims(self, pods: Iterable[SeenPod]) -> list[SeenPod]:
        """A claim is made in PostgreSQL, and the pod's labels follow it: what has claimed a pod says PostgreSQL."""
        found = list(pods)
        claims = await self._owners.claims([HostKey(pod.tenant, pod.host_id) for pod in found if pod.warm])
        for n, pod in enumerate(found):
            claim = claims.get(HostKey(pod.tenant, pod.host_id)) if pod.warm else None
            if claim is not None:
                found[n] = replace(
                    pod, warm=False, labelled=False, execution_id=claim.execution_id, agent_id=claim.agent_id
                )
        return found

    async def _act(self, decisions: Decisions) -> None:
        releases = [
            self._release(namespace, executions[first : first + RELEASED_AT_ONCE])
            for namespace, executions in ((name, sorted(found)) for name, found in decisions.release.items())
            for first in range(0, len(executions), RELEASED_AT_ONCE)
        ]
        removals = [self._remove(removal) for removal in decisions.remove[:REMOVED_A_ROUND_MAX]]
        await asyncio.gather(*releases, *removals)

    async def _release(self, namespace: str, executions: Sequence[str]) -> None:
        """All pods of closed executions, in one call."""
        chosen = ",".join(names.label_value(execution_id) for execution_id in executions)
        selector = f"{names.agents_selector(self._owner)},{names.EXECUTION} in ({chosen})"
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        try:
            query = {"labelSelector": selector}
            await self._api.request("DELETE", PODS, PODS.path(namespace), query=query, body=options)
        except EngineError as error:
            log.warning("keeper.not_released", namespace=namespace, executions=len(executions), error=str(error))
            return
        log.info("keeper.released", namespace=namespace, executions=len(executions))

    async def _remove(self, removal: Removal) -> None:
        pod = removal.pod
        grace_seconds = 0 if removal.force else None
        try:
            await self._api.delete(PODS, pod.namespace, pod.name, uid=pod.uid, grace_seconds=grace_seconds)
        except ConflictError:
            return  # another pod has the name by now
        except EngineError as error:
            log.warning("keeper.not_removed", pod=pod.name, namespace=pod.namespace, error=str(error))
            return
        log.info("keeper.removed", pod=pod.name, namespace=pod.namespace, why=removal.why, force=removal.force)


def _current(watch: Watch[SeenPod]) -> Iterable[SeenPod]:
    """Nothing while the watch is broken: decisions from old news could meet what is new."""
    return watch.mirror.things.values() if watch.synced else ()


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
