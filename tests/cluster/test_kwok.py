import asyncio

from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import AddNodes

PODS = 40
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "agent-"},
    "spec": {
        "containers": [{"name": "agent", "image": "agent", "resources": {"requests": {"cpu": "100m"}}}],
        "terminationGracePeriodSeconds": 0,
    },
}


async def test_pods_run_on_the_nodes_that_a_test_adds(control_plane: ControlPlane, kwok_nodes: AddNodes) -> None:
    client = control_plane.client()
    names = await kwok_nodes(2, cpu="4", memory="8Gi", pods=30)
    for _ in range(PODS):
        await client.create("/api/v1/namespaces/default/pods", POD)
    running: list[str] = []
    async with asyncio.timeout(60):
        while len(running) < PODS:
            items = (await client.get("/api/v1/namespaces/default/pods"))["items"]
            running = [item["spec"]["nodeName"] for item in items if item["status"]["phase"] == "Running"]
            await asyncio.sleep(0.05)
    assert set(running) == set(names)
    assert max(running.count(name) for name in names) <= 30
