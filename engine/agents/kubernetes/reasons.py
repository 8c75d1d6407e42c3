"""What the state of a pod means for the agent in it: it may still come, it serves, it cannot start, or it is lost.

Pure: reads the API's own documents. Reasons are told to executions, so they name no other tenant's things; what a
container itself wrote into its termination message stays out, for it may be anything.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

Document = Mapping[str, Any]

MESSAGE_LENGTH_MAX: Final = 300

IMAGE_ERRORS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
)
CONFIGURATION_ERRORS: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
)
CANNOT_START: Final = IMAGE_ERRORS | CONFIGURATION_ERRORS
"""Why a container waits, where waiting longer does not help: the kubelet would go on trying for ever."""

_DISRUPTIONS: Final = {
    "EvictionByEvictionAPI": ("Evicted", "the pod was evicted through the Eviction API"),
    "PreemptionByScheduler": ("Preempted", "the pod was preempted by one of higher priority"),
    "DeletionByTaintManager": ("NodeLost", "the node of the pod was tainted and does not take it any more"),
    "DeletionByPodGC": ("NodeLost", "the node of the pod is gone"),
    "TerminationByKubelet": ("Evicted", "the node ran short of a resource, or shut down"),
}
"""Reasons of the condition `DisruptionTarget`, as ours."""

NODE_REASONS: Final = frozenset({"NodeLost", "NodeNotReady"})
"""With these no kubelet is there that would end the containers and confirm a deletion."""

_KILLED_OUTRIGHT: Final = frozenset({"Shutdown", "NodeShutdown", "Terminated"})


class Standing(StrEnum):
    WAITING = "waiting"
    """Not running yet, and nothing says that it never will."""
    RUNNING = "running"
    STUCK = "stuck"
    """It cannot start, and waiting does not help."""
    LOST = "lost"
    """Its process is gone, or is being ended: nothing comes of it any more."""


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` is one word for programs, `message` for people."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class PodState:
    standing: Standing
    reason: Reason | None = None
    ready: bool = False

    @property
    def node_lost(self) -> bool:
        """Nobody will confirm that it ended."""
        return self.reason is not None and self.reason.code in NODE_REASONS


def pod_state(pod: Document) -> PodState:
    """Of a pod as the API has it."""
    status: Document = pod.get("status") or {}
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return PodState(Standing.LOST, _disruption(status) or _lost_node(pod, status) or _ended(status) or DELETED)
    if status.get("phase") in ("Failed", "Succeeded"):
        return PodState(Standing.LOST, _disruption(status) or _ended(status) or _phase_reason(status))
    begun_anew = _begun_anew(status)
    if begun_anew is not None:
        return PodState(Standing.LOST, begun_anew)
    lost = _lost_node(pod, status)
    if lost is not None:
        return PodState(Standing.LOST, lost)
    stuck = _stuck(status)
    if stuck is not None:
        return PodState(Standing.STUCK, stuck)
    if status.get("phase") == "Running":
        return PodState(Standing.RUNNING, ready=_condition(status, "Ready").get("status") == "True")
    return PodState(Standing.WAITING, _unscheduled(status))


def deleted_state(pod: Document) -> PodState:
    """Of a pod that is not there any more, from the last that was seen of it."""
    status: Document = pod.get("status") or {}
    return PodState(Standing.LOST, _disruption(status) or _lost_node(pod, status) or _ended(status) or DELETED)


DELETED: Final = Reason("Deleted", "the pod was deleted")


def _containers(status: Document) -> Iterable[Document]:
    for name in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(name) or ()


def _condition(status: Document, kind: str) -> Document:
    return next((item for item in status.get("conditions") or () if item.get("type") == kind), {})


def _disruption(status: Document) -> Reason | None:
    condition = _condition(status, "DisruptionTarget")
    if condition.get("status") != "True":
        return None
    code, message = _DISRUPTIONS.get(condition.get("reason", ""), ("Disrupted", "the cluster ended the pod"))
    if condition.get("reason") == "TerminationByKubelet" and status.get("message"):
        message = _short(status["message"])
    return Reason(code, message)


def _ended(status: Document) -> Reason | None:
    """Of the first container that ended badly; that one was killed for its memory says more than that another ended."""
    ended = [item for item in (_ending(container, "state") for container in _containers(status)) if item is not None]
    bad = [item for item in ended if item.code != "Completed"]
    return next((item for item in bad if item.code == "OOMKilled"), None) or next(iter(bad), None)


def _begun_anew(status: Document) -> Reason | None:
    """A container that the kubelet started again has a new process, which knows nothing of the former one."""
    for container in status.get("containerStatuses") or ():
        if container.get("restartCount") or (container.get("lastState") or {}).get("terminated"):
            found = _ending(container, "state") or _ending(container, "lastState")
            if found is None or found.code == "Completed":
                return Reason("Restarted", f"the container {container.get('name', '')} was started again")
            return found
    return None


def _ending(container: Document, field: str) -> Reason | None:
    ending = (container.get(field) or {}).get("terminated")
    if ending is None:
        return None
    name, code = container.get("name", ""), ending.get("exitCode", 0)
    if ending.get("reason") == "OOMKilled":
        return Reason("OOMKilled", f"the container {name} was killed for using more memory than its limit")
    if ending.get("reason") == "ContainerCannotRun" or ending.get("reason") in CANNOT_START:
        return Reason(ending["reason"], f"the container {name} could not be started")
    if not code:
        return Reason("Completed", f"the container {name} ended by itself")
    return Reason("ContainerExited", f"the container {name} ended with exit code {code}")


def _phase_reason(status: Document) -> Reason:
    """Failed without a container's word: the kubelet itself ended or refused it."""
    code, message = status.get("reason") or "", _short(status.get("message") or "")
    if code == "Evicted":
        return Reason("Evicted", message or "the node ran short of a resource")
    if code in _KILLED_OUTRIGHT:
        return Reason("NodeShutdown", message or "the node shut down")
    if code == "NodeLost":
        return Reason("NodeLost", message or "the node of the pod is gone")
    if status.get("phase") == "Succeeded":
        return Reason("Completed", "the pod ended by itself")
    return Reason(code or "Failed", message or "the pod failed")


