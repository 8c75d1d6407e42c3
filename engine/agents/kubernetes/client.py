"""The Kubernetes API, as far as the engine speaks it: plain documents in and out, errors that callers can act on.

The official client knows how to log in (kubeconfig, service account, plug-ins); its models are passed over, since
10,000 pods of them cost more than the pods. Every call has a deadline and is counted. A throttled call (429) is
repeated after the time that the server asks for, as long as the deadline allows.
"""

import asyncio
import contextlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlencode

from engine.breakers import CircuitBreaker
from engine.contracts.circuits import CircuitRule
from engine.errors import AllocationFailedError, ConfigurationError, EngineError, NotFoundError, UnavailableError
from engine.observability.log import get_logger
from engine.settings import Settings

log = get_logger(__name__)

Document = dict[str, Any]

PAGE_SIZE: Final = 500
PAGES_MAX: Final = 200
THROTTLE_FIRST_SECONDS: Final = 0.2
THROTTLE_LONGEST_SECONDS: Final = 8.0
RETRY_AFTER_SECONDS_MAX: Final = 60.0
CONNECT_SECONDS: Final = 5.0
BREAKER: Final = "kubernetes_api"
BREAKER_RULE: Final = CircuitRule(failure_threshold=3, timeout_ms=5_000)
"""An API server that starts again is back within seconds, and agents wait for their pods meanwhile."""

MESSAGE_LENGTH_MAX: Final = 500
JSON: Final = "application/json"
ANYTHING: Final = "*/*"
MERGE_PATCH: Final = "application/merge-patch+json"

IN_CLUSTER_VARIABLE: Final = "KUBERNETES_SERVICE_HOST"

_PASSING_REFUSALS: Final = (
    "error looking up service account",  # a controller makes it a moment after the namespace
    "status unknown for quota",  # a controller has not looked at the quota yet
    "because it is being terminated",
)


class QuotaExceededError(EngineError):
    """The namespace's quota has no room now."""

    code = "QUOTA_EXCEEDED"
    transient = True


class NotAnsweringError(UnavailableError):
    """The API server does not answer, or fails: what its circuit breaker counts."""


