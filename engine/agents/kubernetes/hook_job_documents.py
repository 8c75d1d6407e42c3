"""The documents of a hook's Job: a container that may do nothing but compute and write to its working directory.

It satisfies Pod Security "restricted", has no token of the API and no network. What the command is told is told as it
stands: there is no shell, and what Kubernetes would replace is written so that it does not.
"""

import base64
import math
from typing import Any, Final

from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import Document
from engine.agents.kubernetes.pods import literal, memory_quantity
from engine.contracts.hook_jobs import HookJob
from engine.errors import ConfigurationError
from engine.settings import Settings

CONTAINER: Final = "hook"
POLICY: Final = "hook-jobs-no-network"
WORK: Final = "work"
TMP_BYTES: Final = 64 * 1024**2
DEADLINE_MARGIN_SECONDS: Final = 5
"""The worker ends it first, and reads what it has printed; the deadline is for those whose worker is gone."""
FINISHED_SECONDS: Final = 300
"""So long a worker that takes a run over finds how it ended."""


def job_document(settings: Settings, name: str, job: HookJob) -> Document:
    """Raises ConfigurationError without an image."""
    if settings.hooks_job_image is None:
        raise ConfigurationError("there is no image for hooks' Jobs: set ORCHESTRATOR_HOOKS_JOB_IMAGE")
    metadata = _metadata(settings, name, job)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "parallelism": 1,
            "completions": 1,
            "activeDeadlineSeconds": math.ceil(job.timeout_seconds) + DEADLINE_MARGIN_SECONDS,
            "ttlSecondsAfterFinished": FINISHED_SECONDS,
            "suspend": bool(job.secrets),
            "template": {
                "metadata": {"labels": metadata["labels"], "annotations": metadata["annotations"]},
                "spec": _pod_spec(settings, name, job),
            },
        },
    }


def policy_document(settings: Settings) -> Document:
    """Nothing in, nothing out, for all of these pods."""
    chosen = {names.COMPONENT: names.HOOK_COMPONENT, names.OWNER: settings.kubernetes_owner}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": POLICY, "labels": names.owner_labels(settings.kubernetes_owner)},
        "spec": {"podSelector": {"matchLabels": chosen}, "policyTypes": ["Ingress", "Egress"]},
    }


def secret_document(settings: Settings, made: Document, job: HookJob) -> Document:
    """Owned by the Job: the cluster removes it with that."""
    name = made["metadata"]["name"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": made["metadata"]["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**_metadata(settings, name, job), "ownerReferences": [owner]},
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in job.secrets.items()},
    }


def _metadata(settings: Settings, name: str, job: HookJob) -> Document:
    labels = {
        **names.owner_labels(settings.kubernetes_owner),
        names.COMPONENT: names.HOOK_COMPONENT,
        names.TENANT: names.label_value(job.tenant),
    }
    return {"name": name, "labels": labels, "annotations": {names.TENANT: job.tenant, names.HOOK: job.hook}}


def _pod_spec(settings: Settings, name: str, job: HookJob) -> Document:
    user, group = _user(settings, job)
    claim = settings.hooks_job_volume_claim
    security: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    work: Document = {"name": WORK, "mountPath": job.work_inside}
    if claim is None:
        security["fsGroup"] = group
        volume: Document = {"name": WORK, "emptyDir": {"sizeLimit": memory_quantity(job.disk_bytes_max)}}
    else:
        # Without fsGroup: the kubelet would go through all tenants' files.
        work["subPath"] = job.tenant
        volume = {"name": WORK, "persistentVolumeClaim": {"claimName": claim}}
    tmp = {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": memory_quantity(TMP_BYTES)}}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security,
        "imagePullSecrets": [{"name": each} for each in settings.kubernetes_image_pull_secrets],
        "volumes": [tmp, volume],
        "containers": [_container(settings, name, job, work)],
    }


def _container(settings: Settings, name: str, job: HookJob, work: Document) -> Document:
    environment: list[Document] = [
        {"name": variable, "value": literal(value)} for variable, value in sorted(job.environment.items())
    ]
    environment += [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": variable}}}
        for variable in sorted(job.secrets)
    ]
    amounts = {
        "cpu": f"{max(1, round(settings.hooks_job_cpu_cores * 1000))}m",
        "memory": memory_quantity(job.memory_bytes_max),
        "ephemeral-storage": memory_quantity(job.disk_bytes_max),
    }
    return {
        "name": CONTAINER,
        "image": settings.hooks_job_image,
        "imagePullPolicy": settings.kubernetes_image_pull_policy,
        "command": [literal(part) for part in job.argv],
        "workingDir": job.work_inside,
        "env": environment,
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, work],  # noqa: S108 - the container's own
    }


def _user(settings: Settings, job: HookJob) -> tuple[int, int]:
    """Whoever owns the working directory where it is the real one, but never root."""
    user = group = settings.kubernetes_pod_user
    if settings.hooks_job_volume_claim is not None and job.owner is not None:
        user, group = job.owner[0] or user, job.owner[1] or group
    return user, group
