"""What the operator's catalogue may say about the pods of an agent type.

It is no pod template: what a pod may be is the engine's to say (`engine.agents.kubernetes.pods`), so that no entry of
the catalogue can make one that is privileged or sees its node. What a template would say instead is refused by name.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from engine.contracts.model import Model
from engine.contracts.resources import parse_cpu_cores, parse_memory_bytes

_IMAGE_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"  # registry
    rf"{_IMAGE_PART}(?:/{_IMAGE_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"  # tag
    r"(?:@sha256:[0-9a-f]{64})?"
)
_LABEL_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
_LABEL_KEY: Final = re.compile(rf"(?:{_SUBDOMAIN}/)?{_LABEL_NAME}")
_LABEL_VALUE: Final = re.compile(rf"(?:{_LABEL_NAME})?")
_OBJECT_NAME: Final = re.compile(_SUBDOMAIN)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_KEY: Final = re.compile(r"[A-Za-z0-9._-]+")

IMAGE_LENGTH_MAX: Final = 512
TMP_BYTES_DEFAULT: Final = 64 * 1024**2

RESERVED_PREFIX: Final = "ORCHESTRATION_AGENT_"
"""Variables by which the engine tells an agent who it is."""

_NOT_ALLOWED: Final[Mapping[str, str]] = {
    "privileged": "agents never run privileged",
    "allowprivilegeescalation": "agents never gain privileges",
    "securitycontext": "the engine sets a restricted one; kubernetes_pod_user of the settings is its user",
    "capabilities": "agents have no Linux capabilities",
    "seccompprofile": "it is always RuntimeDefault",
    "runasuser": "the setting kubernetes_pod_user says it",
    "hostnetwork": "agents have a network of their own; `egress` says what they may reach",
    "hostpid": "agents see their own processes only",
    "hostipc": "agents see their own processes only",
    "hostusers": "agents are not the node's users",
    "hostport": "agents are not reached from outside",
    "hostports": "agents are not reached from outside",
    "ports": "agents are not reached from outside",
    "hostpath": "agents do not see their node's files; put what they need into the image",
    "volumes": "agents have /tmp in memory; put files into the image, and secrets into `secrets`",
    "volumemounts": "agents have /tmp in memory; put files into the image, and secrets into `secrets`",
    "volumedevices": "agents see no devices",
    "serviceaccount": "agents have no access to the Kubernetes API",
    "serviceaccountname": "agents have no access to the Kubernetes API",
    "automountserviceaccounttoken": "agents have no access to the Kubernetes API",
    "initcontainers": "a pod has one container; prepare the image instead",
    "containers": "a pod has one container; `image` of the type is its image",
    "ephemeralcontainers": "a pod has one container",
    "spec": "this is no pod template; write the fields that are listed in docs/agents-on-kubernetes.md",
    "template": "this is no pod template; write the fields that are listed in docs/agents-on-kubernetes.md",
    "nodename": "the scheduler chooses the node; `node_selector` and `nodes` say which may be chosen",
    "env": "`environment` of the type has plain values, `secrets` has those from Secrets",
    "runtimeclassname": "the cluster's default runtime is used",
}


def _matching(pattern: re.Pattern[str], length_max: int, what: str) -> AfterValidator:
    def check(value: str) -> str:
        # Newlines and other control characters would pass a `$`; fullmatch lets none through.
        if len(value) > length_max or not pattern.fullmatch(value):
            raise ValueError(f"{value[:80]!r} is not {what} (at most {length_max} characters)")
        return value

    return AfterValidator(check)


Image = Annotated[
    str,
    _matching(_IMAGE, IMAGE_LENGTH_MAX, 'an image: write "registry/name:tag" or "name@sha256:..." and nothing else'),
]
LabelKey = Annotated[str, _matching(_LABEL_KEY, 317, "the key of a label, as node.kubernetes.io/instance-type is")]
LabelValue = Annotated[str, _matching(_LABEL_VALUE, 63, "the value of a label: letters, digits, '-', '_' and '.'")]
ObjectName = Annotated[str, _matching(_OBJECT_NAME, 253, "the name of a Kubernetes object: a-z, 0-9, '-' and '.'")]
SecretKey = Annotated[str, _matching(_SECRET_KEY, 253, "a key of a Secret: letters, digits, '-', '_' and '.'")]


def _free_variable(name: str) -> str:
    if len(name) > 255 or not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is not the name of a variable: letters, digits and '_', no digit first")
    if name.startswith(RESERVED_PREFIX):
        raise ValueError(f"{name!r}: names with {RESERVED_PREFIX} are the engine's; choose another")
    return name


Variable = Annotated[str, AfterValidator(_free_variable)]


def _argument(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a zero byte")
    return value


Argument = Annotated[str, Field(max_length=4096), AfterValidator(_argument)]


def _cpu(text: str) -> str:
    if parse_cpu_cores(text) <= 0:
        raise ValueError(f'cpu {text!r} must be more than nothing: write "2 cores", "1.5" or "500m"')
    return text


def _memory(text: str) -> str:
    if parse_memory_bytes(text) <= 0:
        raise ValueError(f'memory {text!r} must be more than nothing: write "4GB" or "512Mi"')
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} is not a network: write 10.1.0.0/16 or 192.0.2.7/32 ({error})") from error


class SecretReference(Model):
    """A key of a Secret that stands in the tenant's namespace: its value never passes through the engine."""

    secret: ObjectName
    key: SecretKey
    optional: bool = False


