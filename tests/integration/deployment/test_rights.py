"""What the engine's own account may do on a real control plane, with a real token: what it needs, nothing else."""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.http import ApiClient
from tests.integration.deployment.chart import (
    OPERATOR_KINDS,
    OWN_NAMESPACES,
    apply,
    render,
    restricted,
)

Document = dict[str, Any]

OWNER: Final = "orchestrator.internal/owner"
RIGHTS_SECONDS: Final = 20.0
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
FORBIDDEN: Final = 403
MERGE: Final = "application/merge-patch+json"


async def login(control_plane: ControlPlane, namespace: str, account: str) -> ApiClient:
    """As that service account, with a token as its pods get one."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    answer = await control_plane.client().create(path, request)
    context = ssl.create_default_context(cafile=str(control_plane.certificate_authority))
    return ApiClient(control_plane.url, answer["status"]["token"], context)


async def installed(control_plane: ControlPlane, folder: Path, namespace: str, values: Document | None = None) -> None:
    client = control_plane.client()
    await apply(client, [*OPERATOR_KINDS, restricted(namespace)])
    await apply(client, render(folder, values, namespace=namespace))


def tenant_namespace(name: str, owner: str, **labels: str) -> Document:
    marks = {OWNER: owner, "pod-security.kubernetes.io/enforce": "restricted", **labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marks}}


def binding(role: str, release: str, account: str = "orchestrator-allocator") -> Document:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "orchestrator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": release}],
    }


def agent_pod(name: str, **spec: Any) -> Document:
    security = {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    container = {
        "name": "agent", "image": "agent:1", "securityContext": security,
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            **spec,
        },
    }


def plain(kind: str, name: str, version: str = "v1", **fields: Any) -> Document:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}


async def until(done: Callable[[int], bool], client: ApiClient, method: str, path: str, body: Document) -> Any:
    """Rights and policies act a moment after they are stored."""
    ends = time.monotonic() + RIGHTS_SECONDS
    while True:
        status, answer = await client.request(method, path, body)
        if done(status):
            return answer
        assert time.monotonic() < ends, (status, answer)
        await asyncio.sleep(0.2)


async def refused(client: ApiClient, method: str, path: str, body: Document | None = None, kind: str = "") -> str:
    status, answer = await client.request(method, path, body, *((kind,) if kind else ()))
    assert status == FORBIDDEN, (method, path, status, answer)
    return str(answer["message"])


async def refused_by_policy(client: ApiClient, path: str, body: Document, text: str) -> None:
    """The first time, it may take the policy a moment; what was made before is no such thing."""
    answer = await until(lambda status: status in (FORBIDDEN, 422), client, "POST", path, body)
    assert text in answer["message"], answer


async def test_it_makes_tenants_namespaces_and_works_in_them(control_plane: ControlPlane, tmp_path: Path) -> None:
    release = "rights-needed"
    await installed(control_plane, tmp_path, release)
    engine = await login(control_plane, release, "orchestrator-allocator")
    name = "orchestrator-needed"
    body = tenant_namespace(name, "orchestrator")
    await until(lambda status: status == 201, engine, "POST", "/api/v1/namespaces", body)
    assert (await engine.get(f"/api/v1/namespaces/{name}"))["metadata"]["name"] == name
    role = f"{release}:orchestrator:tenant"
    path = f"{RBAC}/namespaces/{name}/rolebindings"
    await until(lambda status: status == 201, engine, "POST", path, binding(role, release))

    place = f"/api/v1/namespaces/{name}"
    quota = plain("ResourceQuota", "orchestrator", spec={"hard": {"pods": "5"}})
    await until(lambda status: status == 201, engine, "POST", f"{place}/resourcequotas", quota)
    limits = {"limits": [{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}}]}
    await engine.create(f"{place}/limitranges", plain("LimitRange", "orchestrator", spec=limits))
    await engine.create(f"{place}/secrets", plain("Secret", "agents", stringData={"REDIS_URL": "redis://x"}))
    await refused(engine, "GET", f"{place}/secrets/agents")
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    policies = f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies"
    await engine.create(policies, plain("NetworkPolicy", "orchestrator", "networking.k8s.io/v1", spec=deny))
    await until(lambda status: status == 201, engine, "POST", f"{place}/pods", agent_pod("one"))
    assert [pod["metadata"]["name"] for pod in (await engine.get(f"{place}/pods"))["items"]] == ["one"]
    patch = {"metadata": {"labels": {"claimed": "yes"}}}
    status, _ = await engine.request("PATCH", f"{place}/pods/one", patch, MERGE)
    assert status == 200
    status, _ = await engine.request("GET", f"{place}/pods?watch=1&timeoutSeconds=1")
    assert status == 200
    await engine.delete(f"{place}/pods/one")
    await engine.delete(f"{place}/pods?labelSelector=orchestrator.internal/execution")
    # Even there a pod that is not "restricted" is none of its business.
    assert "violates PodSecurity" in await refused(engine, "POST", f"{place}/pods", agent_pod("two", hostNetwork=True))
    for request in (("GET", f"{place}/pods/one/log"), ("GET", f"{place}/events"), ("DELETE", place)):
        await refused(engine, *request)
    await refused(engine, "POST", f"{place}/pods/one/exec?command=sh")
    await refused(engine, "GET", f"{place}/secrets")
    await refused(engine, "DELETE", f"{place}/secrets/agents")
    await refused(engine, "POST", f"{place}/serviceaccounts/default/token", {"spec": {}})


async def test_it_makes_and_changes_no_other_namespaces(control_plane: ControlPlane, tmp_path: Path) -> None:
    release, path = "rights-others", "/api/v1/namespaces"
    await installed(control_plane, tmp_path, release, {"kubernetes": {"namespacePrefix": "mine-"}})
    engine = await login(control_plane, release, "orchestrator-allocator")
    admin = control_plane.client()
    await until(lambda status: status == 201, engine, "POST", path, tenant_namespace("mine-a", "orchestrator"))
    text = "tenants' namespaces only"
    await refused_by_policy(engine, path, tenant_namespace("theirs-1", "orchestrator"), text)
    await refused_by_policy(engine, path, tenant_namespace("mine-2", "somebody-else"), text)
    privileged = tenant_namespace("mine-3", "orchestrator", **{"pod-security.kubernetes.io/enforce": "privileged"})
    await refused_by_policy(engine, path, privileged, text)
    await refused_by_policy(engine, path, plain("Namespace", "mine-4"), text)
    weaker = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    status, answer = await engine.request("PATCH", f"{path}/mine-a", weaker, MERGE)
    assert (status in (FORBIDDEN, 422), text in answer["message"]) == (True, True), answer
    claim = {"metadata": {"labels": tenant_namespace("", "orchestrator")["metadata"]["labels"]}}
    await admin.create(path, tenant_namespace("mine-other", "somebody-else"))
    for other in ("kube-system", "mine-other"):
        status, answer = await engine.request("PATCH", f"{path}/{other}", claim, MERGE)
        assert status in (FORBIDDEN, 422), (other, answer)
    note = {"metadata": {"annotations": {"orchestrator.internal/tenant": "a"}}}
    status, answer = await engine.request("PATCH", f"{path}/mine-a", note, MERGE)
    assert status == 200, answer


async def test_it_gives_itself_one_role_in_its_own_namespaces_and_nobody_anything_else(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    release = "rights-giving"
    await installed(control_plane, tmp_path, release, {"kubernetes": {"namespacePrefix": "gives-"}})
    engine = await login(control_plane, release, "orchestrator-allocator")
    admin, role = control_plane.client(), f"{release}:orchestrator:tenant"
    own, other = f"{RBAC}/namespaces/gives-a/rolebindings", f"{RBAC}/namespaces/gives-other/rolebindings"
    body = tenant_namespace("gives-a", "orchestrator")
    await until(lambda status: status == 201, engine, "POST", "/api/v1/namespaces", body)
    await admin.create("/api/v1/namespaces", tenant_namespace("gives-other", "somebody-else"))
    await refused_by_policy(engine, other, binding(role, release), "in tenants' namespaces only")
    await refused_by_policy(
        engine, f"{RBAC}/namespaces/kube-system/rolebindings", binding(role, release), "in tenants' namespaces only"
    )
    stranger = binding(role, release, "orchestrator-engine")
    await refused_by_policy(engine, own, stranger, "gives one role to itself")
    await refused_by_policy(engine, own, binding(f"{release}:orchestrator:namespaces", release), "gives one role")
    for name in ("cluster-admin", "admin", "edit", "view"):
        await refused(engine, "POST", own, binding(name, release))
    await until(lambda status: status == 201, engine, "POST", own, binding(role, release))
    await refused(engine, "DELETE", f"{own}/orchestrator")


@pytest.mark.parametrize("account", ["orchestrator-allocator", "orchestrator-engine", "default"])
async def test_beyond_that_it_may_do_nothing(control_plane: ControlPlane, tmp_path: Path, account: str) -> None:
    release = f"rights-{account.rpartition('-')[2]}-none"
    await installed(control_plane, tmp_path, release)
    engine = await login(control_plane, release, account)
    own, system = f"/api/v1/namespaces/{release}", "/api/v1/namespaces/kube-system"
    for path in (
        "/api/v1/nodes", "/api/v1/pods", "/api/v1/secrets", "/api/v1/events", "/api/v1/persistentvolumes",
        "/api/v1/serviceaccounts", f"{own}/secrets", f"{own}/secrets/orchestrator-servers", f"{own}/pods",
        f"{own}/configmaps", f"{system}/secrets", f"{system}/pods", f"{system}/configmaps",
        f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings", f"{RBAC}/rolebindings", f"{RBAC}/roles",
        "/apis/apps/v1/deployments", "/apis/batch/v1/jobs", "/apis/networking.k8s.io/v1/networkpolicies",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    ):  # fmt: skip
        await refused(engine, "GET", path)
    await refused(engine, "POST", f"{own}/pods", agent_pod("x"))
    await refused(engine, "POST", f"{system}/pods", agent_pod("x"))
    await refused(engine, "POST", f"{own}/secrets", plain("Secret", "x"))
    await refused(engine, "POST", f"{own}/pods/x/exec?command=sh")
    await refused(engine, "POST", f"{own}/pods/x/eviction", plain("Eviction", "x", "policy/v1"))
    await refused(engine, "POST", f"{own}/serviceaccounts/orchestrator-allocator/token", {"spec": {}})
    await refused(engine, "DELETE", own)
    await refused(engine, "PUT", f"{RBAC}/clusterroles/{release}:orchestrator:tenant", plain("ClusterRole", "x"))
    await refused(engine, "POST", f"{RBAC}/clusterrolebindings", binding("cluster-admin", release))
    if account != "orchestrator-allocator":
        await refused(engine, "GET", "/api/v1/namespaces")
        await refused(engine, "POST", "/api/v1/namespaces", tenant_namespace("orchestrator-x", "orchestrator"))


async def test_where_the_chart_makes_the_namespaces_the_engine_works_in_those_alone(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    release = "rights-made"
    values = {"kubernetes": OWN_NAMESPACES["kubernetes"] | {"namespacePrefix": "by-chart-"}}
    await installed(control_plane, tmp_path, release, values)
    engine = await login(control_plane, release, "orchestrator-allocator")
    for tenant in ("acme", "zeta"):
        place = f"/api/v1/namespaces/by-chart-{tenant}"
        pod = agent_pod("one", serviceAccountName="agent")
        await until(lambda status: status == 201, engine, "POST", f"{place}/pods", pod)
        await engine.create(f"{place}/secrets", plain("Secret", "agents"))
        await refused(engine, "POST", f"{place}/resourcequotas", plain("ResourceQuota", "more"))
        agent = await login(control_plane, f"by-chart-{tenant}", "agent")
        for path in (f"{place}/pods", f"{place}/secrets", "/api/v1/namespaces"):
            await refused(agent, "GET", path)
    await refused(engine, "POST", "/api/v1/namespaces", tenant_namespace("by-chart-x", "orchestrator"))
    await refused(engine, "PATCH", "/api/v1/namespaces/by-chart-acme", {"metadata": {"labels": {"a": "b"}}}, MERGE)
    await refused(engine, "POST", f"{RBAC}/namespaces/by-chart-acme/rolebindings", binding("view", release))