class ThrottledError(UnavailableError):
    """The API server asks for less."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class ObjectExistsError(EngineError):
    """An object of that name is there already."""

    code = "OBJECT_EXISTS"


class ConflictError(UnavailableError):
    """Somebody else has changed the object, or it is not the one that was meant (another uid)."""


class GoneError(EngineError):
    """The resource version is too old: list again."""

    code = "RESOURCE_VERSION_GONE"
    transient = True


class RefusedError(AllocationFailedError):
    """The API server refuses the object, and would refuse it again."""


class Kind(NamedTuple):
    """Where objects of a kind are found."""

    group_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        parts = [self.group_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/" + "/".join(parts)


PODS: Final = Kind("api/v1", "pods")
NAMESPACES: Final = Kind("api/v1", "namespaces", namespaced=False)
NODES: Final = Kind("api/v1", "nodes", namespaced=False)
SECRETS: Final = Kind("api/v1", "secrets")
RESOURCE_QUOTAS: Final = Kind("api/v1", "resourcequotas")
LIMIT_RANGES: Final = Kind("api/v1", "limitranges")
EVENTS: Final = Kind("api/v1", "events")
JOBS: Final = Kind("apis/batch/v1", "jobs")
NETWORK_POLICIES: Final = Kind("apis/networking.k8s.io/v1", "networkpolicies")


class Listing(NamedTuple):
    items: list[Document]
    resource_version: str


class WatchEvent(NamedTuple):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Document


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """How to reach the cluster. Without a kubeconfig: the service account of the pod in which this process runs."""

    kubeconfig: Path | None = None
    context: str | None = None
    request_seconds: float = 10.0
    """Deadline of a call, its repetitions after a 429 included."""
    requests_max: int = 32
    """Calls under way at once; watches do not count."""

    @classmethod
    def of(cls, settings: Settings) -> "ClusterAccess":
        return cls(settings.kubernetes_kubeconfig, settings.kubernetes_context, settings.kubernetes_request_seconds)


class KubernetesApi:
    """One connection pool to one API server. Made by `open_api`."""

    def __init__(self, client: Any, access: ClusterAccess, breaker: CircuitBreaker | None = None) -> None:
        self._client = client
        self._access = access
        self._breaker = breaker
        self._slots = asyncio.Semaphore(access.requests_max)
        self.calls: Counter[str] = Counter()
        """Requests sent, repetitions included, by method and kind: `POST pods`."""

    # Objects ---------------------------------------------------------------------------------------------------

    async def create(self, kind: Kind, namespace: str | None, document: Document) -> Document:
        """Raises ObjectExistsError, QuotaExceededError, RefusedError, NotFoundError (no such namespace),
        UnavailableError."""
        return await self.request("POST", kind, kind.path(namespace), body=document)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Document:
        """Raises NotFoundError, UnavailableError."""
        return await self.request("GET", kind, kind.path(namespace, name))

    async def list(
        self, kind: Kind, namespace: str | None, *, selector: str = "", fields: str = "", page_size: int = PAGE_SIZE
    ) -> Listing:
        """All of them, page by page, or of all namespaces with None. Raises GoneError when it took too long."""
        query = {"limit": str(page_size), "labelSelector": selector, "fieldSelector": fields}
        items: list[Document] = []
        for _ in range(PAGES_MAX):
            answer = await self.request("GET", kind, kind.path(namespace), query=query)
            items.extend(answer.get("items") or ())
            more = answer["metadata"].get("continue")
            if not more:
                return Listing(items, answer["metadata"]["resourceVersion"])
            query["continue"] = more
        raise UnavailableError(f"there are more than {len(items)} {kind.plural}: more than the engine looks at")

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Begins the deletion; one that is gone already is none. With `uid` only that very object: ConflictError for
        another one of the same name."""
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        with contextlib.suppress(NotFoundError):
            await self.request("DELETE", kind, kind.path(namespace, name), body=options)

    async def replace(self, kind: Kind, namespace: str | None, name: str, document: Document) -> Document:
        """Raises ConflictError when its `metadata.resourceVersion` is not the present one."""
        return await self.request("PUT", kind, kind.path(namespace, name), body=document)

    async def patch(self, kind: Kind, namespace: str | None, name: str, change: Document) -> Document:
        """A merge patch. With `metadata.resourceVersion` in it, ConflictError when that is not the present one."""
        return await self.request("PATCH", kind, kind.path(namespace, name), body=change, content_type=MERGE_PATCH)

    async def log_head(self, namespace: str, pod: str, container: str, limit_bytes: int) -> bytes:
        """What a container has printed, from its beginning. Raises NotFoundError, RefusedError (it has not started),
        UnavailableError."""
        path = PODS.path(namespace, pod, "log")
        query = {"container": container, "limitBytes": str(limit_bytes)}
        return await self._exchange("GET", PODS, path, query, None, JSON, self._access.request_seconds, ANYTHING)

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        resource_version: str,
        *,
        selector: str = "",
        server_seconds: int = 300,
        silence_seconds: float = 90.0,
    ) -> AsyncIterator[WatchEvent]:
        """What happens after that version, bookmarks (about one a minute) included. It ends when the server ends it,
        which it does after `server_seconds`: go on from the last version seen.

        Raises GoneError (list again), ThrottledError, UnavailableError (also after so long a silence).
        """
        query = {
            "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": resource_version,
            "labelSelector": selector, "timeoutSeconds": str(server_seconds),
        }  # fmt: skip
        self.calls[f"WATCH {kind.plural}"] += 1
        response = None
        try:
            with _answering(f"the watch of {kind.plural} broke off"):
                async with asyncio.timeout(self._access.request_seconds):
                    response = await self._send("GET", kind.path(namespace), query, None, JSON, silence_seconds)
                    if response.status != 200:
                        raise _error_of(response.status, response.headers, await response.read())
                while line := await response.response.content.readline():
                    yield _watch_event(line)
        finally:
            if response is not None:
                response.response.close()

    # Requests --------------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Document | None = None,
        content_type: str = JSON,
        seconds: float | None = None,
    ) -> Document:
        """One call. Raises the errors of this module, NotFoundError, UnavailableError, ConfigurationError (login)."""
        ends = time.monotonic() + (self._access.request_seconds if seconds is None else seconds)
        delay_seconds = THROTTLE_FIRST_SECONDS
        while True:
            try:
                async with self._guarded():
                    return await self._once(
                        method, kind, path, query or {}, body, content_type, ends - time.monotonic()
                    )
            except ThrottledError as error:
                wanted = max(delay_seconds, error.retry_after_seconds)
                pause_seconds = wanted * random.uniform(1.0, 1.25)  # noqa: S311 - spreads retries, guards nothing
                if time.monotonic() + pause_seconds >= ends:
                    raise
                await asyncio.sleep(pause_seconds)
                delay_seconds = min(delay_seconds * 2, THROTTLE_LONGEST_SECONDS)

    def _guarded(self) -> AbstractAsyncContextManager[None]:
        """Raises CircuitOpenError while the breaker is open. A server that asks for less, or refuses, does answer."""
        return contextlib.nullcontext() if self._breaker is None else self._breaker.guard((NotAnsweringError,))

    async def _once(
        self,
        method: str,
        kind: Kind,
        path: str,
        query: Mapping[str, str],
        body: Document | None,
        content_type: str,
        seconds: float,
    ) -> Document:
        return _document(await self._exchange(method, kind, path, query, body, content_type, seconds))

    async def _exchange(
        self,
        method: str,
        kind: Kind,
        path: str,
        query: Mapping[str, str],
        body: Document | None,
        content_type: str,
        seconds: float,
        accept: str = JSON,
    ) -> bytes:
        with _answering("the Kubernetes API does not answer"):
            async with asyncio.timeout(seconds), self._slots:
                self.calls[f"{method} {kind.plural}"] += 1
                response = await self._send(method, path, query, body, content_type, seconds, accept)
                data: bytes = await response.read()
        if response.status >= 300:
            raise _error_of(response.status, response.headers, data)
        return data

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Document | None,
        content_type: str,
        silence_seconds: float,
        accept: str = JSON,
    ) -> Any:
        import aiohttp  # comes with the client

        headers = {"Accept": accept, "Content-Type": content_type}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        chosen = {name: value for name, value in query.items() if value}
        url = self._client.configuration.host + path + (f"?{urlencode(chosen)}" if chosen else "")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds)
        return await self._client.rest_client.request(method, url, headers=headers, body=body, _request_timeout=timeout)


