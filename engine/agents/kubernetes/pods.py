"""The pod of an agent: one container that may do nothing but compute, speak to Redis, and write to /tmp.

It satisfies Pod Security "restricted", whatever the catalogue says: that has no field for what would break it. The
tenant's login to Redis comes from a Secret, so that whoever may read pods cannot read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from engine.agents.kubernetes import names
from engine.agents.kubernetes.names import Identity
from engine.contracts.catalogue import AgentType
from engine.contracts.pods import NodeRule, PodSettings
from engine.errors import AllocationFailedError
from engine.settings import Settings

Document = dict[str, Any]

CONTAINER: Final = "agent"
LOGIN_SECRET: Final = "agent-redis-login"  # noqa: S105 - an object's name
LOGIN_KEY: Final = "url"
MICROS_OF_MILLI: Final = 1_000

UNHEALTHY_NODE_SECONDS: Final = 5
"""A pod leaves a node that does not answer after this: Kubernetes' own default is five minutes."""

_VARIABLE: Final = "ORCHESTRATION_AGENT_"


@dataclass(frozen=True, slots=True)
class PodDefaults:
    """What the settings say of all pods."""

    owner: str
    image: str | None = None
    command: tuple[str, ...] = ()
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    priority_class: str | None = None
    user: int = 65532
    grace_seconds: int = 15
    heartbeat_seconds: float = 2.0

    @classmethod
    def of(cls, settings: Settings) -> "PodDefaults":
        return cls(
            owner=settings.kubernetes_owner,
            image=settings.kubernetes_agent_image,
            command=settings.kubernetes_agent_command,
            pull_policy=settings.kubernetes_image_pull_policy,
            pull_secrets=settings.kubernetes_image_pull_secrets,
            priority_class=settings.kubernetes_priority_class,
            user=settings.kubernetes_pod_user,
            grace_seconds=settings.kubernetes_grace_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
        )


def agent_pod(
    namespace: str, who: Identity, agent_type: AgentType, amounts: tuple[int, int], defaults: PodDefaults
) -> Document:
    """The pod of one agent of one execution. `amounts`: its CPU in millionths of a core, and its bytes of memory.

    Raises AllocationFailedError when there is no image for it.
    """
    name = names.pod_name(defaults.owner, who.tenant, who.execution_id, who.agent_id)
    labels = names.pod_labels(defaults.owner, who)
    dedicated_to = f"{who.execution_id}/{who.agent_id}"
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": labels,
        "annotations": names.pod_annotations(who),
    }
    return _pod(metadata, who.tenant, who.agent_type, dedicated_to, agent_type, amounts, defaults)


def pool_pod(
    namespace: str,
    tenant: str,
    type_name: str,
    number: int,
    agent_type: AgentType,
    amounts: tuple[int, int],
    defaults: PodDefaults,
) -> Document:
    """A pod that waits for an execution. It has the same shape, and no execution's labels."""
    labels = {
        **names.owner_labels(defaults.owner),
        names.COMPONENT: names.AGENT_COMPONENT,
        names.TENANT: names.label_value(tenant),
        names.TYPE: names.label_value(type_name),
        names.POOL: names.label_value(type_name),
    }
    metadata = {
        "name": names.pool_pod_name(defaults.owner, tenant, type_name, number),
        "namespace": namespace,
        "labels": labels,
        "annotations": {names.TENANT: tenant, names.TYPE: type_name},
    }
    return _pod(metadata, tenant, type_name, "/", agent_type, amounts, defaults)


def resource_amounts(amounts: tuple[int, int]) -> dict[str, str]:
    """In Kubernetes' own forms. Rounded up: less than a thousandth of a core cannot be asked for."""
    cpu_micros, memory_bytes = amounts
    return {"cpu": f"{max(1, -(-cpu_micros // MICROS_OF_MILLI))}m", "memory": memory_quantity(memory_bytes)}


def memory_quantity(memory_bytes: int) -> str:
    """As people read it, where nothing is lost by that."""
    for unit, size in (("Gi", 1024**3), ("Mi", 1024**2)):
        if memory_bytes and memory_bytes % size == 0:
            return f"{memory_bytes // size}{unit}"
    return str(memory_bytes)


def _pod(
    metadata: Document,
    tenant: str,
    type_name: str,
    dedicated_to: str,
    agent_type: AgentType,
    amounts: tuple[int, int],
    defaults: PodDefaults,
) -> Document:
    settings = agent_type.kubernetes
    image = agent_type.image or defaults.image
    if image is None:
        raise AllocationFailedError(
            f"agent type {type_name}: there is no image for its pods; set `image` in the catalogue, "
            "or ORCHESTRATOR_KUBERNETES_AGENT_IMAGE"
        )
    resources = resource_amounts(amounts)
    container: Document = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy or defaults.pull_policy,
        "env": _environment(tenant, type_name, dedicated_to, agent_type, defaults),
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the pod's own
        "terminationMessagePolicy": "File",
    }
    command = settings.command
    if command is None and agent_type.entry != "container" and defaults.command:
        command = defaults.command
    if command is not None:
        container["command"] = [literal(part) for part in command]
    spec: Document = {
        "containers": [container],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": (
            defaults.grace_seconds if settings.grace_seconds is None else settings.grace_seconds
        ),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": defaults.user,
            "runAsGroup": defaults.user,
            "fsGroup": defaults.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [{"name": "tmp", "emptyDir": _in_memory(settings.tmp_bytes)}],
        "imagePullSecrets": [{"name": name} for name in defaults.pull_secrets],
        "priorityClassName": settings.priority_class or defaults.priority_class,
        "nodeSelector": dict(settings.node_selector),
        "tolerations": _tolerations(settings),
        "affinity": _affinity(settings, metadata["labels"]),
        "topologySpreadConstraints": _spread(settings, metadata["labels"]),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {key: value for key, value in spec.items() if value not in (None, {}, [])},
    }


