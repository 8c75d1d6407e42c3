"""Nodes on which nothing runs, for scale: kwok plays their kubelets, and says of each pod that it runs."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from engine.embedded.process import ChildProcess
from tests.cluster.control_plane import ControlPlane
from tests.cluster.program import build_kwok

MARK: Final = "kwok.x-k8s.io/node"
"""Only nodes with this annotation are kwok's: a real node of the same control plane is left alone."""
STAGES: Final = (
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/fast/pod-complete",
    "pod/fast/pod-delete",
)
READY_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.1
STOP_SECONDS: Final = 5.0
CALLS_MAX: Final = 16
LEASE_SECONDS: Final = 40


class Kwok:
    """One kwok beside one control plane."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        self._client = control_plane.client()
        self._process: ChildProcess | None = None
        self._added = 0

    async def start(self) -> None:
        """Its nodes' leases are renewed from now on; again after `stop`."""
        folder = await build_kwok()
        directory = self._control_plane.directory
        stages = [argument for name in STAGES for argument in ("--config", str(folder / "stages" / f"{name}.yaml"))]
        self._process = ChildProcess(
            "kwok",
            [
                folder / "kwok",
                *stages,
                "--kubeconfig", self._control_plane.kubeconfig,
                "--manage-nodes-with-annotation-selector", f"{MARK}=fake",
                "--node-lease-duration-seconds", str(LEASE_SECONDS),
                "--server-address", "",
            ],
            directory=directory,
            log_file=directory / "kwok.log",
            environment={"PATH": os.environ.get("PATH", ""), "HOME": str(directory)},
        )  # fmt: skip
        await self._process.start()

    async def stop(self) -> None:
        """As if all its nodes fell silent at once."""
        if self._process is not None:
            await self._process.stop(STOP_SECONDS)
            self._process = None

    async def add(self, nodes: int, *, cpu: str = "8", memory: str = "32Gi", pods: int = 110) -> list[str]:
        """Their names, once pods can be put on them."""
        first, self._added = self._added, self._added + nodes
        names = [f"kwok-{number}" for number in range(first, first + nodes)]
        await self._for_each(names, lambda name: self._create(name, {"cpu": cpu, "memory": memory, "pods": str(pods)}))
        async with asyncio.timeout(READY_SECONDS_MAX + nodes):
            waited = set(names)
            while waited:
                listed = (await self._client.get("/api/v1/nodes"))["items"]
                waited -= {node["metadata"]["name"] for node in listed if _takes_pods(node)}
                if waited:
                    await asyncio.sleep(POLL_SECONDS)
        return names

    async def remove(self, names: Sequence[str]) -> None:
        """The nodes and, at once, the pods on them."""
        await self._for_each(names, self._remove)

    async def _create(self, name: str, amounts: dict[str, str]) -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {MARK: "fake"},
                "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            },
            "status": {"allocatable": amounts, "capacity": amounts},
        }
        await self._client.create("/api/v1/nodes", node)

    async def _remove(self, name: str) -> None:
        await self._client.request("DELETE", f"/api/v1/nodes/{name}")
        listed = await self._client.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")
        for pod in listed["items"]:
            where = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            await self._client.request("DELETE", f"{where}?gracePeriodSeconds=0")

    async def _for_each(self, names: Sequence[str], call: Callable[[str], Awaitable[None]]) -> None:
        free = asyncio.Semaphore(CALLS_MAX)

        async def one(name: str) -> None:
            async with free:
                await call(name)

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))


def _takes_pods(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and not node["spec"].get("taints")
