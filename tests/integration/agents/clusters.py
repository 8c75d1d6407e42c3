"""A tenant's agents in a real control plane, with this test as the kubelet: it says what becomes of the pods."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import SecretStr

from engine.agents.kubernetes import names
from engine.agents.kubernetes.allocation import PodAllocator
from engine.agents.kubernetes.client import PODS, ClusterAccess, KubernetesApi, open_api
from engine.agents.kubernetes.namespaces import TenantNamespaces
from engine.contracts.catalogue import Catalogue
from engine.contracts.hosts import Dedication
from engine.contracts.kernel import BindRequest, KernelRole
from engine.settings import Settings
from tests.unit.agents.fakes import FakeHosts, record

Found = TypeVar("Found")
SECRET = b"s" * 32


class Logins:
    """Redis' users, in memory."""

    def __init__(self) -> None:
        self.tenants: set[str] = set()
        self.passwords: dict[str, str] = {}

    async def add_tenants(self, tenants: list[str]) -> None:
        self.tenants.update(tenants)

    async def ensure_logins(self, passwords: dict[str, str]) -> list[str]:
        self.passwords.update(passwords)
        return list(passwords)


class Tenant:
    """One tenant of one engine; each test takes its own, and thereby a namespace."""

    def __init__(self, api: KubernetesApi, settings: Settings, catalogue: Catalogue) -> None:
        self.api, self.settings, self.catalogue = api, settings, catalogue
        self.tenant = f"t-{uuid4().hex[:8]}"
        self.execution_id = str(uuid4())
        self.hosts, self.logins = FakeHosts(), Logins()
        self.namespaces = TenantNamespaces(api, self.logins, catalogue, settings, SECRET)
        self.namespace = self.namespaces.name(self.tenant)
        self.allocator = self.another_worker()

    def another_worker(self) -> PodAllocator:
        namespaces = TenantNamespaces(self.api, self.logins, self.catalogue, self.settings, SECRET)
        return PodAllocator(self.api, namespaces, self.hosts, self.catalogue, self.settings)

    def request(self, count: int = 1, *, wait_seconds: float = 8.0, type: str = "coder", **role: Any) -> BindRequest:
        roles = {"worker": KernelRole(type=type, count=count, **role)}
        return BindRequest(tenant=self.tenant, execution_id=self.execution_id, roles=roles, wait_seconds=wait_seconds)

    async def pods(self) -> dict[str, dict[str, Any]]:
        """By agent."""
        found = await self.api.list(PODS, self.namespace)
        return {pod["metadata"]["annotations"][names.AGENT]: pod for pod in found.items}

    async def pod(self, agent_id: str, other_than: str = "") -> dict[str, Any]:
        """Once it is there; with another uid than that."""

        async def there() -> dict[str, Any] | None:
            try:
                found = (await self.pods()).get(agent_id)
            except LookupError:
                return None
            return found if found is not None and found["metadata"]["uid"] != other_than else None

        return await eventually(there)

    async def say(self, pod: dict[str, Any], phase: str, **status: Any) -> None:
        """As a kubelet would."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        change = {"status": {"phase": phase, "startTime": now, **status}}
        path = PODS.path(self.namespace, pod["metadata"]["name"], "status")
        await self.api.request("PATCH", PODS, path, body=change, content_type="application/merge-patch+json")

    def register(self, pod: dict[str, Any], type: str = "coder") -> str:
        """As the agent in it would."""
        agent_id = pod["metadata"]["annotations"][names.AGENT]
        host_id = names.host_id(pod["metadata"]["name"], pod["metadata"]["uid"])
        dedicated_to = Dedication(execution_id=self.execution_id, agent_id=agent_id)
        host = record(host_id, types=(type,), slots=2, features=("chains",))
        self.hosts.put(self.tenant, host.model_copy(update={"dedicated_to": dedicated_to}))
        return host_id


async def eventually(look: Callable[[], Awaitable[Found | None]], seconds: float = 15.0) -> Found:
    ends = time.monotonic() + seconds
    while (found := await look()) is None:
        assert time.monotonic() < ends, "it did not come"
        await asyncio.sleep(0.05)
    return found


def cluster_settings(kubeconfig: Path | None, **more: Any) -> Settings:
    given: dict[str, Any] = {
        "allocator": "kubernetes",
        "kubernetes_kubeconfig": kubeconfig,
        "kubernetes_agent_image": "agent:1",
        "redis_url": SecretStr("redis://:engines-own@10.0.0.7:6380/0"),
        **more,
    }
    return Settings(_env_file=None, **given)


@asynccontextmanager
async def tenant_of(kubeconfig: Path, catalogue: Catalogue, **more: Any) -> AsyncIterator[Tenant]:
    settings = cluster_settings(kubeconfig, **more)
    async with open_api(ClusterAccess.of(settings)) as api:
        yield Tenant(api, settings, catalogue)
