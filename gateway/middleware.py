"""What happens to every request whatever it asks: an id, security headers, the rate limit, figures.

Plain ASGI: a response that streams is not collected, and WebSockets pass through.
"""

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import TooManyRequestsError
from gateway.dependencies import RateLimit
from gateway.errors import INTERNAL
from gateway.http import address_of, error_problem, problem, request_id_of
from gateway.jsonrpc.methods import rpc_error
from gateway.jsonrpc.protocol import error_answer
from gateway.metrics import HttpMetrics

SECURITY_HEADERS: Final = {
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Set unless the answer has its own."""

UNLIMITED_PATHS: Final = frozenset({"/health", "/ready", "/startup"})
JSONRPC_PATH: Final = "/api/v1/jsonrpc"
CLOSE_TRY_AGAIN: Final = 4429


class RequestEnvelope:
    """Outermost: gives each request its id, and turns what nobody caught into an answer without detail."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics
        self._logger = structlog.get_logger("gateway.http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        identifier = request_id_of(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = identifier
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Request-ID"] = identifier
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            # The end of this request, whatever it was.
            self._logger.exception("request_failed", request_id=identifier, path=scope["path"][:255])
            if status == 0:
                answer = problem(INTERNAL.status, INTERNAL.title, identifier, code="INTERNAL")
                await answer(scope, receive, send_with_headers)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "unmatched")
            self._metrics.observe(scope["method"], path, status, time.perf_counter() - started)


class RateLimiting:
    """Per client address. Probes pass: an orchestrator that asks often must not look like an attack."""

    def __init__(self, app: ASGIApp, rate_limit: RateLimit) -> None:
        self._app = app
        self._rate_limit = rate_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in UNLIMITED_PATHS:
            await self._app(scope, receive, send)
            return
        wait_seconds = await self._rate_limit.retry_after_seconds(address_of(HTTPConnection(scope)))
        if wait_seconds is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": CLOSE_TRY_AGAIN, "reason": "too many requests"})
        else:
            await self._refuse(wait_seconds)(scope, receive, send)

    @staticmethod
    def _refuse(wait_seconds: float) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        error = TooManyRequestsError("too many requests", retry_after_seconds=round(wait_seconds, 1))

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            identifier = scope["state"]["request_id"]
            response = error_problem(error, identifier)
            if scope["path"] == JSONRPC_PATH:
                response.body = error_answer(None, rpc_error(error, identifier))
                response.status_code = HTTPStatus.OK
                response.headers["content-type"] = "application/json"
                response.headers["content-length"] = str(len(response.body))
            await response(scope, receive, send)

        return answer
