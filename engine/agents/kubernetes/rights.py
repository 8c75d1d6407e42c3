"""The engine's own rights in a namespace that it has made.

Where it runs with no more than it needs, it may make namespaces and give itself one role in them: that is done here,
right after a namespace is made. Rights act a moment after they are stored, hence the wait.
"""

import asyncio
import time
from typing import Final

from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import PODS, Document, Kind, KubernetesApi, ObjectExistsError, RefusedError
from engine.errors import UnavailableError
from engine.settings import Settings

ROLE_BINDINGS: Final = Kind("apis/rbac.authorization.k8s.io/v1", "rolebindings")
RBAC_GROUP: Final = "rbac.authorization.k8s.io"
BINDING: Final = "orchestrator"
EFFECTIVE_SECONDS_MAX: Final = 10.0
LOOK_SECONDS: Final = 0.05


async def take_rights(api: KubernetesApi, settings: Settings, namespace: str) -> None:
    """Nothing where no role is set: the engine's login has its rights in some other way then.

    Raises RefusedError, UnavailableError.
    """
    if settings.kubernetes_tenant_role is None or settings.kubernetes_service_account is None:
        return
    try:
        await api.create(ROLE_BINDINGS, namespace, binding_document(settings))
    except ObjectExistsError:
        return
    ends = time.monotonic() + EFFECTIVE_SECONDS_MAX
    while True:
        try:
            await api.request("GET", PODS, PODS.path(namespace), query={"limit": "1"})
        except RefusedError as error:
            if time.monotonic() >= ends:
                raise UnavailableError(f"the engine's rights in {namespace} do not act yet: {error.message}") from error
            await asyncio.sleep(LOOK_SECONDS)
        else:
            return


def binding_document(settings: Settings) -> Document:
    account_namespace, _, account = (settings.kubernetes_service_account or "").partition("/")
    return {
        "apiVersion": f"{RBAC_GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": BINDING, "labels": names.owner_labels(settings.kubernetes_owner)},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": settings.kubernetes_tenant_role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": account_namespace}],
    }