def _in_memory(size_bytes: int) -> Document:
    return {"medium": "Memory", "sizeLimit": memory_quantity(size_bytes)}


def _environment(
    tenant: str, type_name: str, dedicated_to: str, agent_type: AgentType, defaults: PodDefaults
) -> list[Document]:
    """The engine's variables come last and are no other's: a later one of a name would win."""
    given: list[Document] = [
        {"name": "PYTHONUNBUFFERED", "value": "1"},
        {"name": "TMPDIR", "value": "/tmp"},  # noqa: S108 - the pod's own
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the pod's own
    ]
    theirs = {name: value for name, value in agent_type.environment.items() if not name.startswith(_VARIABLE)}
    given = [item for item in given if item["name"] not in theirs]
    given += [{"name": name, "value": literal(value)} for name, value in sorted(theirs.items())]
    for name, reference in sorted(agent_type.kubernetes.secrets.items()):
        key = {"name": reference.secret, "key": reference.key, "optional": reference.optional}
        given.append({"name": name, "valueFrom": {"secretKeyRef": key}})
    capabilities = "*" if agent_type.capabilities == "*" else orjson.dumps(agent_type.capabilities).decode()
    engines: Mapping[str, str] = {
        "TENANT": tenant,
        "TYPES": orjson.dumps([type_name]).decode(),
        "CAPABILITIES": capabilities,
        "SLOTS": str(agent_type.slots),
        "HEARTBEAT_SECONDS": str(defaults.heartbeat_seconds),
        "GRACE_SECONDS": str(max(1.0, _grace_seconds(agent_type.kubernetes, defaults) - 2.0)),
        "DEDICATED_TO": dedicated_to,
    }
    given += [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": f"{_VARIABLE}HOST_ID", "value": f"$(POD_NAME){names.HOST_SEPARATOR}$(POD_UID)"},
        {
            "name": f"{_VARIABLE}REDIS_URL",
            "valueFrom": {"secretKeyRef": {"name": LOGIN_SECRET, "key": LOGIN_KEY}},
        },
    ]
    if agent_type.entry != "container":
        given.append({"name": f"{_VARIABLE}ENTRY", "value": agent_type.entry})
    return given + [{"name": _VARIABLE + name, "value": literal(value)} for name, value in engines.items()]


def _grace_seconds(settings: PodSettings, defaults: PodDefaults) -> int:
    return defaults.grace_seconds if settings.grace_seconds is None else settings.grace_seconds


def literal(text: str) -> str:
    """Kubernetes replaces `$(NAME)` in values and commands; what the operator wrote is meant as it stands."""
    return text.replace("$", "$$")


def _tolerations(settings: PodSettings) -> list[Document]:
    found: list[Document] = []
    for item in settings.tolerations:
        toleration = {
            "key": item.key,
            "operator": item.operator,
            "value": item.value,
            "effect": item.effect,
            "tolerationSeconds": item.toleration_seconds,
        }
        found.append({key: value for key, value in toleration.items() if value is not None})
    said = {item.key for item in settings.tolerations}
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if key not in said:
            found.append(
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": UNHEALTHY_NODE_SECONDS,
                }
            )
    return found


def _affinity(settings: PodSettings, labels: Mapping[str, str]) -> Document:
    affinity: Document = {}
    required = [_expression(rule) for rule in settings.nodes if not rule.preferred]
    preferred = [
        {"weight": 50, "preference": {"matchExpressions": [_expression(rule)]}}
        for rule in settings.nodes
        if rule.preferred
    ]
    if required or preferred:
        node: Document = {}
        if required:
            node["requiredDuringSchedulingIgnoredDuringExecution"] = {
                "nodeSelectorTerms": [{"matchExpressions": required}]
            }
        if preferred:
            node["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
        affinity["nodeAffinity"] = node
    if settings.placement == "together" and (peers := _peers(labels)):
        term = {"topologyKey": settings.topology, "labelSelector": {"matchLabels": peers}}
        affinity["podAffinity"] = (
            {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
            if settings.placement_required
            else {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
        )
    return affinity


def _spread(settings: PodSettings, labels: Mapping[str, str]) -> list[Document]:
    peers = _peers(labels)
    if settings.placement != "spread" or not peers:
        return []
    return [
        {
            "maxSkew": 1,
            "topologyKey": settings.topology,
            "whenUnsatisfiable": "DoNotSchedule" if settings.placement_required else "ScheduleAnyway",
            "labelSelector": {"matchLabels": peers},
        }
    ]


def _peers(labels: Mapping[str, str]) -> dict[str, str]:
    """The other agents of the role in the same execution; none for a pod of a pool."""
    keys = (names.OWNER, names.EXECUTION, names.ROLE)
    return {key: labels[key] for key in keys} if all(key in labels for key in keys) else {}


def _expression(rule: NodeRule) -> Document:
    expression: Document = {"key": rule.key, "operator": rule.operator}
    if rule.values:
        expression["values"] = list(rule.values)
    return expression
