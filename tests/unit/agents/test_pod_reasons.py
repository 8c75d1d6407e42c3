"""What the state of a pod means."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.agents.kubernetes.reasons import MESSAGE_LENGTH_MAX, Standing, deleted_state, pod_state

RUNS: dict[str, Any] = {"name": "agent", "ready": True, "restartCount": 0, "state": {"running": {}}}


def pod(metadata: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {"metadata": metadata or {}, "spec": {"nodeName": "n1"}, "status": status}


def waits(reason: str, **more: Any) -> dict[str, Any]:
    return {"name": "agent", "image": "i:1", "state": {"waiting": {"reason": reason, **more}}}


def ended(reason: str, code: int) -> dict[str, Any]:
    return {"name": "agent", "state": {"terminated": {"reason": reason, "exitCode": code}}}


def disrupted(reason: str) -> list[dict[str, str]]:
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason}]


@pytest.mark.parametrize(
    ("document", "standing", "code"),
    [
        (pod(phase="Pending"), Standing.WAITING, None),
        (pod(phase="Pending", containerStatuses=[waits("ContainerCreating")]), Standing.WAITING, None),
        (
            pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]),
            Standing.WAITING,
            "Unschedulable",
        ),
        (pod(phase="Running", containerStatuses=[RUNS]), Standing.RUNNING, None),
        *[
            (pod(phase="Pending", containerStatuses=[waits(reason)]), Standing.STUCK, reason)
            for reason in (
                "ErrImagePull",
                "ImagePullBackOff",
                "ErrImageNeverPull",
                "InvalidImageName",
                "CreateContainerConfigError",
            )
        ],
        (pod(phase="Failed", containerStatuses=[ended("OOMKilled", 137)]), Standing.LOST, "OOMKilled"),
        (pod(phase="Failed", containerStatuses=[ended("Error", 3)]), Standing.LOST, "ContainerExited"),
        (pod(phase="Succeeded", containerStatuses=[ended("Completed", 0)]), Standing.LOST, "Completed"),
        (pod(phase="Failed", reason="Evicted", message="low on memory"), Standing.LOST, "Evicted"),
        (pod(phase="Failed", reason="NodeShutdown"), Standing.LOST, "NodeShutdown"),
        (pod(phase="Failed", conditions=disrupted("EvictionByEvictionAPI")), Standing.LOST, "Evicted"),
        (pod(phase="Failed", conditions=disrupted("PreemptionByScheduler")), Standing.LOST, "Preempted"),
        (pod(phase="Failed", conditions=disrupted("DeletionByPodGC")), Standing.LOST, "NodeLost"),
        (pod(phase="Failed", conditions=disrupted("SomethingNew")), Standing.LOST, "Disrupted"),
        (pod(phase="Running", reason="NodeLost"), Standing.LOST, "NodeLost"),
        (
            pod(phase="Running", containerStatuses=[RUNS], conditions=[{"type": "Ready", "status": "False"}]),
            Standing.LOST,
            "NodeNotReady",
        ),
        (
            pod(
                phase="Running",
                containerStatuses=[{**RUNS, "ready": False}],
                conditions=[{"type": "Ready", "status": "False"}],
            ),
            Standing.RUNNING,
            None,
        ),
        (
            pod(
                phase="Running",
                containerStatuses=[{**RUNS, "restartCount": 1, "lastState": ended("OOMKilled", 137)["state"]}],
            ),
            Standing.LOST,
            "OOMKilled",
        ),
        (pod(phase="Running", containerStatuses=[{**RUNS, "restartCount": 2}]), Standing.LOST, "Restarted"),
        (pod({"deletionTimestamp": "2026-01-01T00:00:00Z"}, phase="Running"), Standing.LOST, "Deleted"),
        (
            pod({"deletionTimestamp": "2026-01-01T00:00:00Z"}, conditions=disrupted("DeletionByTaintManager")),
            Standing.LOST,
            "NodeLost",
        ),
    ],
)
def test_a_pod_stands_as_its_status_says(document: dict[str, Any], standing: Standing, code: str | None) -> None:
    state = pod_state(document)
    assert (state.standing, None if state.reason is None else state.reason.code) == (standing, code)


def test_the_worst_of_several_containers_is_the_reason() -> None:
    containers = [ended("Completed", 0), ended("Error", 1), ended("OOMKilled", 137)]
    reason = pod_state(pod(phase="Failed", containerStatuses=containers)).reason
    assert reason is not None
    assert reason.code == "OOMKilled"


def test_a_pod_that_is_not_there_any_more_is_lost_however_it_stood() -> None:
    state = deleted_state(pod(phase="Running", containerStatuses=[RUNS]))
    assert (state.standing, str(state.reason)) == (Standing.LOST, "Deleted: the pod was deleted")


def test_nodes_that_do_not_answer_confirm_nothing() -> None:
    assert pod_state(pod(phase="Running", reason="NodeLost")).node_lost
    assert not pod_state(pod(phase="Failed", reason="Evicted")).node_lost
    assert not pod_state(pod(phase="Pending")).node_lost


@given(st.text(max_size=2_000))
def test_messages_are_one_short_printable_line(text: str) -> None:
    reason = pod_state(pod(phase="Pending", containerStatuses=[waits("ErrImagePull", message=text)])).reason
    assert reason is not None
    assert reason.message.isprintable()
    assert len(reason.message) <= MESSAGE_LENGTH_MAX + 100
