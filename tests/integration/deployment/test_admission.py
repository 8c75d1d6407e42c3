"""The chart and the plain manifests on a real control plane, in namespaces that are "restricted"."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.integration.deployment.chart import (
    CHART,
    EVERYTHING,
    MANIFESTS,
    OPERATOR_KINDS,
    OWN_NAMESPACES,
    apply,
    path_of,
    pods_of_all,
    render,
    restricted,
)
from tests.integration.deployment.helm import helm


@pytest.mark.parametrize(
    ("name", "values"), [("defaults", {}), ("everything", EVERYTHING), ("own-namespaces", OWN_NAMESPACES)]
)
async def test_every_object_is_admitted_and_every_pod_is_made(
    control_plane: ControlPlane, tmp_path: Path, name: str, values: dict[str, Any]
) -> None:
    client, namespace = control_plane.client(), f"chart-{name}"
    documents = render(tmp_path, values, namespace=namespace)
    await apply(client, [*OPERATOR_KINDS, restricted(namespace)])
    await apply(client, documents)
    made = await pods_of_all(client, namespace, documents)
    assert set(made) == {
        f"orchestrator-{part}" for part in ("gateway", "worker", "bridge", "keeper", "hooks", "migrate")
    }
    for document in documents:
        stored = await client.get(path_of(document))
        assert stored["metadata"]["name"] == document["metadata"]["name"]


async def test_the_plain_manifests_are_admitted_as_they_stand(control_plane: ControlPlane) -> None:
    client = control_plane.client()
    documents = [document for document in yaml.safe_load_all(MANIFESTS.read_text()) if document]
    await apply(client, OPERATOR_KINDS)
    await apply(client, documents)
    namespace = "agentcore-orchestration"
    labels = (await client.get(f"/api/v1/namespaces/{namespace}"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert all(await pods_of_all(client, namespace, documents))


async def test_helm_installs_upgrades_and_takes_away(control_plane: ControlPlane, tmp_path: Path) -> None:
    client = control_plane.client()
    await apply(client, [restricted("installed")])

    def run(*arguments: str) -> Any:
        place = ("--namespace", "installed", "--kubeconfig", str(control_plane.kubeconfig))
        result = helm(*arguments, *place, folder=tmp_path)
        assert result.returncode == 0, result.stderr
        return result.stdout

    # Without hooks: the migration would be waited for, and no node is there to run it.
    run("install", "orchestrator", str(CHART), "--no-hooks")
    first = await client.get("/apis/apps/v1/namespaces/installed/deployments/orchestrator-gateway")
    run("upgrade", "orchestrator", str(CHART), "--set", "logLevel=DEBUG", "--set", "bridge.enabled=false", "--no-hooks")
    second = await client.get("/apis/apps/v1/namespaces/installed/deployments/orchestrator-gateway")
    sums = [item["spec"]["template"]["metadata"]["annotations"]["checksum/settings"] for item in (first, second)]
    assert sums[0] != sums[1]
    status, _ = await client.request("GET", "/apis/apps/v1/namespaces/installed/deployments/orchestrator-bridge")
    assert status == 404
    assert json.loads(run("list", "--output", "json"))[0]["revision"] == "2"
    run("uninstall", "orchestrator")
    left = await client.get("/apis/apps/v1/namespaces/installed/deployments")
    assert left["items"] == []
    roles = await client.get("/apis/rbac.authorization.k8s.io/v1/clusterroles")
    assert not [item for item in roles["items"] if item["metadata"]["name"].startswith("installed:")]
