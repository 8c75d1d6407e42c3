"""The engine's own code at work on a real control plane, logged in as the account that the chart gives it."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from engine.agents.catalogue import load_catalogue
from engine.agents.kubernetes.client import PODS, ClusterAccess, KubernetesApi, RefusedError, open_api
from engine.agents.kubernetes.keeper import Keeper
from engine.agents.kubernetes.names import Identity
from engine.agents.kubernetes.namespaces import TenantNamespaces
from engine.agents.kubernetes.pods import PodDefaults, agent_pod
from engine.agents.kubernetes.rights import BINDING, take_rights
from engine.contracts.catalogue import SYNTHETIC, SYNTHETIC_TYPE
from engine.errors import UnavailableError
from engine.pod_ports import Claim, ExecutionKey, HostKey
from engine.settings import Settings
from tests.cluster.control_plane import ControlPlane
from tests.integration.deployment.chart import OWN_NAMESPACES, found, render
from tests.integration.deployment.test_rights import RBAC, RIGHTS_SECONDS, installed

SECRET = b"s" * 32


class Logins:
    async def add_tenants(self, tenants: Any) -> None: ...

    async def ensure_logins(self, passwords: dict[str, str]) -> Any: ...


class Port:
    """Redis, as far as the keeper reports to it."""

    def __init__(self) -> None:
        self.gone: list[tuple[str, str]] = []

    async def host_gone(self, tenant: str, host_id: str, reason: str = "") -> None:
        self.gone.append((tenant, host_id))


class AllClosed:
    """PostgreSQL, in which every execution has ended."""

    @asynccontextmanager
    async def leader(self, _name: str) -> AsyncIterator[bool]:
        yield True

    async def open_among(self, executions: Collection[ExecutionKey]) -> Mapping[ExecutionKey, bool]:
        return dict.fromkeys(executions, False)

    async def claims(self, _hosts: Collection[HostKey]) -> Mapping[HostKey, Claim]:
        return {}

    async def retire_pooled(self, _tenant: str, _host_ids: Sequence[str]) -> None: ...


async def settings_of(
    control_plane: ControlPlane, folder: Path, release: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Those that the chart gives a worker, with a kubeconfig in place of the pod's own token."""
    await installed(control_plane, folder, release, values)
    path = f"/api/v1/namespaces/{release}/serviceaccounts/orchestrator-allocator/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    control_plane.tokens[release] = (await control_plane.client().create(path, request))["status"]["token"]
    kubeconfig = control_plane.write_kubeconfig(release, folder / "kubeconfig")
    config = found(render(folder, values, namespace=release), "ConfigMap", "orchestrator-settings")
    for name, value in config["data"].items():
        monkeypatch.setenv(name, value)
    return Settings(kubernetes_kubeconfig=kubeconfig, kubernetes_agent_image="agent:1", redis_url="redis://10.0.0.9/0")


def namespaces_of(api: KubernetesApi, settings: Settings) -> TenantNamespaces:
    return TenantNamespaces(api, Logins(), load_catalogue(None), settings, SECRET)


async def until_ready(namespaces: TenantNamespaces, tenant: str) -> str:
    """The chart's rights act a moment after they are stored."""
    ends = time.monotonic() + RIGHTS_SECONDS
    while True:
        try:
            return await namespaces.ensure(tenant)
        except (RefusedError, UnavailableError):
            if time.monotonic() > ends:
                raise
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("managed", [True, False])
async def test_it_prepares_namespaces_makes_watches_and_releases_pods(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, managed: bool
) -> None:
    release, prefix = f"account-{managed}".lower(), f"acct-{managed}-".lower()
    values = {"kubernetes": {"namespacePrefix": prefix}}
    if not managed:
        values["kubernetes"] |= OWN_NAMESPACES["kubernetes"] | values["kubernetes"]
    settings = await settings_of(control_plane, tmp_path, release, values, monkeypatch)
    admin = control_plane.client()
    async with open_api(ClusterAccess.of(settings)) as api:
        name = await until_ready(namespaces_of(api, settings), "acme")
        assert name == f"{prefix}acme"
        # Once more from the beginning, as another worker does: all of it is there already.
        assert await namespaces_of(api, settings).ensure("acme") == name
        quota = (await admin.get(f"/api/v1/namespaces/{name}/resourcequotas"))["items"]
        assert [item["spec"]["hard"]["pods"] for item in quota] == ["500"]
        policies = (await admin.get(f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies"))["items"]
        assert any(not item["spec"]["podSelector"] for item in policies)
        port = Port()
        keeper = asyncio.create_task(Keeper(api, port, AllClosed(), settings.kubernetes_owner).run())  # type: ignore[arg-type]
        try:
            execution = str(uuid4())
            for agent in ("writer-1", "writer-2"):
                who = Identity("acme", execution, "writer", agent, SYNTHETIC_TYPE)
                amounts = (100_000, 64 * 1024**2)
                document = agent_pod(name, who, SYNTHETIC, amounts, PodDefaults.of(settings))
                await api.create(PODS, name, document)
            ends = time.monotonic() + RIGHTS_SECONDS
            while (await admin.get(f"/api/v1/namespaces/{name}/pods"))["items"] or len(port.gone) < 2:
                assert time.monotonic() < ends, port.gone
                await asyncio.sleep(0.2)
            assert {tenant for tenant, _ in port.gone} == {"acme"}
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


async def test_rights_that_do_not_come_are_an_outage_and_none_are_taken_where_no_role_is_set(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"kubernetes": {"namespacePrefix": "late-"}}
    settings = await settings_of(control_plane, tmp_path, "account-late", values, monkeypatch)
    admin, name = control_plane.client(), "late-acme"
    async with open_api(ClusterAccess.of(settings)) as api:
        await until_ready(namespaces_of(api, settings), "acme")
        path = f"{RBAC}/namespaces/{name}/rolebindings/{BINDING}"
        await admin.delete(path)
        await take_rights(api, settings.model_copy(update={"kubernetes_tenant_role": None}), name)
        status, _ = await admin.request("GET", path)
        assert status == 404
        # The role itself is taken away, and so its binding gives nothing.
        await admin.delete(f"{RBAC}/clusterroles/account-late:orchestrator:tenant")
        monkeypatch.setattr("engine.agents.kubernetes.rights.EFFECTIVE_SECONDS_MAX", 0.5)
        with pytest.raises((UnavailableError, RefusedError)):
            await take_rights(api, settings, name)
