"""A namespace for each tenant, with what keeps its agents in their bounds: quota, limits, network policies, the login.

All of it is written as it should be, whether it is there or not: what somebody has changed is put right, and settings
that were changed reach namespaces that exist. A process looks again every few minutes.
"""

import asyncio
import base64
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Protocol

from engine.agents.credentials import agent_password, agent_url
from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import (
    LIMIT_RANGES,
    NAMESPACES,
    NETWORK_POLICIES,
    RESOURCE_QUOTAS,
    SECRETS,
    Document,
    Kind,
    KubernetesApi,
    ObjectExistsError,
)
from engine.agents.kubernetes.pods import LOGIN_KEY, LOGIN_SECRET, memory_quantity
from engine.agents.kubernetes.rights import take_rights
from engine.contracts.catalogue import Catalogue
from engine.errors import ConfigurationError, NotFoundError, UnavailableError
from engine.redis_addresses import addresses
from engine.settings import Settings

ENSURED_SECONDS: Final = 300.0
TENANTS_REMEMBERED: Final = 10_000
DNS_PORT: Final = 53
QUOTA: Final = "agents"
LIMITS: Final = "agents"
DEFAULT_DENY: Final = "agents-default-deny"
REDIS_ACCESS: Final = "agents-redis"
POD_SECURITY: Final = "pod-security.kubernetes.io"


class TenantLogins(Protocol):
    """Redis, as far as a tenant's agents need it made ready. Implemented by `engine.events.hosts`."""

    async def add_tenants(self, tenants: Any) -> None: ...

    async def ensure_logins(self, passwords: dict[str, str]) -> Any: ...


class TenantNamespaces:
    """Makes what is missing, once a tenant and process, and again after a while."""

    def __init__(
        self, api: KubernetesApi, logins: TenantLogins, catalogue: Catalogue, settings: Settings, secret: bytes
    ) -> None:
        self._api = api
        self._logins = logins
        self._catalogue = catalogue
        self._settings = settings
        self._secret = secret
        self._ensured: OrderedDict[str, float] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    def name(self, tenant: str) -> str:
        return names.namespace_name(self._settings.kubernetes_namespace_prefix, tenant)

    def forget(self, tenant: str) -> None:
        """Something says that the namespace is not what it was."""
        self._ensured.pop(tenant, None)

    async def ensure(self, tenant: str) -> str:
        """The tenant's namespace, ready for pods. Raises ConfigurationError, RefusedError, UnavailableError."""
        name = self.name(tenant)
        lock = self._locks.setdefault(tenant, asyncio.Lock())
        try:
            async with lock:
                if time.monotonic() - self._ensured.get(tenant, float("-inf")) < ENSURED_SECONDS:
                    return name
                await self._logins.add_tenants([tenant])
                await self._logins.ensure_logins({tenant: agent_password(self._secret, tenant)})
                if self._settings.kubernetes_manage_namespaces:
                    await self._make(tenant, name)
                await self._apply(SECRETS, name, self._login(tenant))
                self._ensured[tenant] = time.monotonic()
                while len(self._ensured) > TENANTS_REMEMBERED:
                    self._ensured.popitem(last=False)
        except NotFoundError as error:
            raise UnavailableError(
                f"there is no namespace {name}: it is made by the engine, or by whoever has set "
                "ORCHESTRATOR_KUBERNETES_MANAGE_NAMESPACES to false"
            ) from error
        finally:
            if not lock.locked():
                self._locks.pop(tenant, None)
        return name

    async def _make(self, tenant: str, name: str) -> None:
        document = namespace_document(self._settings, tenant)
        try:
            await self._api.create(NAMESPACES, None, document)
        except ObjectExistsError:
            await self._adopt(name, document)
        await take_rights(self._api, self._settings, name)
        await self._apply(RESOURCE_QUOTAS, name, quota_document(self._settings))
        await self._apply(LIMIT_RANGES, name, limits_document(self._settings))
        for policy in policy_documents(self._settings, self._catalogue):
            await self._apply(NETWORK_POLICIES, name, policy)

    async def _adopt(self, name: str, document: Document) -> None:
        found = await self._api.get(NAMESPACES, None, name)
        if found.get("status", {}).get("phase") == "Terminating":
            raise UnavailableError(f"the namespace {name} is being deleted")
        owner = (found["metadata"].get("labels") or {}).get(names.OWNER)
        if owner != self._settings.kubernetes_owner:
            raise ConfigurationError(
                f"the namespace {name} is there and belongs to {owner or 'nobody that the engine knows'}: set another "
                "ORCHESTRATOR_KUBERNETES_NAMESPACE_PREFIX, or set ORCHESTRATOR_KUBERNETES_MANAGE_NAMESPACES to false"
            )
        wanted = document["metadata"]["labels"]
        if any(found["metadata"]["labels"].get(key) != value for key, value in wanted.items()):
            await self._api.patch(NAMESPACES, None, name, {"metadata": {"labels": wanted}})

    async def _apply(self, kind: Kind, namespace: str, document: Document) -> None:
        try:
            await self._api.create(kind, namespace, document)
        except ObjectExistsError:
            change = {key: value for key, value in document.items() if key in ("spec", "data")}
            change["metadata"] = {"labels": document["metadata"]["labels"]}
            await self._api.patch(kind, namespace, document["metadata"]["name"], change)

    def _login(self, tenant: str) -> Document:
        address = self._settings.kubernetes_redis_url or self._settings.redis_url
        url = agent_url(address.get_secret_value(), self._secret, tenant)
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": _metadata(self._settings, LOGIN_SECRET),
            "type": "Opaque",
            "data": {LOGIN_KEY: base64.b64encode(url.encode()).decode()},
        }


