"""What a test of the keeper needs: pods of a deployment of its own, a keeper that runs, and what it said."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import NAMESPACES, PODS, Document, KubernetesApi
from engine.agents.kubernetes.keeper import Keeper
from engine.agents.kubernetes.names import Identity
from engine.agents.kubernetes.pods import PodDefaults, agent_pod, pool_pod
from engine.concurrency import end_all
from engine.contracts.catalogue import SYNTHETIC
from engine.errors import NotFoundError
from engine.pod_ports import Claim, ExecutionKey, HostKey
from tests.unit.agents.fakes import FakePort

AMOUNTS = (100_000, 64 * 1024**2)


class FakeOwners:
    """What PostgreSQL would say of executions and pools; another may hold the lead."""

    def __init__(self) -> None:
        self.open: dict[ExecutionKey, bool] = {}
        self.claimed: dict[HostKey, Claim] = {}
        self.retired: list[str] = []
        self.led_by_another = False
        self.questions = 0

    @asynccontextmanager
    async def leader(self, name: str) -> AsyncIterator[bool]:
        yield not self.led_by_another

    async def open_among(self, executions: Collection[ExecutionKey]) -> Mapping[ExecutionKey, bool]:
        self.questions += 1
        return {key: self.open[key] for key in executions if key in self.open}

    async def claims(self, hosts: Collection[HostKey]) -> Mapping[HostKey, Claim]:
        return {host: self.claimed[host] for host in hosts if host in self.claimed}

    async def retire_pooled(self, tenant: str, host_ids: Sequence[str]) -> None:
        self.retired.extend(host_ids)


class Deployment:
    """One deployment of the engine: an owner's name, a tenant with a namespace, pods, a keeper."""

    def __init__(self, api: KubernetesApi, tenant: str) -> None:
        self.api = api
        self.tenant = tenant
        self.owner = f"o-{uuid.uuid4().hex[:12]}"
        self.namespace = f"n-{uuid.uuid4().hex[:12]}"
        self.port = FakePort()
        self.owners = FakeOwners()
        self.defaults = PodDefaults(owner=self.owner, image="registry.example/agent:1", grace_seconds=1)

    async def make_namespace(self) -> None:
        metadata = {
            "name": self.namespace,
            "labels": names.owner_labels(self.owner),
            "annotations": {names.TENANT: self.tenant},
        }
        await self.api.create(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        await until(self._has_service_account, "the namespace has a service account", 30)

    async def _has_service_account(self) -> bool:
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default"
        try:
            await self.api.request("GET", PODS, path)
        except NotFoundError:
            return False
        return True

    async def pod(
        self, execution_id: str | None = None, agent_id: str = "worker-1", node: str | None = None, owner: str = ""
    ) -> Document:
        """A pod of an open execution unless another is given."""
        if execution_id is None:
            execution_id = str(uuid.uuid4())
            self.owners.open[ExecutionKey(self.tenant, execution_id)] = True
        who = Identity(self.tenant, execution_id, "worker", agent_id, "synthetic")
        defaults = self.defaults if not owner else PodDefaults(owner=owner, image="registry.example/agent:1")
        document = agent_pod(self.namespace, who, SYNTHETIC, AMOUNTS, defaults)
        if node is not None:
            document["spec"]["nodeName"] = node
        return await self.api.create(PODS, self.namespace, document)

    async def pool_pod(self, number: int = 1) -> Document:
        document = pool_pod(self.namespace, self.tenant, "synthetic", number, SYNTHETIC, AMOUNTS, self.defaults)
        return await self.api.create(PODS, self.namespace, document)

    async def say(self, pod: Document, **status: Any) -> None:
        """As its kubelet would."""
        path = PODS.path(self.namespace, pod["metadata"]["name"], "status")
        await self.api.request(
            "PATCH", PODS, path, body={"status": status}, content_type="application/merge-patch+json"
        )

    async def run_pod(self, pod: Document) -> None:
        await self.say(pod, phase="Running", containerStatuses=[container(state={"running": {}}, ready=True)])

    async def names(self) -> set[str]:
        listed = await self.api.list(PODS, self.namespace)
        return {item["metadata"]["name"] for item in listed.items if "deletionTimestamp" not in item["metadata"]}

    async def told(self, pod: Document, seconds: float = 2.0) -> str:
        """The reason of its loss, as the registry heard it."""
        host_id = names.host_id(pod["metadata"]["name"], pod["metadata"]["uid"])

        async def said() -> bool:
            return host_id in self.port.gone_because

        await until(said, f"{host_id} is reported as gone", seconds)
        assert (self.tenant, host_id) in self.port.gone
        return self.port.gone_because[host_id]

    def keeper(self, **more: Any) -> Keeper:
        return Keeper(self.api, self.port, self.owners, self.owner, **more)

    @asynccontextmanager
    async def kept(self, **more: Any) -> AsyncIterator[Keeper]:
        """A keeper that runs and has seen the pods that are there."""
        keeper = self.keeper(**more)
        running = asyncio.create_task(keeper.run())
        try:
            own = await self.api.list(PODS, self.namespace, selector=names.agents_selector(self.owner))
            wanted = {item["metadata"]["uid"] for item in own.items}
            if not self.owners.led_by_another:
                await self.until_seen(keeper, wanted)
            yield keeper
        finally:
            await end_all([running])

    async def until_seen(self, keeper: Keeper, uids: set[str]) -> None:
        async def seen() -> bool:
            return uids <= {pod.uid for pod in keeper.pods()} and self.namespace in keeper.namespaces()

        await until(seen, "the keeper sees the pods", 10)


def container(**fields: Any) -> dict[str, Any]:
    return {
        "name": "agent",
        "image": "registry.example/agent:1",
        "imageID": "",
        "restartCount": 0,
        "ready": False,
        **fields,
    }


async def until(probe: Callable[[], Any], what: str, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not await probe():
        assert time.monotonic() < ends, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


class Proxy:
    """In front of the real API server: answers as an overloaded or forgetful one would, when it is asked to."""

    def __init__(self, server: str, context: Any) -> None:
        self._server = server
        self._context = context
        self._streams: set[asyncio.Task[Any]] = set()
        self.throttled = 0
        """So many requests are answered with 429."""
        self.forgotten = 0
        """So many watches are answered with 410."""
        self.watches = 0
        self.lists = 0
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        async with aiohttp.ClientSession(auto_decompress=False, read_bufsize=2**21) as self._session:
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(application, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            try:
                yield self
            finally:
                self.break_watches()
                await runner.cleanup()

    async def until_watched(self, watches: int) -> None:
        async def watched() -> bool:
            return len(self._streams) == watches

        await until(watched, f"{watches} watches", 30)

    def break_watches(self) -> None:
        """As when the server dies under them."""
        for stream in list(self._streams):
            stream.cancel()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.throttled > 0:
            self.throttled -= 1
            return self._refusal(429, "TooManyRequests", {"Retry-After": "1"})
        watching = "watch" in request.query
        if watching and self.forgotten > 0:
            self.forgotten -= 1
            return self._refusal(410, "Expired", {})
        self.watches += watching
        self.lists += request.method == "GET" and request.path.endswith("/pods") and not watching
        headers = {name: request.headers[name] for name in ("Authorization", "Accept", "Content-Type")}
        body = await request.read()
        async with self._session.request(
            request.method, self._server + request.path_qs, headers=headers, data=body, ssl=self._context
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
            await response.prepare(request)
            task = asyncio.current_task()
            if watching and task is not None:
                self._streams.add(task)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            finally:
                if task is not None:
                    self._streams.discard(task)
            return response

    def _refusal(self, code: int, reason: str, headers: dict[str, str]) -> web.Response:
        document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
                    "message": f"the test says {code}"}  # fmt: skip
        return web.json_response(document, status=code, headers=headers)
