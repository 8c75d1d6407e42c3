"""What every HTTP transport needs of a request: who calls, under which request id; and how errors are answered."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID, uuid4

import orjson
import structlog
from starlette.requests import HTTPConnection
from starlette.responses import Response

from engine.errors import EngineError, UnauthenticatedError
from engine.security.principal import Principal
from gateway.dependencies import GatewayDependencies
from gateway.errors import INTERNAL, shown, wire_error
from gateway.operations.operation import Caller

PROBLEM_TYPE: Final = "application/problem+json"
RETRY_AFTER_UNAVAILABLE_SECONDS: Final = 1

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?\Z|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?\Z")
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}\Z")


def request_id_of(given: str | None) -> str:
    """The client's own, where it is harmless in logs and headers; a fresh one otherwise."""
    return given if given is not None and _REQUEST_ID.match(given) else uuid4().hex


def request_id(connection: HTTPConnection) -> str:
    """As the middleware has set it."""
    identifier: str = connection.scope["state"]["request_id"]
    return identifier


def address_of(connection: HTTPConnection) -> str:
    """The peer's address. Behind trusted proxies the server has replaced it by the forwarded one."""
    return connection.client.host if connection.client else "unknown"


def base_url(connection: HTTPConnection, public_url: str | None) -> str:
    """Where clients reach us, without a slash at the end."""
    if public_url is not None:
        return public_url.rstrip("/")
    scheme = {"ws": "http", "wss": "https"}.get(connection.scope["scheme"], connection.scope["scheme"])
    host = connection.headers.get("host", "")
    if not _HOST.match(host):
        server = connection.scope.get("server") or ("localhost", None)
        host = f"{server[0]}:{server[1]}" if server[1] else server[0]
    return f"{scheme}://{host}"


def trace_id_of(connection: HTTPConnection) -> UUID:
    """The caller's W3C trace, so that theirs and ours are one; a fresh one otherwise."""
    match = _TRACEPARENT.match(connection.headers.get("traceparent", ""))
    trace = UUID(match[1]) if match else UUID(int=0)
    return trace if trace.int else uuid4()


def bearer_token(connection: HTTPConnection) -> str:
    values = connection.headers.getlist("authorization")
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthenticatedError("send one Authorization header with a bearer token")
    return token.strip()


async def authenticate(connection: HTTPConnection, dependencies: GatewayDependencies) -> Principal:
    """Raises UnauthenticatedError. Refusals are logged here: without a tenant there is no audit log to go to."""
    try:
        return await dependencies.verifier.verify(bearer_token(connection))
    except UnauthenticatedError as error:
        structlog.get_logger("gateway.security").warning(
            "unauthenticated",
            reason=error.message,
            address=address_of(connection),
            path=connection.url.path[:255],
            request_id=request_id(connection),
        )
        raise


async def identify(connection: HTTPConnection, dependencies: GatewayDependencies) -> Caller:
    principal = await authenticate(connection, dependencies)
    return caller_of(connection, dependencies, principal)


def caller_of(connection: HTTPConnection, dependencies: GatewayDependencies, principal: Principal) -> Caller:
    return Caller(
        principal=principal,
        address=address_of(connection),
        request_id=request_id(connection),
        base_url=base_url(connection, dependencies.settings.public_url),
        trace_id=trace_id_of(connection),
    )


def problem(
    status: HTTPStatus,
    title: str,
    request_identifier: str,
    *,
    code: str,
    detail: str | None = None,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document (RFC 9457)."""
    body = {
        **(extra or {}),
        "type": "about:blank",
        "title": title,
        "status": status.value,
        "code": code,
        "request_id": request_identifier,
    }
    if detail:
        body["detail"] = detail
    return Response(orjson.dumps(body, default=str), status.value, headers=dict(headers or {}), media_type=PROBLEM_TYPE)


def error_problem(error: EngineError, request_identifier: str) -> Response:
    wire = wire_error(error)
    headers: dict[str, str] = {}
    if wire is INTERNAL:
        structlog.get_logger("gateway.http").error("internal_error", request_id=request_identifier, error=repr(error))
        return problem(INTERNAL.status, INTERNAL.title, request_identifier, code="INTERNAL")
    message, data = shown(error)
    if wire.status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    elif wire.status is HTTPStatus.TOO_MANY_REQUESTS:
        headers["Retry-After"] = str(max(1, round(data.get("retry_after_seconds", 1))))
    elif wire.status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_UNAVAILABLE_SECONDS)
    return problem(
        wire.status,
        wire.title,
        request_identifier,
        code=error.code,
        detail=message,
        extra=data,
        headers=headers,
    )
