"""Hooks' secrets from Kubernetes Secrets, on a real API server."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from engine.agents.kubernetes.client import NAMESPACES, SECRETS, ClusterAccess, KubernetesApi, open_api
from engine.agents.kubernetes.hook_secrets import KubernetesSecrets
from engine.agents.kubernetes.names import namespace_name
from engine.errors import InvalidHookActionError, UnavailableError
from engine.settings import Settings
from hooks.secrets import SecretStore
from tests.cluster.control_plane import ControlPlane

NAME = "hook-secrets"
VALUE = "s3cret-of-the-cluster"


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[KubernetesApi]:
    async with open_api(ClusterAccess(control_plane.kubeconfig)) as api:
        yield api


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate(
        {"hooks_kubernetes_secret": NAME, "kubernetes_namespace_prefix": "hooks-test-", "hooks_secrets_dir": None}
    )


@pytest.fixture
async def namespace(api: KubernetesApi, settings: Settings, tenant: str) -> str:
    name = namespace_name(settings.kubernetes_namespace_prefix, tenant)
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await api.create(NAMESPACES, None, document)
    return name


def secret(name: str, **values: bytes) -> dict[str, object]:
    data = {key.replace("_", "-"): base64.b64encode(value).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


async def test_a_tenants_secret_is_read_by_its_key_and_shown_nowhere(
    api: KubernetesApi, settings: Settings, namespace: str, tenant: str
) -> None:
    await api.create(
        SECRETS, namespace, secret(NAME, api_key=f"{VALUE}\n".encode(), binary=b"\xff\xfe\xfd\xfc\xfb\xfa")
    )
    await api.create(SECRETS, namespace, secret("logins", other=b"not for hooks"))
    source = KubernetesSecrets(api, settings)
    store = SecretStore.from_settings(settings, source)
    with structlog.testing.capture_logs() as logged:
        values = await store.values(tenant, ["api-key"])
        assert values["api-key"] == VALUE
        for missing in ("other", "binary", "API-KEY"):
            with pytest.raises(InvalidHookActionError) as refused:
                await store.values(tenant, [missing])
            assert VALUE not in str(refused.value.data)
        with pytest.raises(InvalidHookActionError):
            await store.values(f"{tenant}-x", ["api-key"])
    assert values.redact(f"it is {VALUE}") == "it is [secret:api-key]"
    assert VALUE not in f"{values} {source._kept} {logged}"
    assert api.calls["GET secrets"] == 2, "one a tenant: what was read is kept"


async def test_a_change_is_seen_and_an_outage_is_no_missing_secret(
    control_plane: ControlPlane, api: KubernetesApi, settings: Settings, namespace: str, tenant: str, tmp_path: Path
) -> None:
    source = KubernetesSecrets(api, settings, kept_seconds=0.0)
    assert await source.read(tenant, "api-key") is None
    await api.create(SECRETS, namespace, secret(NAME, api_key=VALUE.encode()))
    assert await source.read(tenant, "api-key") == VALUE
    await api.patch(SECRETS, namespace, NAME, {"data": {"api-key": base64.b64encode(b"another").decode()}})
    assert await source.read(tenant, "api-key") == "another"
    nowhere = control_plane.write_kubeconfig("admin", tmp_path / "kubeconfig", server="https://127.0.0.1:1")
    async with open_api(ClusterAccess(nowhere, request_seconds=2.0)) as unreachable:
        with pytest.raises(UnavailableError):
            await KubernetesSecrets(unreachable, settings).read(tenant, "api-key")
