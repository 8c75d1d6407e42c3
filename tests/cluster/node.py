"""A real node: kubelet, containerd and containers, in namespaces that end with it, on a bridge of its own.

Addresses, bridge and cgroups have fixed names, so there is one on a machine at a time. It needs root and Debian's
packages; nothing of it stays.
"""

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from engine.embedded.locks import FileLock
from engine.embedded.process import ChildProcess
from tests.cluster.control_plane import REAL_NODE, ControlPlane
from tests.cluster.http import ApiClient
from tests.cluster.images import PAUSE_IMAGE, write_agent_image, write_pause_image
from tests.cluster.program import ClusterUnavailableError, build, build_pause, cache
from tests.cluster.relay import Relay

BRIDGE: Final = "orch-tests0"
ADDRESS: Final = "10.99.0.1"
NETWORK: Final = "10.99.0.0/22"
PREFIX_BITS: Final = 22
KUBELET_PORT: Final = 10250
PODS_MAX: Final = 110
READY_SECONDS_MAX: Final = 90.0
LOCK_SECONDS_MAX: Final = 600.0
GONE_SECONDS_MAX: Final = 30.0
COMMAND_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.1
PLUGINS: Final = Path("/usr/lib/cni")
CGROUPS: Final = Path("/sys/fs/cgroup")
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS: Final = {"containerd": "containerd", "ctr": "containerd", "runc": "runc", "ip": "iproute2"}

CONTAINERD: Final = """\
version = 2
root = "{folder}/containerd"
state = "/run/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def why_no_node() -> str | None:
    """What is missing for a real node, besides the cluster's program; None when nothing is."""
    if os.geteuid() != 0:
        return "a real node needs root"
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=PATH) is None:
            return f"a real node needs {program} (Debian's package {package})"
    if not (PLUGINS / "bridge").exists():
        return "a real node needs the network plugins (Debian's package containernetworking-plugins)"
    return None


def node_lock() -> FileLock:
    """Held by whoever has the machine's one node."""
    return FileLock(cache() / "node.lock")


class RealNode:
    """The node of one control plane. `code`: folders of Python modules that the agent image has besides the SDK."""

    name: Final = REAL_NODE
    address: Final = ADDRESS

    def __init__(self, control_plane: ControlPlane, code: tuple[Path, ...] = ()) -> None:
        self._control_plane = control_plane
        self._code = code
        self._lock = node_lock()
        self._folder = Path()
        self._process: ChildProcess | None = None
        self._relays: list[Relay] = []

    @property
    def _client(self) -> ApiClient:
        return self._control_plane.client()

    @property
    def log(self) -> Path:
        return self._folder / "node.log"

    async def start(self) -> None:
        """Until pods can be put on it. Raises ClusterUnavailableError when it cannot be here."""
        if (missing := why_no_node()) is not None:
            raise ClusterUnavailableError(missing)
        program, pause = await build(), await build_pause()
        await self._lock.acquire(LOCK_SECONDS_MAX)
        # A short name: sockets lie in it, whose paths are limited.
        self._folder = Path(tempfile.mkdtemp(prefix="orch-node-"))
        self._folder.chmod(0o711)
        await self._remove_traces()
        await _run("ip", "link", "add", BRIDGE, "type", "bridge")
        await _run("ip", "addr", "add", f"{ADDRESS}/{PREFIX_BITS}", "dev", BRIDGE)
        await _run("ip", "link", "set", BRIDGE, "up")
        self._write_configuration()
        images = [self._folder / "pause.tar", self._folder / "agent.tar"]
        await asyncio.to_thread(write_pause_image, images[0], pause)
        await asyncio.to_thread(write_agent_image, images[1], self._code)
        self._process = ChildProcess(
            "node",
            [
                "/usr/bin/unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL",
                "/bin/sh", Path(__file__).with_name("node.sh"), self._folder, program, self.name, ADDRESS, *images,
            ],
            directory=self._folder,
            log_file=self.log,
            environment={"PATH": PATH, "HOME": str(self._folder)},
        )  # fmt: skip
        await self._process.start()
        await self._process.wait_ready(self._is_ready, READY_SECONDS_MAX)

    async def stop(self) -> None:
        """Node, pods and all that was made for them."""
        while self._relays:
            await self._relays.pop().stop()
        if self._process is not None:
            await self._process.stop(0.0)
            self._process = None
        if self._lock.descriptor is None:
            return
        try:
            await self._remove_from_api()
        finally:
            await self._remove_traces()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.release()

    async def relay(self, target: Callable[[], tuple[str, int]]) -> int:
        """The port at which pods reach `target`, a server of the loopback interface, under the node's address."""
        relay = Relay(ADDRESS, target)
        self._relays.append(relay)
        return await relay.start()

    # Parts -------------------------------------------------------------------------------------------------------

    async def _is_ready(self) -> bool:
        status, node = await self._client.request("GET", f"/api/v1/nodes/{self.name}")
        if status != 200 or node["spec"].get("taints"):
            return False
        return any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])

    def _write_configuration(self) -> None:
        folder = self._folder
        (folder / "cni").mkdir()
        plugins: list[dict[str, Any]] = [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": False,
                "ipam": {"type": "host-local", "subnet": NETWORK, "rangeStart": "10.99.0.10"},
            },
            {"type": "loopback"},
        ]
        network = {"cniVersion": "0.4.0", "name": "tests", "plugins": plugins}
        (folder / "cni" / "10-tests.conflist").write_text(json.dumps(network))
        text = CONTAINERD.format(folder=folder, pause=PAUSE_IMAGE, plugins=PLUGINS)
        (folder / "containerd.toml").write_text(text)
        (folder / "kubelet.json").write_text(json.dumps(self._kubelet()))
        self._control_plane.write_kubeconfig(f"system:node:{self.name}", folder / "kubelet.kubeconfig")

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "port": KUBELET_PORT,
            "healthzPort": 0,
            "readOnlyPort": 0,
            # Pods reach this port as well: only the API server may use it.
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._control_plane.kubelet_authority)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "podLogsDir": str(self._folder / "logs"),
            "maxPods": PODS_MAX,
            "nodeLeaseDurationSeconds": 16,
            # The images are there once and for all, and the machine's disk is not the node's.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "registerWithTaints": [],
        }

    async def _remove_from_api(self) -> None:
        try:
            pods = await self._client.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self.name}")
            for pod in pods["items"]:
                where = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
                await self._client.request("DELETE", f"{where}?gracePeriodSeconds=0")
            await self._client.request("DELETE", f"/api/v1/nodes/{self.name}")
        except OSError:
            return  # the control plane has ended before its node

    async def _remove_traces(self) -> None:
        """What a namespace's end leaves: the bridge and the pods' cgroups, also those of a run that was killed."""
        if BRIDGE in {name for _, name in socket.if_nameindex()}:
            await _run("ip", "link", "delete", BRIDGE)
        async with asyncio.timeout(GONE_SECONDS_MAX):
            while not await asyncio.to_thread(_remove_cgroups):  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(POLL_SECONDS)


def _remove_cgroups() -> bool:
    """Whether none is left: the kernel refuses while a process in it is on its way out."""
    for top in [CGROUPS / "kubepods", *CGROUPS.glob("*/kubepods")]:
        for directory, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:
                return False
    return True


async def _run(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={"PATH": PATH}
    )
    said, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS_MAX)
    if process.returncode != 0:
        raise ClusterUnavailableError(f"{' '.join(arguments)}: {said.decode(errors='replace').strip()}")
