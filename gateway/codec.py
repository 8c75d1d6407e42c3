"""The codec endpoint: lets Temporal's UI and command show payloads that are stored compressed."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.errors import InvalidParametersError
from engine.security.permissions import Permission
from engine.settings import Settings
from engine.temporal.remote_codec import Direction, transcode
from gateway.dependencies import GatewayDependencies
from gateway.http import authenticate
from gateway.json_body import parse_json, read_body

PREFIX: Final = "/api/v1/codec"
CONCURRENT_MAX: Final = 2
"""Each may take some megabytes and a core for a moment."""

_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID")


def codec_routes(dependencies: GatewayDependencies) -> APIRouter:
    router = APIRouter(prefix=PREFIX)
    slots = asyncio.Semaphore(CONCURRENT_MAX)
    for direction in get_args(Direction):
        router.add_api_route(
            f"/{direction}",
            _endpoint(dependencies, direction, slots),
            methods=["POST"],
            name=f"codec.{direction}",
            summary=f"Temporal's remote codec: {direction} payloads; nothing but compression is done",
            tags=["codec"],
            response_class=Response,
            openapi_extra={"security": [{"bearer": []}]},
        )
    return router


def _endpoint(dependencies: GatewayDependencies, direction: Direction, slots: asyncio.Semaphore) -> Any:
    settings = dependencies.settings

    async def endpoint(request: Request) -> Response:
        principal = await authenticate(request, dependencies)
        principal.require(Permission.WORKFLOW_READ)
        namespace = request.headers.get("x-namespace")
        if namespace is not None and namespace != settings.temporal_namespace:
            raise InvalidParametersError("X-Namespace names another namespace than this engine's")
        document = parse_json(await read_body(request, settings.request_bytes_max))
        async with slots:
            answer = await asyncio.to_thread(transcode, direction, document, principal.tenant)
        return Response(orjson.dumps(answer), media_type="application/json")

    return endpoint


class CrossOrigin:
    """CORS: the operator's origins everywhere, Temporal's UI at the codec endpoint and nowhere else."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._general = _cors(app, settings.allowed_origins, ("GET", "POST", "DELETE"), _HEADERS)
        origins = (*settings.allowed_origins, *_origin(settings.temporal_ui_url))
        self._codec = _cors(app, origins, ("POST",), (*_HEADERS, "X-Namespace"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        codec = scope["type"] == "http" and scope["path"].startswith(f"{PREFIX}/")
        await (self._codec if codec else self._general)(scope, receive, send)


def _cors(app: ASGIApp, origins: Sequence[str], methods: Sequence[str], headers: Sequence[str]) -> CORSMiddleware:
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=methods,
        allow_headers=headers,
        expose_headers=["Location", "Retry-After", "X-Request-ID"],
    )


def _origin(url: str | None) -> tuple[str, ...]:
    """As a browser sends it: without the path."""
    if url is None:
        return ()
    parts = urlsplit(url)
    return (f"{parts.scheme}://{parts.netloc}",)
