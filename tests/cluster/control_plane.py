"""etcd, API server, controllers and scheduler, on free ports of the loopback interface, with tokens of their own."""

import json
import os
import secrets
import ssl
from pathlib import Path
from typing import Any, Final

from engine.embedded.addresses import LOOPBACK, HeldPort, hold_free_port
from engine.embedded.process import ChildProcess
from engine.embedded.server import write_secret
from tests.cluster.http import ApiClient
from tests.cluster.keys import certificate, new_key, private_pem, public_pem
from tests.cluster.program import build

READY_SECONDS_MAX: Final = 90.0
STOP_SECONDS: Final = 5.0
ADMIN: Final = "admin"
CONTROLLERS_OFF: Final = ("nodeipam", "cloud-node-lifecycle-controller", "certificatesigningrequest-signing-controller")
NODE_GRACE: Final = "20s"
"""A node that says nothing for so long counts as lost."""
REAL_NODE: Final = "real"
"""The node that may join with a kubelet of its own; every control plane has a login for it."""
ETCD_BYTES: Final = 8 * 1024**3


class ControlPlane:
    """One control plane in one folder. Several run side by side: each has ports, data and tokens of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.tokens: dict[str, str] = {}
        """Tokens of users, by name: `admin`, the parts, and the nodes that were added."""
        self._held: list[HeldPort] = []
        self._processes: dict[str, ChildProcess] = {}
        self._program = Path()
        self._ports: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"https://{LOOPBACK}:{self._ports['api']}"

    @property
    def certificate_authority(self) -> Path:
        return self.directory / "certificates" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.directory / f"{ADMIN}.kubeconfig"

    @property
    def token(self) -> str:
        """The administrator's."""
        return self.tokens[ADMIN]

    def pids(self) -> dict[str, int]:
        """Of the parts that run: `etcd`, `apiserver`, `controllers`, `scheduler`."""
        return {name: pid for name, process in self._processes.items() if (pid := process.pid) is not None}

    @property
    def kubelet_authority(self) -> Path:
        """Who it is that may ask kubelets: the API server has a certificate of it."""
        return self.directory / "kubelet-authority.crt"

    def client(self, user: str = ADMIN) -> ApiClient:
        return ApiClient(
            self.url, self.tokens[user], ssl.create_default_context(cafile=str(self.certificate_authority))
        )

    async def start(self) -> None:
        self._program = await build()
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in ("etcd", "peers", "api"):
            held = hold_free_port()
            self._held.append(held)
            self._ports[name] = held.port
        for held in self._held:
            held.hand_over()
        self._write_keys()
        self._write_tokens()
        await self._start_etcd()
        await self.start_api_server()
        for user in (ADMIN, "system:kube-controller-manager", "system:kube-scheduler"):
            self.write_kubeconfig(user)
        await self._start("controllers", *self._controllers())
        await self._start("scheduler", "--leader-elect=false", "--secure-port=0", *self._login("system:kube-scheduler"))
        await self._wait_for_namespace()

    async def stop(self) -> None:
        """The API server outlives SIGTERM once etcd is gone, and nothing here is to be kept: all are killed."""
        for name in ("scheduler", "controllers", "apiserver", "etcd"):
            process = self._processes.pop(name, None)
            if process is not None:
                await process.stop(0.0 if name == "apiserver" else STOP_SECONDS)
        while self._held:
            self._held.pop().release()

    async def stop_api_server(self) -> None:
        """As if it had crashed; `start_api_server` brings it back on the same port."""
        await self._processes.pop("apiserver").stop(0.0)

    async def start_api_server(self) -> None:
        folder = self.directory
        await self._start(
            "apiserver",
            "--etcd-servers", f"http://{LOOPBACK}:{self._ports['etcd']}",
            "--secure-port", str(self._ports["api"]), "--bind-address", LOOPBACK, "--advertise-address", "10.99.0.1",
            "--cert-dir", str(folder / "certificates"),
            "--service-account-key-file", str(folder / "service-accounts.pub"),
            "--service-account-signing-key-file", str(folder / "service-accounts.key"),
            "--service-account-issuer", "https://kubernetes.default.svc",
            "--token-auth-file", str(folder / "tokens.csv"),
            "--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
            "--kubelet-preferred-address-types", "InternalIP",
            "--kubelet-client-certificate", str(folder / "kubelet-client.crt"),
            "--kubelet-client-key", str(folder / "kubelet-client.key"), "--allow-privileged=true",
            "--service-cluster-ip-range", "10.0.0.0/24", "--endpoint-reconciler-type", "none",
            "--max-requests-inflight", "800", "--max-mutating-requests-inflight", "400",
        )  # fmt: skip
        await self._processes["apiserver"].wait_ready(self._is_ready, READY_SECONDS_MAX)

    def write_kubeconfig(self, user: str, path: Path | None = None, server: str | None = None) -> Path:
        path = path or self.directory / f"{user.replace(':', '-')}.kubeconfig"
        cluster = {"server": server or self.url, "certificate-authority": str(self.certificate_authority)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
            "current-context": "tests",
        }
        write_secret(path, json.dumps(document).encode())
        return path

    # Parts -------------------------------------------------------------------------------------------------------

    def _write_keys(self) -> None:
        accounts = new_key()
        write_secret(self.directory / "service-accounts.key", private_pem(accounts))
        (self.directory / "service-accounts.pub").write_bytes(public_pem(accounts))
        authority = new_key()
        self.kubelet_authority.write_bytes(certificate(authority, "tests-kubelet-authority", authority))
        client = new_key()
        # A group whose members RBAC lets do everything, as kubelets ask who it is that asks them.
        signed = certificate(client, "apiserver", authority, "tests-kubelet-authority", organization="system:masters")
        (self.directory / "kubelet-client.crt").write_bytes(signed)
        write_secret(self.directory / "kubelet-client.key", private_pem(client))

    def _write_tokens(self) -> None:
        groups = {
            ADMIN: "system:masters",
            "system:kube-controller-manager": "",
            "system:kube-scheduler": "",
            f"system:node:{REAL_NODE}": "system:nodes",
        }
        lines = []
        for user, group in groups.items():
            self.tokens[user] = secrets.token_hex(16)
            lines.append(f'{self.tokens[user]},{user},{user},"{group}"')
        write_secret(self.directory / "tokens.csv", ("\n".join(lines) + "\n").encode("ascii"))

    async def _start_etcd(self) -> None:
        client, peer = (f"http://{LOOPBACK}:{self._ports[name]}" for name in ("etcd", "peers"))
        await self._start(
            "etcd",
            "--data-dir", str(self.directory / "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
            "--quota-backend-bytes", str(ETCD_BYTES),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        )  # fmt: skip

    async def _is_ready(self) -> bool:
        if not self.certificate_authority.exists():
            return False
        status, _ = await self.client().request("GET", "/readyz")
        return status == 200

    def _controllers(self) -> list[str]:
        return [
            *self._login("system:kube-controller-manager"),
            "--leader-elect=false", "--secure-port=0", "--use-service-account-credentials=true",
            "--service-account-private-key-file", str(self.directory / "service-accounts.key"),
            "--controllers", ",".join(["*", *(f"-{name}" for name in CONTROLLERS_OFF)]),
            "--node-monitor-grace-period", NODE_GRACE, "--node-monitor-period", "2s",
            "--kube-api-qps", "300", "--kube-api-burst", "400",
        ]  # fmt: skip

    def _login(self, user: str) -> list[str]:
        return ["--kubeconfig", str(self.directory / f"{user.replace(':', '-')}.kubeconfig")]

    async def _wait_for_namespace(self) -> None:
        """Pods need the service account that a controller makes in each namespace."""

        async def made() -> bool:
            path = "/api/v1/namespaces/default/serviceaccounts/default"
            status, _ = await self.client().request("GET", path)
            return status == 200

        await self._processes["controllers"].wait_ready(made, READY_SECONDS_MAX)

    async def _start(self, part: str, *arguments: str) -> None:
        process = ChildProcess(
            part,
            [self._program, part, *arguments],
            directory=self.directory,
            log_file=self.directory / f"{part}.log",
            environment={"PATH": os.environ.get("PATH", ""), "HOME": str(self.directory)},
        )
        self._processes[part] = process
        await process.start()


def document(kind: str, name: str, *, version: str = "v1", **fields: Any) -> dict[str, Any]:
    """A Kubernetes object."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}
