"""The engine's HTTP interface as the command uses it. Answers that are errors become `engine.errors`."""

import itertools
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from cli.connection import Connection
from engine.errors import (
    AllocationFailedError,
    AllocationTimeoutError,
    AlreadyExecutingError,
    CapabilitiesUnavailableError,
    CheckpointNotFoundError,
    EngineError,
    ForbiddenError,
    HookExecutionFailedError,
    HookNameConflictError,
    HookNotFoundError,
    IdempotencyConflictError,
    InvalidDefinitionError,
    InvalidHookActionError,
    InvalidHookTriggerError,
    InvalidLogicError,
    InvalidParametersError,
    InvalidTransitionError,
    NotFoundError,
    PatternConflictError,
    ResourcesUnsatisfiableError,
    TooLargeError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedPatternError,
)

REQUEST_TIMEOUT_SECONDS = 40.0
"""Above the gateway's own limit for one operation, so that its answer says what took so long."""

CONNECT_TIMEOUT_SECONDS = 5.0
PAGES_MAX = 10_000

_BY_RPC_CODE: dict[int, type[EngineError]] = {
    -32600: InvalidParametersError,
    -32601: InvalidParametersError,
    -32602: InvalidParametersError,
    -32700: InvalidParametersError,
    -32000: UnsupportedPatternError,
    -32001: CapabilitiesUnavailableError,
    -32002: ResourcesUnsatisfiableError,
    -32003: NotFoundError,
    -32004: AlreadyExecutingError,
    -32005: AllocationFailedError,
    -32006: AllocationTimeoutError,
    -32007: InvalidTransitionError,
    -32008: CheckpointNotFoundError,
    -32009: PatternConflictError,
    -32010: InvalidLogicError,
    -32011: HookNameConflictError,
    -32012: InvalidHookTriggerError,
    -32013: InvalidHookActionError,
    -32014: HookNotFoundError,
    -32015: HookExecutionFailedError,
    -32016: UnauthenticatedError,
    -32017: ForbiddenError,
    -32018: IdempotencyConflictError,
    -32019: TooLargeError,
    -32020: TooManyRequestsError,
}

_BY_HTTP_STATUS: dict[int, type[EngineError]] = {
    400: InvalidParametersError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: InvalidTransitionError,
    413: TooLargeError,
    422: InvalidParametersError,
    429: TooManyRequestsError,
}


class EngineClient:
    """One caller's view of one engine. Use as a context manager."""

    def __init__(self, connection: Connection, transport: httpx.BaseTransport | None = None) -> None:
        self.connection = connection
        self._ids = itertools.count(1)
        self._http = httpx.Client(
            base_url=connection.url,
            headers={"Authorization": f"Bearer {connection.token}", "User-Agent": "orchestrator-cli"},
            timeout=httpx.Timeout(REQUEST_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(
        self, method: str, params: dict[str, Any], *, timeout_seconds: float = REQUEST_TIMEOUT_SECONDS
    ) -> dict[str, Any]:
        """One JSON-RPC call; returns its result."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        timeout = httpx.Timeout(timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS)
        response = self._send("POST", "/api/v1/jsonrpc", json=request, timeout=timeout)
        document = self._document(response)
        error = document.get("error")
        if isinstance(error, dict):
            raise _rpc_error(method, error)
        if response.is_error or not isinstance(document.get("result"), dict):
            raise self._http_error(response, document)
        result: dict[str, Any] = document["result"]
        return result

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """One REST answer. Parameters that are None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        response = self._send("GET", path, params=given)
        document = self._document(response)
        if response.is_error:
            raise self._http_error(response, document)
        return document

    def pages(self, path: str, *, limit: int, page_token: str | None = None) -> Iterator[dict[str, Any]]:
        """The pages of a listing, from the token's on."""
        for _ in range(PAGES_MAX):
            page = self.get(path, limit=limit, page_token=page_token)
            yield page
            page_token = page.get("next_page_token")
            if page_token is None:
                return

    def is_healthy(self) -> bool:
        """Whether the gateway's process answers."""
        try:
            return self._http.get("/health", timeout=CONNECT_TIMEOUT_SECONDS).is_success
        except httpx.TransportError:
            return False

    def _send(self, verb: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(verb, path, **arguments)
        except httpx.TimeoutException as error:
            raise UnavailableError(
                f"{self.connection.url} did not answer in time; see `orchestrator doctor`"
            ) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise UnavailableError(
                f"no engine answers at {self.connection.url} ({error}); "
                "start one with `orchestrator up`, or check --url"
            ) from error

    def _document(self, response: httpx.Response) -> dict[str, Any]:
        try:
            document = response.json()
        except ValueError as error:
            raise self._http_error(response, {}) from error
        if not isinstance(document, dict):
            raise self._http_error(response, {})
        return document

    def _http_error(self, response: httpx.Response, document: dict[str, Any]) -> EngineError:
        """From `application/problem+json`, or from the bare status when something else answered."""
        detail = document.get("detail") or document.get("title")
        kind = _BY_HTTP_STATUS.get(response.status_code, UnavailableError)
        if detail is None:
            detail = f"{self.connection.url} answered {response.status_code}, not as the engine does; check --url"
        return kind(str(detail), **_problems(document))


def _rpc_error(method: str, error: dict[str, Any]) -> EngineError:
    code = error.get("code")
    data = error.get("data")
    message = str(error.get("message", "the engine refused"))
    details = data if isinstance(data, dict) else {}
    kind = _BY_RPC_CODE.get(code, EngineError) if isinstance(code, int) else EngineError
    if kind is InvalidParametersError and method == "workflow.create":
        kind = InvalidDefinitionError
    return kind(message, **_problems(details))


def _problems(details: dict[str, Any]) -> dict[str, Any]:
    return {"errors": details["errors"]} if "errors" in details else {}
