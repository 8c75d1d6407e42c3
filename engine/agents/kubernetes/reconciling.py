"""What is to become of the pods that are there, decided from what the watches and PostgreSQL say. Pure.

Only pods with this engine's owner label ever come here. A pod lives for one execution; when that is closed, or was
never there, the pod goes. Of one agent's pods only the newest counts. A pod that ended is kept for a while, so that its
logs can be read, and a pod that nobody confirms to have ended is removed by force.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from engine.agents.kubernetes.reasons import Standing
from engine.agents.kubernetes.seen import SeenPod
from engine.pod_ports import ExecutionKey

ORPHAN_AGE_SECONDS: Final = 10.0
"""Executions are stored before their pods are made; the age covers clocks that differ a little."""

ENDED_KEPT_SECONDS: Final = 30.0
"""A pod that ended while its execution goes on: for people who want to read its logs."""

FORCE_AFTER_SECONDS: Final = 5.0
"""So long after the end of its grace period a pod should be gone; its kubelet does not answer then."""


@dataclass(frozen=True, slots=True)
class Removal:
    """One pod to be deleted. The uid is named in the call: another pod of that name is left alone."""

    pod: SeenPod
    why: str
    force: bool = False


@dataclass(slots=True)
class Decisions:
    release: dict[str, set[str]] = field(default_factory=dict)
    """Namespace -> closed executions all of whose pods go."""
    remove: list[Removal] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.release and not self.remove


def executions_of(pods: Iterable[SeenPod]) -> set[ExecutionKey]:
    """Those about which PostgreSQL is to be asked."""
    return {ExecutionKey(pod.tenant, pod.execution_id) for pod in pods if pod.execution_id is not None}


def decide(
    pods: Iterable[SeenPod], is_open: Mapping[ExecutionKey, bool], ended_at: Mapping[str, float], now: float
) -> Decisions:
    """`is_open` lacks executions that PostgreSQL does not know. `ended_at`: when each uid was first seen to be lost."""
    decisions = Decisions()
    superseded = _superseded(pods := list(pods))
    for pod in pods:
        if pod.deleting_at is not None:
            if pod.state.node_lost or now > pod.deleting_at + FORCE_AFTER_SECONDS:
                decisions.remove.append(Removal(pod, "nobody confirms that it ended", force=True))
        elif pod.warm:
            if pod.state.standing in (Standing.LOST, Standing.STUCK):
                decisions.remove.append(Removal(pod, "a warm pod of no use", force=pod.state.node_lost))
        else:
            _judge(pod, superseded, is_open, ended_at, now, decisions)
    return decisions


def _judge(
    pod: SeenPod,
    superseded: set[str],
    is_open: Mapping[ExecutionKey, bool],
    ended_at: Mapping[str, float],
    now: float,
    decisions: Decisions,
) -> None:
    known = None if pod.execution_id is None else is_open.get(ExecutionKey(pod.tenant, pod.execution_id))
    if known is False and not pod.labelled:
        decisions.remove.append(Removal(pod, "its execution is closed", force=pod.state.node_lost))
    elif known is False and pod.execution_id is not None:
        decisions.release.setdefault(pod.namespace, set()).add(pod.execution_id)
    elif known is None:
        if now - pod.created_at > ORPHAN_AGE_SECONDS:
            decisions.remove.append(Removal(pod, "there is no such execution", force=pod.state.node_lost))
    elif pod.state.node_lost:
        decisions.remove.append(Removal(pod, "its node is lost", force=True))
    elif pod.uid in superseded:
        decisions.remove.append(Removal(pod, "its agent has a newer pod"))
    elif pod.state.standing is Standing.LOST and now - ended_at.get(pod.uid, now) > ENDED_KEPT_SECONDS:
        decisions.remove.append(Removal(pod, "it ended"))


def _superseded(pods: Iterable[SeenPod]) -> set[str]:
    """Uids of pods whose agent has a newer one that is not lost."""
    newest: dict[tuple[str, str, str], SeenPod] = {}
    older: set[str] = set()
    for pod in pods:
        if pod.execution_id is None or pod.agent_id is None or pod.warm or pod.deleting_at is not None:
            continue
        if pod.state.standing is Standing.LOST:
            continue
        key = (pod.tenant, pod.execution_id, pod.agent_id)
        other = newest.setdefault(key, pod)
        if other is not pod:
            loser, newest[key] = (other, pod) if _age(other) < _age(pod) else (pod, other)
            older.add(loser.uid)
    return older


def _age(pod: SeenPod) -> tuple[float, str]:
    return pod.created_at, pod.uid
