"""Pods of agents, on a real API server with its admission, quota and scheduler."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.agents.credentials import agent_password, load_agent_secret
from engine.agents.kubernetes import names
from engine.agents.kubernetes.allocation import open_allocator
from engine.agents.kubernetes.client import (
    LIMIT_RANGES,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    RESOURCE_QUOTAS,
    SECRETS,
    ClusterAccess,
    ConflictError,
    open_api,
)
from engine.breakers import LocalBreakers
from engine.contracts.capacity import MICROS
from engine.contracts.catalogue import AgentType, Catalogue
from engine.contracts.kernel import BindRequest, KernelRole
from engine.contracts.pods import Egress, NodeRule, PodSettings, SecretReference, Toleration
from engine.errors import ConfigurationError, NotFoundError, UnavailableError
from tests.cluster.control_plane import ControlPlane
from tests.integration.agents.clusters import Logins, Tenant, cluster_settings, eventually, tenant_of
from tests.unit.agents.fakes import FakeHosts

CATALOGUE = Catalogue(
    agents={
        "coder": AgentType(entry="python:m:f"),
        "careful": AgentType(
            entry="container",
            image="registry.example:5000/team/agent@sha256:" + "0" * 64,
            environment={"MODE": "$(POD_UID)"},
            kubernetes=PodSettings(
                command=("/agent", "--cost=$5"),
                cpu="750m",
                memory="512Mi",
                node_selector={"disk": "ssd"},
                nodes=(
                    NodeRule(key="zone", values=("a", "b")),
                    NodeRule(key="spot", operator="DoesNotExist", preferred=True),
                ),
                tolerations=(Toleration(key="agents", operator="Exists", effect="NoSchedule"),),
                placement="spread",
                grace_seconds=3,
                secrets={"API_KEY": SecretReference(secret="model-keys", key="main")},
                egress=(Egress(network="192.0.2.0/24", ports=(443,)),),
            ),
        ),
        "close": AgentType(entry="synthetic", kubernetes=PodSettings(placement="together", placement_required=True)),
        "important": AgentType(entry="synthetic", kubernetes=PodSettings(priority_class="not-there")),
    }
)
ENDED = {"name": "agent", "image": "agent:1", "imageID": "", "ready": False, "restartCount": 0}
IMAGE_MISSING = {**ENDED, "state": {"waiting": {"reason": "ErrImageNeverPull", "message": "not on this node"}}}
EXITED = {**ENDED, "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}


@pytest.fixture
async def tenant(control_plane: ControlPlane) -> AsyncIterator[Tenant]:
    async with tenant_of(control_plane.kubeconfig, CATALOGUE) as found:
        yield found


async def test_an_agent_s_pod_is_admitted_as_restricted_and_says_whose_it_is(tenant: Tenant) -> None:
    result = await tenant.allocator.bind(
        tenant.request(cpu_micros=2 * MICROS, memory_bytes=4_000_000_000, wait_seconds=0.5)
    )
    assert result.missing == ("worker-1",)
    pod = (await tenant.pods())["worker-1"]
    assert pod["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "orchestrator",
        "app.kubernetes.io/component": "agent",
        names.OWNER: "orchestrator",
        names.TENANT: tenant.tenant,
        names.EXECUTION: tenant.execution_id,
        names.ROLE: "worker",
        names.AGENT: "worker-1",
        names.TYPE: "coder",
    }
    (container,) = pod["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "4G"},
        "limits": {"cpu": "2", "memory": "4G"},
    }
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["enableServiceLinks"] is False
    assert pod["spec"]["restartPolicy"] == "Never"
    environment = {item["name"]: item for item in container["env"]}
    assert environment["ORCHESTRATION_AGENT_DEDICATED_TO"]["value"] == f"{tenant.execution_id}/worker-1"
    assert environment["ORCHESTRATION_AGENT_REDIS_URL"]["valueFrom"]["secretKeyRef"]["name"] == "agent-redis-login"
    assert "engines-own" not in str(pod)
    assert all(password not in str(pod) for password in tenant.logins.passwords.values())


async def test_a_tenant_s_namespace_has_quota_limits_policies_and_the_login(tenant: Tenant) -> None:
    await tenant.namespaces.ensure(tenant.tenant)
    namespace = await tenant.api.get(NAMESPACES, None, tenant.namespace)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    quota = await tenant.api.get(RESOURCE_QUOTAS, tenant.namespace, "agents")
    assert quota["spec"]["hard"] == {
        "requests.cpu": "100", "limits.cpu": "100",
        "requests.memory": "200Gi", "limits.memory": "200Gi", "pods": "500",
    }  # fmt: skip
    limits = await tenant.api.get(LIMIT_RANGES, tenant.namespace, "agents")
    assert limits["spec"]["limits"][0]["default"] == {"cpu": "250m", "memory": "256Mi"}
    policies = {
        p["metadata"]["name"]: p["spec"] for p in (await tenant.api.list(NETWORK_POLICIES, tenant.namespace)).items
    }
    assert policies["agents-default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies["agents-redis"]["egress"] == [
        {"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}], "ports": [{"protocol": "TCP", "port": 6380}]}
    ]
    (extra,) = [spec for name, spec in policies.items() if name.startswith("agents-egress-")]
    assert extra["egress"][0]["to"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    secret = await tenant.api.get(SECRETS, tenant.namespace, "agent-redis-login")
    url = base64.b64decode(secret["data"]["url"]).decode()
    assert url == f"redis://agent-{tenant.tenant}:{tenant.logins.passwords[tenant.tenant]}@10.0.0.7:6380/0"
    assert tenant.logins.tenants == {tenant.tenant}


async def test_what_was_changed_in_a_namespace_is_put_right(tenant: Tenant) -> None:
    await tenant.namespaces.ensure(tenant.tenant)
    calls = tenant.api.calls.total()
    await tenant.namespaces.ensure(tenant.tenant)
    assert tenant.api.calls.total() == calls, "it is remembered"
    hard = {"spec": {"hard": {"pods": "7"}}}
    await tenant.api.patch(RESOURCE_QUOTAS, tenant.namespace, "agents", hard)
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
    await tenant.api.patch(NAMESPACES, None, tenant.namespace, label)
    tenant.namespaces.forget(tenant.tenant)
    await tenant.namespaces.ensure(tenant.tenant)
    quota = await tenant.api.get(RESOURCE_QUOTAS, tenant.namespace, "agents")
    assert quota["spec"]["hard"]["pods"] == "500"
    namespace = await tenant.api.get(NAMESPACES, None, tenant.namespace)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


async def test_a_namespace_of_somebody_else_is_left_alone(tenant: Tenant) -> None:
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tenant.namespace}}
    await tenant.api.create(NAMESPACES, None, document)
    with pytest.raises(ConfigurationError, match="NAMESPACE_PREFIX"):
        await tenant.namespaces.ensure(tenant.tenant)
    result = await tenant.allocator.bind(tenant.request())
    assert result.problems[0].code == "RESOURCE_ALLOCATION_FAILED"


async def test_namespaces_that_others_make_are_needed_and_not_made(control_plane: ControlPlane) -> None:
    async with tenant_of(control_plane.kubeconfig, CATALOGUE, kubernetes_manage_namespaces=False) as tenant:
        with pytest.raises(UnavailableError, match="there is no namespace"):
            await tenant.namespaces.ensure(tenant.tenant)
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tenant.namespace}}
        await tenant.api.create(NAMESPACES, None, document)
        await tenant.namespaces.ensure(tenant.tenant)
        assert (await tenant.api.list(RESOURCE_QUOTAS, tenant.namespace)).items == []


async def test_what_the_catalogue_says_of_pods_reaches_them(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(type="careful", wait_seconds=0.3))
    spec = (await tenant.pods())["worker-1"]["spec"]
    (container,) = spec["containers"]
    assert container["image"].startswith("registry.example:5000/team/agent@sha256:")
    assert container["command"] == ["/agent", "--cost=$$5"], "which Kubernetes reads as --cost=$5"
    assert container["resources"]["limits"] == {"cpu": "750m", "memory": "512Mi"}
    environment = {item["name"]: item for item in container["env"]}
    assert environment["MODE"]["value"] == "$$(POD_UID)"
    assert environment["API_KEY"]["valueFrom"]["secretKeyRef"] == {
        "name": "model-keys",
        "key": "main",
        "optional": False,
    }
    assert "ORCHESTRATION_AGENT_ENTRY" not in environment
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert spec["terminationGracePeriodSeconds"] == 3
    assert spec["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"][names.ROLE] == "worker"
    node_affinity = spec["affinity"]["nodeAffinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" in node_affinity
    assert "preferredDuringSchedulingIgnoredDuringExecution" in node_affinity
    assert {item["key"] for item in spec["tolerations"]} >= {"agents", "node.kubernetes.io/unreachable"}


async def test_agents_that_belong_together_ask_for_the_same_node(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(type="close", wait_seconds=0.3))
    affinity = (await tenant.pods())["worker-1"]["spec"]["affinity"]["podAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"


async def test_workers_that_ask_at_once_make_one_pod_an_agent(tenant: Tenant) -> None:
    request = tenant.request(30, wait_seconds=0.5)
    workers = [tenant.another_worker() for _ in range(6)]
    results = await asyncio.gather(*(worker.bind(request) for worker in workers for _ in range(2)))
    assert all(len(result.missing) == 30 for result in results)
    found = await tenant.api.list(PODS, tenant.namespace)
    assert len(found.items) == 30
    assert len({pod["metadata"]["annotations"][names.AGENT] for pod in found.items}) == 30


async def test_a_pod_costs_one_call_beside_the_shared_lists(tenant: Tenant) -> None:
    await tenant.namespaces.ensure(tenant.tenant)
    await tenant.allocator.bind(tenant.request(1, wait_seconds=0.1))
    tenant.api.calls.clear()
    tenant.execution_id = "another-execution"
    result = await tenant.allocator.bind(tenant.request(100, wait_seconds=0.1))
    assert len(result.missing) == 100
    assert tenant.api.calls["POST pods"] == 100
    assert tenant.api.calls["GET pods"] <= 2


async def test_binding_ends_when_the_agents_have_registered(tenant: Tenant) -> None:
    binding = asyncio.create_task(tenant.allocator.bind(tenant.request(2)))
    hosts = {agent: tenant.register(await tenant.pod(agent)) for agent in ("worker-1", "worker-2")}
    result = await binding
    assert {bound.agent_id: bound.host_id for bound in result.bindings} == hosts
    assert result.missing == ()
    assert {(bound.slots, bound.chains) for bound in result.bindings} == {(2, True)}
    again = await tenant.allocator.bind(tenant.request(2, wait_seconds=0.0))
    assert {bound.agent_id: bound.host_id for bound in again.bindings} == hosts


async def test_a_host_of_another_execution_is_nobody_s(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    tenant.register((await tenant.pods())["worker-1"])
    tenant.execution_id = "another-execution"
    result = await tenant.allocator.bind(tenant.request(wait_seconds=0.0))
    assert result.missing == ("worker-1",)


async def test_a_pod_that_ended_is_replaced_under_its_name(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    first = await tenant.pod("worker-1")
    stale = tenant.register(first)
    await tenant.say(first, "Failed", containerStatuses=[EXITED])
    binding = asyncio.create_task(tenant.allocator.bind(tenant.request()))
    second = await tenant.pod("worker-1", first["metadata"]["uid"])
    assert second["metadata"]["name"] == first["metadata"]["name"]
    fresh = tenant.register(second)
    result = await binding
    assert [bound.host_id for bound in result.bindings] == [fresh]
    assert fresh != stale, "what PostgreSQL still takes for alive is not bound"


async def test_an_agent_whose_pods_end_at_once_fails_with_the_reason(tenant: Tenant) -> None:
    binding = asyncio.create_task(tenant.allocator.bind(tenant.request(wait_seconds=25.0)))
    uid = ""
    for _ in range(4):
        pod = await tenant.pod("worker-1", uid)
        uid = pod["metadata"]["uid"]
        await tenant.say(pod, "Failed", containerStatuses=[EXITED])
    result = await binding
    (problem,) = result.problems
    assert problem.code == "RESOURCE_ALLOCATION_FAILED"
    assert "exit code 2" in problem.message


async def test_a_pod_whose_host_was_given_up_is_replaced(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    first = await tenant.pod("worker-1")
    await tenant.say(first, "Running")
    host_id = tenant.register(first)
    await tenant.hosts.mark_gone(tenant.tenant, [host_id])
    binding = asyncio.create_task(tenant.allocator.bind(tenant.request()))
    tenant.register(await tenant.pod("worker-1", first["metadata"]["uid"]))
    assert (await binding).missing == ()


async def test_a_pod_that_runs_without_a_word_is_replaced(control_plane: ControlPlane) -> None:
    async with tenant_of(control_plane.kubeconfig, CATALOGUE, kubernetes_start_seconds=1.0) as tenant:
        await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
        first = await tenant.pod("worker-1")
        await tenant.say(first, "Running", startTime="2020-01-01T00:00:00Z")
        binding = asyncio.create_task(tenant.allocator.bind(tenant.request()))
        tenant.register(await tenant.pod("worker-1", first["metadata"]["uid"]))
        assert (await binding).missing == ()


async def test_a_pod_that_runs_may_still_register(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    pod = await tenant.pod("worker-1")
    await tenant.say(pod, "Running")
    result = await tenant.allocator.bind(tenant.request(wait_seconds=0.3))
    assert "not registered" in result.problems[0].message
    assert (await tenant.pod("worker-1"))["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_an_image_that_is_not_there_fails_at_once_and_the_pod_goes(tenant: Tenant) -> None:
    binding = asyncio.create_task(tenant.allocator.bind(tenant.request(wait_seconds=20.0)))
    pod = await tenant.pod("worker-1")
    await tenant.say(pod, "Pending", containerStatuses=[IMAGE_MISSING])
    began = time.monotonic()
    result = await binding
    assert time.monotonic() - began < 5.0
    assert result.problems[0].code == "RESOURCE_ALLOCATION_FAILED"
    assert "ErrImageNeverPull" in result.problems[0].message

    async def gone() -> bool | None:
        return None if await tenant.pods() else True

    assert await eventually(gone)


async def test_no_room_in_the_quota_is_waited_for_and_then_named(control_plane: ControlPlane) -> None:
    async with tenant_of(control_plane.kubeconfig, CATALOGUE, kubernetes_quota_cpu_cores=1.0) as tenant:
        request = tenant.request(3, cpu_micros=MICROS // 2, wait_seconds=2.0)
        result = await tenant.allocator.bind(request)
        made = await tenant.pods()
        assert len(made) == 2
        (late,) = {"worker-1", "worker-2", "worker-3"} - set(made)
        problems = {problem.agent_id: problem for problem in result.problems}
        assert problems[late].code == "AGENT_ALLOCATION_TIMEOUT"
        assert "quota" in problems[late].message
        assert "requests.cpu" in problems[late].message
        # Room comes while it waits.
        waiting = asyncio.create_task(tenant.allocator.bind(request.model_copy(update={"wait_seconds": 20.0})))
        (agent, pod) = next(iter(made.items()))
        tenant.register(made[next(other for other in made if other != agent)])
        await tenant.api.delete(PODS, tenant.namespace, pod["metadata"]["name"], grace_seconds=0)
        pods = await eventually(lambda: _with(tenant, late))
        assert len(pods) <= 2
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def _with(tenant: Tenant, agent: str) -> dict[str, dict[str, Any]] | None:
    pods = await tenant.pods()
    return pods if agent in pods or len(pods) == 2 else None


async def test_what_the_api_server_refuses_for_good_fails_at_once(tenant: Tenant) -> None:
    began = time.monotonic()
    result = await tenant.allocator.bind(tenant.request(type="important", wait_seconds=20.0))
    assert time.monotonic() - began < 10.0
    assert result.problems[0].code == "RESOURCE_ALLOCATION_FAILED"
    assert "not-there" in result.problems[0].message


async def test_an_agent_type_that_the_catalogue_lost_is_refused(tenant: Tenant) -> None:
    result = await tenant.allocator.bind(tenant.request(type="forgotten", wait_seconds=20.0))
    assert "forgotten" in result.problems[0].message


async def test_an_api_that_does_not_answer_is_told_and_does_not_hold_up_those_with_another_way(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    nowhere = control_plane.write_kubeconfig("admin", tmp_path / "nowhere", server="https://127.0.0.1:1")
    async with tenant_of(nowhere, CATALOGUE) as tenant:
        began = time.monotonic()
        result = await tenant.allocator.bind(tenant.request(wait_seconds=20.0), give_up_when_unreachable=True)
        assert time.monotonic() - began < 5.0
        assert result.problems[0].code == "AGENT_ALLOCATION_TIMEOUT"
        patient = await tenant.allocator.bind(tenant.request(wait_seconds=2.0))
        assert "does not answer" in patient.problems[0].message


async def test_agents_never_have_two_pods_nor_ask_for_more_than_allotted_while_pods_die(tenant: Tenant) -> None:
    """Three workers allocate the same agents again and again while pods end, are deleted and are evicted. A watch sees
    every state that there ever was."""
    await tenant.namespaces.ensure(tenant.tenant)
    request = tenant.request(4, cpu_micros=MICROS // 4, wait_seconds=1.0)
    start = await tenant.api.list(PODS, tenant.namespace)
    active: dict[str, str] = {}
    worst, made = 0, set()

    async def observe() -> None:
        nonlocal worst
        async for event in tenant.api.watch(PODS, tenant.namespace, start.resource_version):
            if event.type == "BOOKMARK":
                continue
            uid = event.object["metadata"]["uid"]
            made.add(uid)
            if event.type == "DELETED" or event.object["status"].get("phase") in ("Failed", "Succeeded"):
                active.pop(uid, None)
            else:
                active[uid] = event.object["metadata"]["annotations"][names.AGENT]
            worst = max(worst, len(active))
            assert len(set(active.values())) == len(active), "an agent with two pods"

    async def destroy(round_: int) -> None:
        for turn, pod in enumerate((await tenant.pods()).values()):
            name = pod["metadata"]["name"]
            try:
                if (round_ + turn) % 3 == 0:
                    await tenant.api.delete(PODS, tenant.namespace, name, uid=pod["metadata"]["uid"], grace_seconds=0)
                elif (round_ + turn) % 3 == 1:
                    await tenant.say(pod, "Failed", containerStatuses=[EXITED])
                else:
                    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
                    path = PODS.path(tenant.namespace, name, "eviction")
                    await tenant.api.request("POST", PODS, path, body=eviction)
            except (NotFoundError, ConflictError):
                pass  # a worker was faster

    observing = asyncio.create_task(observe())
    try:
        for round_ in range(5):
            workers = [tenant.another_worker().bind(request) for _ in range(3)]
            await asyncio.gather(*workers, destroy(round_), return_exceptions=False)
        assert not observing.done(), observing
    finally:
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)
    assert worst == 4
    assert len(made) > 8


# The client -----------------------------------------------------------------------------------------------------


async def test_a_watch_tells_what_happens(tenant: Tenant) -> None:
    await tenant.namespaces.ensure(tenant.tenant)
    start = await tenant.api.list(PODS, tenant.namespace)
    watching = tenant.api.watch(PODS, tenant.namespace, start.resource_version)
    first = asyncio.ensure_future(anext(watching))
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    event = await asyncio.wait_for(first, 10.0)
    assert event.type == "ADDED"
    await watching.aclose()  # type: ignore[attr-defined]  # an async generator


async def test_lists_come_page_by_page(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(5, wait_seconds=0.1))
    tenant.api.calls.clear()
    found = await tenant.api.list(PODS, tenant.namespace, page_size=2)
    assert len(found.items) == 5
    assert tenant.api.calls["GET pods"] == 3


async def test_a_deletion_by_uid_leaves_another_pod_of_that_name_alone(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    name = (await tenant.pod("worker-1"))["metadata"]["name"]
    with pytest.raises(ConflictError):
        await tenant.api.delete(PODS, tenant.namespace, name, uid="another")
    await tenant.api.delete(PODS, tenant.namespace, name)
    await tenant.api.delete(PODS, tenant.namespace, name)


async def test_a_login_that_is_not_known_is_a_matter_of_configuration(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    path = control_plane.write_kubeconfig("admin", tmp_path / "stranger")
    path.write_text(path.read_text().replace(control_plane.tokens["admin"], "wrong"))
    settings = cluster_settings(path)
    async with open_api(ClusterAccess.of(settings)) as api:
        with pytest.raises(ConfigurationError, match="login"):
            await api.list(PODS, "default")


async def test_without_a_kubeconfig_that_can_be_read_there_is_no_access(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="KUBECONFIG"):
        async with open_api(ClusterAccess(kubeconfig=tmp_path / "missing")):
            pass


# What gets in the way -------------------------------------------------------------------------------------------


async def _patched(tenant: Tenant, pod: dict[str, Any], metadata: dict[str, Any]) -> None:
    await tenant.api.patch(PODS, tenant.namespace, pod["metadata"]["name"], {"metadata": metadata})


async def test_a_pod_that_is_still_ending_is_waited_for(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    first = await tenant.pod("worker-1")
    await _patched(tenant, first, {"finalizers": ["orchestrator.internal/held"]})
    await tenant.api.delete(PODS, tenant.namespace, first["metadata"]["name"], uid=first["metadata"]["uid"])
    result = await tenant.allocator.bind(tenant.request(wait_seconds=0.3))
    assert result.problems[0].message == "its former pod is still ending"
    assert len(await tenant.pods()) == 1
    await _patched(tenant, first, {"finalizers": None})
    binding = asyncio.create_task(tenant.allocator.bind(tenant.request()))
    tenant.register(await tenant.pod("worker-1", first["metadata"]["uid"]))
    assert (await binding).missing == ()


async def test_a_pod_of_that_name_that_is_not_the_agent_s_is_left_alone(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    pod = await tenant.pod("worker-1")
    await _patched(tenant, pod, {"annotations": {names.AGENT: "worker-2"}})
    result = await tenant.allocator.bind(tenant.request(wait_seconds=10.0))
    assert "is not this agent's" in result.problems[0].message
    assert (await tenant.pod("worker-2"))["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_without_room_for_one_the_others_of_its_size_are_not_tried(control_plane: ControlPlane) -> None:
    given: dict[str, Any] = {"kubernetes_quota_pods": 2, "kubernetes_creates_max": 1}
    async with tenant_of(control_plane.kubeconfig, CATALOGUE, **given) as tenant:
        result = await tenant.allocator.bind(tenant.request(8, wait_seconds=0.1))
        assert len(await tenant.pods()) == 2
        assert tenant.api.calls["POST pods"] <= 4, "a third, and once more if the quota was not counted yet"
        assert sum("quota" in problem.message for problem in result.problems) >= 4


async def test_a_namespace_that_went_away_is_noticed(tenant: Tenant) -> None:
    await tenant.namespaces.ensure(tenant.tenant)
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    await tenant.api.delete(NAMESPACES, None, tenant.namespace)
    result = await tenant.allocator.bind(tenant.request(2, wait_seconds=0.5))
    assert result.missing == ("worker-1", "worker-2")
    assert {problem.code for problem in result.problems} == {"AGENT_ALLOCATION_TIMEOUT"}


async def test_a_pull_that_fails_is_waited_for_and_its_pod_does_not_stay(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    pod = await tenant.pod("worker-1")
    pulling = {**ENDED, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "back-off"}}}
    await tenant.say(pod, "Pending", containerStatuses=[pulling])
    result = await tenant.allocator.bind(tenant.request(wait_seconds=0.3))
    assert result.problems[0].code == "RESOURCE_ALLOCATION_FAILED"
    assert "ImagePullBackOff" in result.problems[0].message


async def test_an_agent_that_cannot_do_the_role_s_work_is_not_bound(tenant: Tenant) -> None:
    await tenant.allocator.bind(tenant.request(wait_seconds=0.1))
    tenant.register(await tenant.pod("worker-1"), type="careful")
    assert (await tenant.allocator.bind(tenant.request(wait_seconds=0.0))).missing == ("worker-1",)


async def test_the_worker_s_allocator_logs_in_with_the_engine_s_own_secret(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    settings = cluster_settings(control_plane.kubeconfig, data_dir=tmp_path)
    logins, hosts = Logins(), FakeHosts()
    async with open_allocator(settings, hosts, logins, CATALOGUE, LocalBreakers()) as allocator:
        roles = {"worker": KernelRole(type="coder", count=1)}
        request = BindRequest(tenant="t-worker", execution_id="e", roles=roles, wait_seconds=0.1)
        assert (await allocator.bind(request)).missing == ("worker-1",)
    assert logins.passwords["t-worker"] == agent_password(load_agent_secret(settings), "t-worker")
