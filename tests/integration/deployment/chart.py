"""The chart as the tests use it: rendered to documents, and applied to a control plane."""

import asyncio
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.http import ApiClient
from tests.integration.deployment.helm import helm

Document = dict[str, Any]

ROOT: Final = Path(__file__).parents[3]
CHART: Final = ROOT / "deploy" / "helm" / "orchestration-engine"
MANIFESTS: Final = ROOT / "deploy" / "kubernetes" / "orchestration-engine.yaml"
ALERTS: Final = ROOT / "deploy" / "prometheus" / "alerts.yaml"
WAIT_SECONDS: Final = 30.0

EVERYTHING: Final[dict[str, Any]] = {
    "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
    "servers": {
        "secret": {
            "databaseMaintenanceUrlKey": "DATABASE_MAINTENANCE_URL",
            "databaseSuperuserUrlKey": "DATABASE_SUPERUSER_URL",
        }
    },
    "tokens": {"jwksUrl": "https://issuer.example.org/keys"},
    "catalogue": "agents:\n  writer:\n    image: registry.example.org/writer:1\n",
    "settings": {"ORCHESTRATOR_REQUESTS_PER_MINUTE": 500, "ORCHESTRATOR_HOOKS_ENABLED": True},
    "kubernetes": {"agentImage": "registry.example.org/agent:1", "redisNetworks": ["10.1.0.0/16"]},
    "serviceAccount": {"annotations": {"example.org/a": "b"}},
    "podAnnotations": {"example.org/pod": "yes"},
    "podLabels": {"team": "agents"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "engine", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"podAntiAffinity": {}},
    "gateway": {
        "autoscaling": {"enabled": True},
        "service": {"annotations": {"example.org/service": "yes"}},
        "ingress": {
            "enabled": True,
            "host": "engine.example.org",
            "tlsSecret": "engine-tls",
            "annotations": {"example.org/ingress": "yes"},
        },
    },
    "hooks": {
        "autoscaling": {"enabled": True},
        "secrets": [{"tenant": "acme", "secretName": "hooks-acme"}, {"tenant": "zeta", "secretName": "hooks-zeta"}],
    },
    "networkPolicy": {"gatewayFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
}
OWN_NAMESPACES: Final[dict[str, Any]] = {
    "kubernetes": {"manageNamespaces": False, "tenants": ["acme", "zeta"], "namespacePrefix": "made-"}
}

_PLURALS: Final = {
    "NetworkPolicy": "networkpolicies", "Ingress": "ingresses", "PodDisruptionBudget": "poddisruptionbudgets",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}  # fmt: skip
_OF_CLUSTER: Final = frozenset(
    {
        "Namespace", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding", "CustomResourceDefinition",
    }
)  # fmt: skip
_FIRST: Final = ("Namespace", "CustomResourceDefinition", "ServiceAccount", "ConfigMap")


def render(folder: Path, values: Document | None = None, *, namespace: str = "engine") -> list[Document]:
    """The documents of the release `orchestrator`."""
    file = folder / "values.json"
    file.write_text(json.dumps(values or {}))
    result = helm("template", "orchestrator", str(CHART), "--namespace", namespace, "-f", str(file), folder=folder)
    assert result.returncode == 0, result.stderr
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def found(documents: Iterable[Document], kind: str, name: str) -> Document:
    for document in documents:
        if (document["kind"], document["metadata"]["name"]) == (kind, name):
            return document
    raise AssertionError(f"no {kind} {name}")


def of_kind(documents: Iterable[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def pod_templates(documents: Iterable[Document]) -> list[tuple[str, Document]]:
    return [
        (document["metadata"]["name"], document["spec"]["template"])
        for document in documents
        if document["kind"] in ("Deployment", "Job")
    ]


def path_of(document: Document) -> str:
    """Where the API server has it, its name included."""
    version, kind = document["apiVersion"], document["kind"]
    prefix = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    plural = _PLURALS.get(kind, kind.lower() + "s")
    place = "" if kind in _OF_CLUSTER else f"/namespaces/{document['metadata']['namespace']}"
    return f"{prefix}{place}/{plural}/{document['metadata']['name']}"


async def apply(client: ApiClient, documents: Iterable[Document]) -> None:
    """Server-side, with the fields checked: an unknown one is an error."""
    ordered = sorted(documents, key=lambda document: _rank(document["kind"]))
    for document in ordered:
        path = f"{path_of(document)}?fieldManager=tests&force=true&fieldValidation=Strict"
        for remaining in range(60, -1, -1):
            status, answer = await client.request("PATCH", path, document, "application/apply-patch+yaml")
            if status not in (404, 503) or remaining == 0:
                break
            await asyncio.sleep(0.25)  # a kind that was only just defined
        assert status in (200, 201), (path, answer)


async def pods_of_all(client: ApiClient, namespace: str, documents: Iterable[Document]) -> dict[str, int]:
    """How many pods the controllers have made of each workload, once that is as many as each wants."""
    wanted = {
        document["metadata"]["name"]: document["spec"].get("replicas", 1)
        for document in documents
        if document["kind"] in ("Deployment", "Job")
    }
    ends = time.monotonic() + WAIT_SECONDS
    while True:
        pods = (await client.get(f"/api/v1/namespaces/{namespace}/pods"))["items"]
        made = dict.fromkeys(wanted, 0)
        for pod in pods:
            owner = max((name for name in wanted if pod["metadata"]["name"].startswith(name)), key=len)
            made[owner] += 1
        if all(made[name] >= wanted[name] for name in wanted):
            return made
        if time.monotonic() > ends:
            events = (await client.get(f"/api/v1/namespaces/{namespace}/events"))["items"]
            raise AssertionError((wanted, made, [event["message"] for event in events if event["type"] != "Normal"]))
        await asyncio.sleep(0.2)


def metrics_named(expression: str) -> set[str]:
    """The metrics in a PromQL expression: what is neither function, label nor keyword."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", text)
    names = re.findall(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\b(?!\s*\()", text)
    return {name for name in names if name not in {"and", "or", "unless", "bool", "by", "without", "offset"}}


def definition_of(kind: str, group: str) -> Document:
    """As much of a CustomResourceDefinition as an object of the Prometheus Operator needs to be taken."""
    plural = kind.lower() + "s"
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


OPERATOR_KINDS: Final = [
    definition_of("ServiceMonitor", "monitoring.coreos.com"),
    definition_of("PrometheusRule", "monitoring.coreos.com"),
]


def restricted(name: str) -> Document:
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _rank(kind: str) -> int:
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)