@asynccontextmanager
async def open_api(access: ClusterAccess, breaker: CircuitBreaker | None = None) -> AsyncIterator[KubernetesApi]:
    """Logs in on first use, not here: a server that is down is found out by the first call.

    Raises ConfigurationError for a kubeconfig that cannot be read.
    """
    # Here and not at the top: it takes half a second and 55 MB, which engines without Kubernetes need not pay.
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    try:
        if access.kubeconfig is not None or IN_CLUSTER_VARIABLE not in os.environ:
            file = None if access.kubeconfig is None else str(access.kubeconfig)
            await config.load_kube_config(  # type: ignore[no-untyped-call]  # the client's own gap
                config_file=file, context=access.context, client_configuration=configuration, persist_config=False
            )
        else:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"no access to a Kubernetes cluster: {error}; set ORCHESTRATOR_KUBERNETES_KUBECONFIG, or run in a pod"
        ) from error
    configuration.retries = None  # not 0 or False: the client then repeats without an end, past deadline and breaker
    configuration.connection_pool_maxsize = 0  # `requests_max` limits calls; watches hold connections of their own
    connection = client.ApiClient(configuration)
    api = KubernetesApi(connection, access, breaker)
    try:
        yield api
    finally:
        log.info("kubernetes.asked", calls=dict(api.calls))
        await connection.close()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _answering(complaint: str) -> Iterator[None]:
    """What the network does as our error."""
    import aiohttp  # comes with the client, and is as slow to import

    try:
        yield
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        raise NotAnsweringError(f"{complaint}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:MESSAGE_LENGTH_MAX]


def _document(data: bytes) -> Document:
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise UnavailableError("the Kubernetes API did not answer JSON: is that address a proxy's?") from error
    if not isinstance(answer, dict):
        raise UnavailableError("the Kubernetes API did not answer a document: is that address a proxy's?")
    return answer


def _watch_event(line: bytes) -> WatchEvent:
    event = _document(line)
    found: Document = event.get("object") or {}
    if event.get("type") == "ERROR":
        raise _status_error(int(found.get("code") or 500), str(found.get("reason", "")), found.get("message", ""), 1.0)
    return WatchEvent(event["type"], found)


def _error_of(status: int, headers: Mapping[str, str], data: bytes | None) -> EngineError:
    """What the API server's answer means."""
    try:
        told: Document = json.loads(data or b"{}")
        reason, message = str(told.get("reason", "")), str(told.get("message", ""))
    except (ValueError, AttributeError):
        reason, message = "", (data or b"").decode(errors="replace")
    try:
        retry_after = float(headers.get("Retry-After", 1.0))
    except ValueError:
        retry_after = 1.0
    return _status_error(status, reason, message, min(max(retry_after, 0.0), RETRY_AFTER_SECONDS_MAX))


def _status_error(status: int, reason: str, message: str, retry_after_seconds: float) -> EngineError:
    message = message[:MESSAGE_LENGTH_MAX] or f"status {status} {reason}".strip()
    if status == 401:
        return ConfigurationError(f"the Kubernetes API does not accept the engine's login: {message}")
    if status == 403 and "exceeded quota" in message:
        return QuotaExceededError(message)
    if status == 403 and any(text in message for text in _PASSING_REFUSALS):
        return UnavailableError(message)
    if status == 404:
        return NotFoundError(message)
    if status == 409:
        return ObjectExistsError(message) if reason == "AlreadyExists" else ConflictError(message)
    if status == 410:
        return GoneError(message)
    if status == 429:
        return ThrottledError(f"the Kubernetes API is throttling: {message}", retry_after_seconds=retry_after_seconds)
    if status >= 500:
        return NotAnsweringError(f"the Kubernetes API failed ({status}): {message}")
    return RefusedError(message)