class Toleration(Model):
    """Lets pods onto nodes with a taint."""

    key: LabelKey
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(None, ge=0, le=86_400, description="for NoExecute")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("with operator Exists there is no value")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("toleration_seconds goes with effect NoExecute")
        return self


class NodeRule(Model):
    """Which nodes may, or had better, take the pods."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = "In"
    values: tuple[LabelValue, ...] = Field((), max_length=100)
    preferred: bool = Field(False, description="true: other nodes may take them too when these have no room")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError("In and NotIn need values, Exists and DoesNotExist have none")
        return self


class Egress(Model):
    """Addresses beside Redis that the agents may reach."""

    network: Annotated[str, AfterValidator(_network)]
    ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = Field((), max_length=20, description="TCP; all if none")


class WarmPool(Model):
    """Pods of a type that wait for executions, of each tenant that uses the type."""

    size: int = Field(ge=1, le=1_000, description="pods that wait while the type is in use")
    max: int = Field(ge=1, le=1_000, description="pods that wait at most, when many agents begin")
    idle_seconds: float = Field(300.0, ge=1, le=86_400, description="none waits once no agent has had a pod so long")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max < self.size:
            raise ValueError(f"max ({self.max}) is less than size ({self.size}); raise max")
        return self


class PodSettings(Model):
    """`kubernetes` of an agent type."""

    command: tuple[Argument, ...] | None = Field(None, min_length=1, max_length=100, description="instead of the usual")
    cpu: Annotated[str, AfterValidator(_cpu)] | None = Field(None, description="of agents whose role says none")
    memory: Annotated[str, AfterValidator(_memory)] | None = Field(None, description="of agents whose role says none")
    tmp_bytes: int = Field(TMP_BYTES_DEFAULT, ge=0, le=64 * 1024**3, description="of /tmp; it counts as memory")
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict, max_length=50)
    nodes: tuple[NodeRule, ...] = Field((), max_length=50)
    tolerations: tuple[Toleration, ...] = Field((), max_length=50)
    placement: Literal["any", "spread", "together"] = Field(
        "any", description="of one execution's agents of a role: on different nodes, or on the same"
    )
    placement_required: bool = Field(False, description="false: as far as there is room")
    topology: LabelKey = Field("kubernetes.io/hostname", description="what counts as the same place for `placement`")
    priority_class: ObjectName | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    grace_seconds: int | None = Field(None, ge=0, le=3600, description="between SIGTERM and SIGKILL")
    secrets: dict[Variable, SecretReference] = Field(
        default_factory=dict, max_length=100, description="environment variables from Secrets"
    )
    egress: tuple[Egress, ...] = Field((), max_length=50)
    warm: WarmPool | None = Field(None, description="pods that wait for executions; none when absent")

    @model_validator(mode="before")
    @classmethod
    def _no_template(cls, data: Any) -> Any:
        _refuse_template(data, "")
        return data


def _refuse_template(data: Any, where: str) -> None:
    """Names what a pod template would say, wherever it stands, with what to do instead."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            path = f"{where}.{name}" if where else str(name)
            remedy = _NOT_ALLOWED.get(str(name).lower().replace("_", ""))
            # Secrets' own keys are free: they are names of variables. Ports are those that agents may reach.
            meant = where.startswith("secrets") or (where.startswith("egress") and name == "ports")
            if remedy is not None and not meant:
                raise ValueError(f"{path} cannot be set: {remedy}; remove it")
            _refuse_template(value, path)
    elif isinstance(data, list | tuple):
        for number, value in enumerate(data):
            _refuse_template(value, f"{where}[{number}]")