def namespace_document(settings: Settings, tenant: str) -> Document:
    labels = {
        **names.owner_labels(settings.kubernetes_owner),
        names.TENANT: names.label_value(tenant),
        **{f"{POD_SECURITY}/{mode}": "restricted" for mode in ("enforce", "audit", "warn")},
        f"{POD_SECURITY}/enforce-version": "latest",
    }
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": names.namespace_name(settings.kubernetes_namespace_prefix, tenant),
            "labels": labels,
            "annotations": {names.TENANT: tenant},
        },
    }


def quota_document(settings: Settings) -> Document:
    cpu = f"{round(settings.kubernetes_quota_cpu_cores * 1000)}m"
    memory = memory_quantity(settings.kubernetes_quota_memory_bytes)
    hard = {
        "requests.cpu": cpu,
        "limits.cpu": cpu,
        "requests.memory": memory,
        "limits.memory": memory,
        "pods": str(settings.kubernetes_quota_pods),
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": _metadata(settings, QUOTA),
        "spec": {"hard": hard},
    }


def limits_document(settings: Settings) -> Document:
    """For pods that are not the engine's: without amounts they could not be counted."""
    amounts = {
        "cpu": f"{max(1, round(settings.kubernetes_agent_cpu_cores * 1000))}m",
        "memory": memory_quantity(settings.kubernetes_agent_memory_bytes),
    }
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": _metadata(settings, LIMITS),
        "spec": {"limits": [{"type": "Container", "default": amounts, "defaultRequest": amounts}]},
    }


def policy_documents(settings: Settings, catalogue: Catalogue) -> list[Document]:
    """Nothing goes in, and out only what leads to Redis and to what the catalogue allows a type."""
    everything_denied = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    agents = {names.COMPONENT: names.AGENT_COMPONENT, names.OWNER: settings.kubernetes_owner}
    policies = [
        _policy(settings, DEFAULT_DENY, everything_denied),
        _policy(settings, REDIS_ACCESS, _egress(agents, _redis_rules(settings))),
    ]
    for name, agent_type in sorted(catalogue.agents.items()):
        rules = [
            _rule([str(item.network)], [("TCP", port) for port in item.ports]) for item in agent_type.kubernetes.egress
        ]
        if rules:
            label = names.label_value(name)
            # Addresses are not all that they need: names lead to them.
            chosen = _egress({**agents, names.TYPE: label}, [*rules, _dns()])
            policies.append(_policy(settings, names.object_name("agents-egress", name), chosen))
    return policies


def _redis_rules(settings: Settings) -> list[Document]:
    """To the addresses that are known: a cluster's nodes that the URL does not name need their networks."""
    rules: list[Document] = []
    named = False
    for host, port in addresses((settings.kubernetes_redis_url or settings.redis_url).get_secret_value()):
        networks = list(settings.kubernetes_redis_networks)
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            named = True
        else:
            networks = networks or [f"{address}/{address.max_prefixlen}"]
        rule = _rule(networks, [("TCP", port)])
        if rule not in rules:
            rules.append(rule)
    return [*rules, _dns()] if named else rules


def _dns() -> Document:
    return _rule([], [("UDP", DNS_PORT), ("TCP", DNS_PORT)])


def _rule(networks: list[str], ports: list[tuple[str, int]]) -> Document:
    rule: Document = {}
    if networks:
        rule["to"] = [{"ipBlock": {"cidr": network}} for network in networks]
    if ports:
        rule["ports"] = [{"protocol": protocol, "port": port} for protocol, port in ports]
    return rule


def _egress(labels: Mapping[str, str], rules: list[Document]) -> Document:
    return {"podSelector": {"matchLabels": dict(labels)}, "policyTypes": ["Egress"], "egress": rules}


def _policy(settings: Settings, name: str, spec: Document) -> Document:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(settings, name),
        "spec": spec,
    }


def _metadata(settings: Settings, name: str) -> Document:
    return {"name": name, "labels": names.owner_labels(settings.kubernetes_owner)}
