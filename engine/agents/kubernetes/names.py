"""Names of what the engine makes in a cluster, and the labels by which it is found again.

A pod's name follows from owner, tenant, execution and agent, and from nothing else: whoever makes the pod of an agent,
however often and from wherever, makes that one name, and the API server lets only one pod have it. A replacement has
the same name, so that it cannot exist beside the former pod either; the two are told apart by their uid, which is part
of the host's id.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

DOMAIN: Final = "orchestrator.internal"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
COMPONENT: Final = "app.kubernetes.io/component"
MANAGER: Final = "orchestrator"
AGENT_COMPONENT: Final = "agent"
HOOK_COMPONENT: Final = "hook-job"

OWNER: Final = f"{DOMAIN}/owner"
"""Which deployment of the engine made it: several may share a cluster."""
TENANT: Final = f"{DOMAIN}/tenant"
EXECUTION: Final = f"{DOMAIN}/execution"
ROLE: Final = f"{DOMAIN}/role"
AGENT: Final = f"{DOMAIN}/agent"
TYPE: Final = f"{DOMAIN}/type"
HOOK: Final = f"{DOMAIN}/hook"
POOL: Final = f"{DOMAIN}/pool"
"""On pods that wait in a pool: the agent type's label value. Without an execution's labels until one claims it."""

LABEL_LENGTH_MAX: Final = 63
NAME_LENGTH_MAX: Final = 63
"""Of a pod: longer names are allowed, but are cut in the host name that the agent sees."""

DIGEST_LENGTH: Final = 16
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_UNFIT: Final = re.compile(r"[^a-z0-9]+")

HOST_SEPARATOR: Final = "."
"""Between a pod's name and its uid, in the id of the host that runs in it. Pods' names have no dots here."""


class Identity(NamedTuple):
    """Whose pod it is."""

    tenant: str
    execution_id: str
    role: str
    agent_id: str
    agent_type: str


def label_value(value: str) -> str:
    """The value itself where it can be a label; otherwise a hash, and the value stands in an annotation."""
    if _LABEL.fullmatch(value):
        return value
    return f"{_slug(value, 40) or 'x'}-{_digest(value)}"


def namespace_name(prefix: str, tenant: str) -> str:
    """One for each tenant."""
    name = f"{prefix}{tenant}"
    if len(name) <= LABEL_LENGTH_MAX and not name.endswith("-"):
        return name
    room = LABEL_LENGTH_MAX - len(prefix) - DIGEST_LENGTH - 1
    return f"{prefix}{tenant[: max(room, 0)].rstrip('-') or 'x'}-{_digest(tenant)}"[:LABEL_LENGTH_MAX]


def pod_name(owner: str, tenant: str, execution_id: str, agent_id: str) -> str:
    """Readable at the front, unique by its end."""
    return f"{_slug(agent_id, 40) or 'agent'}-{_digest(_joined(owner, tenant, execution_id, agent_id), 20)}"


def pool_pod_name(owner: str, tenant: str, agent_type: str, number: int) -> str:
    """Of a pod that waits in a pool: numbered, so that no two makers exceed the pool's size together."""
    text = _joined(owner, tenant, agent_type, str(number))
    return f"pool-{_slug(agent_type, 30) or 'agent'}-{_digest(text, 20)}"


def object_name(prefix: str, subject: str) -> str:
    """Of another object that is about something with a name of its own."""
    return f"{prefix}-{_slug(subject, 20) or 'x'}-{_digest(subject)}"


def hook_job_name(owner: str, tenant: str, key: str) -> str:
    """Of the Job that is one run of a hook. All of it is a hash: keys are nothing that people read."""
    return f"hook-{_digest(_joined(owner, tenant, key), 32)}"


def host_id(pod: str, uid: str) -> str:
    """The id under which the agent process in that pod registers."""
    return f"{pod}{HOST_SEPARATOR}{uid}"


def pod_of_host(host: str) -> tuple[str, str]:
    """A host's pod and that pod's uid; the uid is empty for hosts that are no pod's."""
    name, _, uid = host.partition(HOST_SEPARATOR)
    return name, uid


def owner_labels(owner: str) -> dict[str, str]:
    """On everything that the engine makes."""
    return {MANAGED_BY: MANAGER, OWNER: owner}


def pod_labels(owner: str, who: Identity) -> dict[str, str]:
    return {
        **owner_labels(owner),
        COMPONENT: AGENT_COMPONENT,
        TENANT: label_value(who.tenant),
        EXECUTION: label_value(who.execution_id),
        ROLE: label_value(who.role),
        AGENT: label_value(who.agent_id),
        TYPE: label_value(who.agent_type),
    }


def pod_annotations(who: Identity) -> dict[str, str]:
    """What the labels may only hold as a hash, in full."""
    return {
        TENANT: who.tenant,
        EXECUTION: who.execution_id,
        ROLE: who.role,
        AGENT: who.agent_id,
        TYPE: who.agent_type,
    }


def identity_of(metadata: Mapping[str, Any]) -> Identity | None:
    """Whose pod it is, from an object's `metadata`; None for what the engine has not made, or not for an agent."""
    annotations = metadata.get("annotations") or {}
    values = [annotations.get(key) for key in (TENANT, EXECUTION, ROLE, AGENT, TYPE)]
    if any(value is None for value in values):
        return None
    return Identity(*map(str, values))


def agents_selector(owner: str, *, tenant: str | None = None, execution_id: str | None = None) -> str:
    """A label selector for the agents' pods of this deployment."""
    labels = {**owner_labels(owner), COMPONENT: AGENT_COMPONENT}
    if tenant is not None:
        labels[TENANT] = label_value(tenant)
    if execution_id is not None:
        labels[EXECUTION] = label_value(execution_id)
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _slug(text: str, length_max: int) -> str:
    return _UNFIT.sub("-", text.lower())[:length_max].strip("-")


def _digest(text: str, length: int = DIGEST_LENGTH) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _joined(*parts: str) -> str:
    """With their lengths, so that no two different lists make one text."""
    return "".join(f"{len(part)}:{part}" for part in parts)
