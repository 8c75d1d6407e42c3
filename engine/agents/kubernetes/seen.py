"""A pod as the keeper remembers it: whose it is, how it stands. Ten thousand of these are small; documents are not."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from engine.agents.kubernetes.names import AGENT, EXECUTION, POOL, TENANT, TYPE, host_id
from engine.agents.kubernetes.reasons import PodState, deleted_state, pod_state

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SeenPod:
    namespace: str
    name: str
    uid: str
    tenant: str
    execution_id: str | None
    """None for a pod that waits in a pool."""
    agent_id: str | None
    agent_type: str
    warm: bool
    """It waits in a pool: no execution has claimed it."""
    state: PodState
    created_at: float
    deleting_at: float | None
    """When its grace period ends, once its deletion was asked for."""
    labelled: bool = True
    """Its labels name its execution too."""

    @property
    def host_id(self) -> str:
        """Under which the process in it registers."""
        return host_id(self.name, self.uid)


def read_pod(pod: Document) -> SeenPod:
    """Of a pod that is there."""
    return _read(pod, pod_state(pod))


def read_deleted_pod(pod: Document) -> SeenPod:
    """Of the last document of a pod that is not there any more."""
    return _read(pod, deleted_state(pod))


def _read(pod: Document, state: PodState) -> SeenPod:
    metadata: Document = pod["metadata"]
    labels: Document = metadata.get("labels") or {}
    told: Document = metadata.get("annotations") or {}
    warm = bool(labels.get(POOL))
    deleting = metadata.get("deletionTimestamp")
    return SeenPod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        tenant=told.get(TENANT, ""),
        execution_id=None if warm else told.get(EXECUTION),
        agent_id=None if warm else told.get(AGENT),
        agent_type=told.get(TYPE, ""),
        warm=warm,
        state=state,
        created_at=_seconds(metadata["creationTimestamp"]),
        deleting_at=None if deleting is None else _seconds(deleting),
    )


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
