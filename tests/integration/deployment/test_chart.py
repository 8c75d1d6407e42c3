"""What the chart says: numbers of the specification, security of every pod, and values that are refused."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.settings import Settings
from tests.integration.deployment.chart import (
    ALERTS,
    CHART,
    EVERYTHING,
    MANIFESTS,
    OWN_NAMESPACES,
    ROOT,
    found,
    of_kind,
    pod_templates,
    render,
)
from tests.integration.deployment.helm import helm

Document = dict[str, Any]
PARTS = ("gateway", "worker", "bridge", "keeper", "hooks")


@pytest.fixture(scope="module", params=["defaults", "everything", "own namespaces"])
def documents(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    values = {"defaults": {}, "everything": EVERYTHING, "own namespaces": OWN_NAMESPACES}[request.param]
    return render(tmp_path_factory.mktemp("helm"), values)


@pytest.fixture(scope="module")
def defaults(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    return render(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    return render(tmp_path_factory.mktemp("helm"), EVERYTHING)


def test_lint_finds_nothing(tmp_path: Path) -> None:
    for values in ((), ("-f", str(CHART / "values-specification.yaml"))):
        result = helm("lint", "--strict", str(CHART), *values, folder=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "[WARNING]" not in result.stdout
        assert "[ERROR]" not in result.stdout


def test_the_plain_manifests_and_alerts_are_those_of_the_chart(tmp_path: Path) -> None:
    values = ROOT / "deploy" / "kubernetes" / "values.yaml"
    result = helm(
        "template", "orchestrator", str(CHART), "--namespace", "agentcore-orchestration", "--values", str(values),
        folder=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    written = MANIFESTS.read_text().partition("\n")[2]
    assert written == result.stdout, "run `make manifests`"
    assert ALERTS.read_text() == (CHART / "files" / "alerts.yaml").read_text(), "run `make manifests`"


def test_workers_scale_as_the_specification_says(defaults: list[Document]) -> None:
    spec = found(defaults, "HorizontalPodAutoscaler", "orchestrator-worker")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "orchestrator-worker"}
    assert spec["metrics"] == [
        {
            "type": "External",
            "external": {"metric": {"name": "workflow_queue_depth"}, "target": {"type": "Value", "value": "100"}},
        }
    ]
    up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    assert up["policies"] == [{"type": "Pods", "value": 2, "periodSeconds": 60}]
    assert up["stabilizationWindowSeconds"] == 0
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]
    assert down["stabilizationWindowSeconds"] == 300
    # Whoever scales it says how many there are, not the Deployment.
    assert "replicas" not in found(defaults, "Deployment", "orchestrator-worker")["spec"]


def test_the_queue_s_depth_has_two_thresholds() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "adapter-rules.yaml").read_text())["externalRules"]
    by_name = {rule["name"]["as"]: rule["metricsQuery"] for rule in rules}
    assert re.search(r"> 100\b.*< 20\b", by_name["workflow_queue_depth"])
    assert set(by_name) == {"workflow_queue_depth", "hooks_queue_depth"}


def test_every_autoscaler_has_its_workload(everything: list[Document]) -> None:
    scaled = {item["spec"]["scaleTargetRef"]["name"] for item in of_kind(everything, "HorizontalPodAutoscaler")}
    assert scaled == {"orchestrator-worker", "orchestrator-gateway", "orchestrator-hooks"}
    for name in scaled:
        assert "replicas" not in found(everything, "Deployment", name)["spec"]


def test_every_pod_is_restricted_limited_and_labelled(documents: list[Document]) -> None:
    templates = pod_templates(documents)
    assert {name for name, _ in templates} == {f"orchestrator-{part}" for part in (*PARTS, "migrate")}
    for name, template in templates:
        spec, labels = template["spec"], template["metadata"]["labels"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all("hostPath" not in volume for volume in spec["volumes"])
        for key in ("name", "instance", "version", "component", "part-of", "managed-by"):
            assert labels[f"app.kubernetes.io/{key}"], (name, key)
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) == {"cpu", "memory"}


def test_every_role_has_probes_spread_budget_and_a_checksum(documents: list[Document]) -> None:
    for part in PARTS:
        deployment = found(documents, "Deployment", f"orchestrator-{part}")
        template = deployment["spec"]["template"]
        (container,) = template["spec"]["containers"]
        probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
        assert {name: probe["path"] for name, probe in probes.items()} == {
            "startup": "/startup", "liveness": "/health", "readiness": "/ready",
        }  # fmt: skip
        spread = {item["topologyKey"] for item in template["spec"]["topologySpreadConstraints"]}
        assert spread == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        assert re.fullmatch("[0-9a-f]{64}", template["metadata"]["annotations"]["checksum/settings"])
        budget = found(documents, "PodDisruptionBudget", f"orchestrator-{part}")["spec"]
        assert budget["selector"] == deployment["spec"]["selector"]
        assert budget["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_only_those_who_make_pods_have_a_token_of_the_cluster(defaults: list[Document]) -> None:
    mounted = {
        name.removeprefix("orchestrator-")
        for name, template in pod_templates(defaults)
        if template["spec"]["automountServiceAccountToken"]
    }
    assert mounted == {"worker", "keeper"}
    assert not any(account["automountServiceAccountToken"] for account in of_kind(defaults, "ServiceAccount"))


def test_without_pods_the_engine_has_no_rights_at_all(tmp_path: Path) -> None:
    documents = render(tmp_path, {"kubernetes": {"enabled": False}})
    kinds = {document["kind"] for document in documents}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding", "RoleBinding", "ValidatingAdmissionPolicy", "Namespace"}
    assert not any(template["spec"]["automountServiceAccountToken"] for _, template in pod_templates(documents))
    assert found(documents, "ConfigMap", "orchestrator-settings")["data"]["ORCHESTRATOR_ALLOCATOR"] == "process"


def test_all_is_closed_and_only_what_is_needed_is_open(defaults: list[Document]) -> None:
    policies = {item["metadata"]["name"]: item["spec"] for item in of_kind(defaults, "NetworkPolicy")}
    closed = policies["orchestrator-default-deny"]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(closed)
    for _, template in pod_templates(defaults):
        assert closed["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {port["port"] for rule in policies["orchestrator-servers"]["egress"] for port in rule["ports"]}
    assert ports == {53, 5432, 6379, 7233}
    assert [name for name, spec in policies.items() if "ingress" in spec] == ["orchestrator-gateway"]
    private = policies["orchestrator-hooks"]["egress"][0]["to"][0]["ipBlock"]["except"]
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(private)


def test_secrets_are_named_and_never_written(documents: list[Document]) -> None:
    assert not of_kind(documents, "Secret")
    text = json.dumps(documents)
    assert not re.search(r"(postgresql|rediss?)://[^\"]*:[^\"]*@", text)


def test_settings_are_ones_that_the_engine_knows(documents: list[Document]) -> None:
    known = {f"ORCHESTRATOR_{name.upper()}" for name in Settings.model_fields}
    data = found(documents, "ConfigMap", "orchestrator-settings")["data"]
    assert {name for name in data if name.startswith("ORCHESTRATOR_")} <= known
    for variable in _environment(documents):
        assert variable in known | {
            "DATABASE_URL", "REDIS_URL", "DATABASE_MAINTENANCE_URL", "DATABASE_OWNER_URL", "DATABASE_SUPERUSER_URL",
        }  # fmt: skip


def test_settings_have_the_values_that_the_engine_takes(
    everything: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in found(everything, "ConfigMap", "orchestrator-settings")["data"].items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.allocator == "kubernetes"
    assert settings.kubernetes_quota_memory_bytes == 200 * 1024**3
    assert settings.kubernetes_quota_cpu_cores == 100
    assert settings.kubernetes_quota_pods == 500
    assert settings.kubernetes_manage_namespaces is True
    assert settings.kubernetes_tenant_role == "engine:orchestrator:tenant"
    assert settings.kubernetes_service_account == "engine/orchestrator-allocator"
    assert settings.kubernetes_redis_networks == ("10.1.0.0/16",)
    assert settings.requests_per_minute == 500
    assert settings.temporal_address == "temporal-frontend.temporal.svc:7233"


def test_a_release_of_another_name_shares_nothing_with_the_first(tmp_path: Path) -> None:
    result = helm("template", "second", str(CHART), "--namespace", "engine", folder=tmp_path)
    names = [(d["kind"], d["metadata"]["name"]) for d in yaml.safe_load_all(result.stdout) if d]
    first = [(d["kind"], d["metadata"]["name"]) for d in render(tmp_path)]
    assert not set(names) & set(first)


def test_the_specification_s_sizes_are_there(tmp_path: Path) -> None:
    result = helm("template", "x", str(CHART), "-f", str(CHART / "values-specification.yaml"), folder=tmp_path)
    documents = [document for document in yaml.safe_load_all(result.stdout) if document]
    for part in ("gateway", "worker", "bridge", "hooks"):
        spec = found(documents, "Deployment", f"x-orchestrator-{part}")["spec"]["template"]["spec"]
        assert spec["containers"][0]["resources"]["requests"] == {"cpu": "6", "memory": "12Gi"}
    watch = found(documents, "Ingress", "x-orchestrator-gateway-watch")
    assert watch["metadata"]["annotations"]["nginx.ingress.kubernetes.io/upstream-hash-by"] == "$uri"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("gatewy.replicas=1", "gatewy"),
        ("gateway.replica=1", "replica"),
        ("gateway.replicas=-1", "/gateway/replicas"),
        ("gateway.replicas=two", "/gateway/replicas"),
        ("gateway.service.port=70000", "/gateway/service/port"),
        ("gateway.service.type=HostPort", "/gateway/service/type"),
        ("gateway.ingress.enabled=true", "/gateway/ingress/host"),
        ("gateway.ingress.host=a b", "/gateway/ingress/host"),
        ("gateway.autoscaling.cpuPercent=0", "/gateway/autoscaling/cpuPercent"),
        ("worker.resources.limits.cpu=-1", "/worker/resources/limits/cpu"),
        ("worker.resources.limits.memory=lots", "/worker/resources/limits/memory"),
        ("worker.resources.limits.gpus=1", "/worker/resources/limits"),
        ("worker.autoscaling.maxReplicas=0", "/worker/autoscaling/maxReplicas"),
        ("worker.autoscaling.queueDepth=many", "/worker/autoscaling/queueDepth"),
        ("worker.autoscaling.scaleUp.periodSeconds=3600", "/worker/autoscaling/scaleUp/periodSeconds"),
        ("image.repository=bad image", "/image/repository"),
        ("image.digest=sha256:abc", "/image/digest"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("servers.secret.name=Upper", "/servers/secret/name"),
        ("servers.temporal.address=nowhere", "/servers/temporal/address"),
        ("tokens.jwksUrl=http://plain.example.org", "/tokens/jwksUrl"),
        ("tokens.keySecret.name=", "/tokens"),
        ("settings.PATH=/tmp", "/settings"),
        ("logLevel=LOUD", "/logLevel"),
        ("kubernetes.namespacePrefix=Engine_", "/kubernetes/namespacePrefix"),
        ("kubernetes.owner=a'b", "/kubernetes/owner"),
        ("kubernetes.tenants={Acme}", "/kubernetes/tenants/0"),
        ("kubernetes.quota.cpu=-3", "/kubernetes/quota/cpu"),
        ("kubernetes.quota.memory=1.5Gi", "/kubernetes/quota/memory"),
        ("kubernetes.quota.pods=0", "/kubernetes/quota/pods"),
        ("kubernetes.agentImage=a;rm", "/kubernetes/agentImage"),
        ("kubernetes.redisNetworks={10.0.0.0}", "/kubernetes/redisNetworks/0"),
        ("hooks.secrets[0].tenant=../etc,hooks.secrets[0].secretName=a", "/hooks/secrets/0/tenant"),
        ("podDisruptionBudget.maxUnavailable=0", "/podDisruptionBudget/maxUnavailable"),
        ("networkPolicy.redis.port=none", "/networkPolicy/redis/port"),
        ("monitoring.serviceMonitor.interval=often", "/monitoring/serviceMonitor/interval"),
        ("topologySpread={a b}", "/topologySpread/0"),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, value: str, field: str) -> None:
    result = helm("template", "x", str(CHART), "--set", value, folder=tmp_path)
    assert result.returncode != 0
    assert "don't meet the specifications of the schema" in result.stderr
    assert field in result.stderr


def test_every_value_is_in_the_schema_and_has_a_default(tmp_path: Path) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    assert list(_open_objects(schema["properties"])) == []


def _open_objects(node: Any, path: str = "") -> Iterator[str]:
    """Objects with named properties that would take others as well."""
    if isinstance(node, dict):
        named = node.get("type") == "object" and isinstance(node.get("properties"), dict)
        if named and node.get("additionalProperties") is not False:
            yield path
        for name, child in node.items():
            yield from _open_objects(child, f"{path}/{name}")


def _environment(documents: list[Document]) -> Iterator[str]:
    for _, template in pod_templates(documents):
        for container in template["spec"]["containers"]:
            yield from (item["name"] for item in container["env"])