def _lost_node(pod: Document, status: Document) -> Reason | None:
    """The cluster's controllers say so with a reason, or take back `Ready` although every container is ready by the
    kubelet's last word: only a kubelet itself would change that word."""
    if status.get("reason") == "NodeLost":
        return Reason("NodeLost", "the node of the pod is gone")
    if not pod.get("spec", {}).get("nodeName") or status.get("phase") != "Running":
        return None
    ready = _condition(status, "Ready")
    containers = list(status.get("containerStatuses") or ())
    unheard = bool(containers) and all(c.get("ready") and "running" in (c.get("state") or {}) for c in containers)
    if ready.get("status") in ("False", "Unknown") and unheard:
        return Reason("NodeNotReady", "the node of the pod does not answer")
    return None


def _stuck(status: Document) -> Reason | None:
    for container in _containers(status):
        waiting = (container.get("state") or {}).get("waiting") or {}
        code = waiting.get("reason")
        if code in CANNOT_START:
            image = f" of the image {container['image']}" if code in IMAGE_ERRORS and container.get("image") else ""
            told = _short(waiting.get("message") or "")
            said = f"the container {container.get('name', '')}{image} cannot be started"
            return Reason(code, f"{said}: {told}" if told else said)
    return None


def _unscheduled(status: Document) -> Reason | None:
    condition = _condition(status, "PodScheduled")
    if condition.get("status") == "False" and condition.get("reason"):
        return Reason(condition["reason"], _short(condition.get("message") or "no node takes the pod"))
    return None


def _short(text: str) -> str:
    """In one line, so that it can stand in a message and in a log."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MESSAGE_LENGTH_MAX else line[: MESSAGE_LENGTH_MAX - 3] + "..."
