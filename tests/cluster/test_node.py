import asyncio
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.cluster.http import ApiClient
from tests.cluster.images import AGENT_IMAGE
from tests.cluster.node import RealNode

PODS = "/api/v1/namespaces/containers/pods"
HOG = "held = []\nwhile True: held.append(bytes(bytearray(8_000_000)))"


def pod(name: str, program: str) -> dict[str, Any]:
    rights = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    amounts = {"cpu": "500m", "memory": "64Mi"}
    container = {
        "name": "agent",
        "image": AGENT_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", program],
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": rights,
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def ended(client: ApiClient, name: str) -> dict[str, Any]:
    """How its container has ended."""
    async with asyncio.timeout(60):
        while True:
            found = await client.get(f"{PODS}/{name}")
            for status in found["status"].get("containerStatuses", []):
                if "terminated" in status["state"]:
                    terminated: dict[str, Any] = status["state"]["terminated"]
                    return terminated
            await asyncio.sleep(0.1)


async def test_agents_run_in_containers_and_die_there(control_plane: ControlPlane, real_node: RealNode) -> None:
    client = control_plane.client()
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "containers", "labels": labels}}
    await client.create("/api/v1/namespaces", namespace)

    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = await real_node.relay(lambda: ("127.0.0.1", server.sockets[0].getsockname()[1]))
    says = f"import socket\nsocket.create_connection(('{real_node.address}', {port})).sendall(b'from a pod')"
    programs = {
        "works": "import orchestration_agent, redis, examples, os; print('as', os.getuid())",
        "speaks": says,
        "hog": HOG,
        "writes": "open('/opt/new', 'w')",
    }
    for name, program in programs.items():
        await client.create(PODS, pod(name, program))
    outcomes = {name: await ended(client, name) for name in programs}
    server.close()
    status, log = await client.request("GET", f"{PODS}/works/log")
    assert (outcomes["works"]["exitCode"], status, log) == (0, 200, "as 65532\n")
    assert outcomes["speaks"]["exitCode"] == 0
    assert heard == [b"from a pod"]
    assert outcomes["hog"]["reason"] == "OOMKilled"
    assert outcomes["writes"]["exitCode"] == 1
    _, log = await client.request("GET", f"{PODS}/writes/log")
    assert "Read-only file system" in log
