"""The gateway as an ASGI application, made of what it is given."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from engine.errors import EngineError, InvalidParametersError
from engine.security.permissions import Permission
from gateway.codec import CrossOrigin, codec_routes
from gateway.dependencies import GatewayDependencies
from gateway.event_stream import event_stream_routes
from gateway.http import authenticate, error_problem, problem, request_id
from gateway.json_body import MalformedBodyError
from gateway.jsonrpc.endpoint import jsonrpc_routes
from gateway.metrics import HttpMetrics
from gateway.middleware import RateLimiting, RequestEnvelope
from gateway.openapi import install_openapi
from gateway.pages import page_routes
from gateway.probes import Readiness, probe_routes
from gateway.rest.endpoint import rest_routes
from gateway.watching import Rooms
from gateway.websocket import WatcherCount, websocket_routes

VERSION: Final = "0.1.0"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _no_lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


def create_app(dependencies: GatewayDependencies, lifespan: Lifespan = _no_lifespan) -> FastAPI:
    app = FastAPI(
        title="Orchestration Engine",
        version=VERSION,
        description="Durable orchestration of many agents. All calls need a bearer token, except probes and pages.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestEnvelope, metrics=HttpMetrics(dependencies.registry)),
            Middleware(CrossOrigin, settings=dependencies.settings),
            Middleware(RateLimiting, rate_limit=dependencies.rate_limit),
        ],
    )
    app.include_router(jsonrpc_routes(dependencies))
    app.include_router(rest_routes(dependencies))
    app.include_router(codec_routes(dependencies))
    rooms, watchers = Rooms(dependencies.executions, dependencies.feed), WatcherCount()
    app.include_router(websocket_routes(dependencies, rooms, watchers))
    app.include_router(event_stream_routes(dependencies, rooms, watchers))
    app.include_router(probe_routes(Readiness(dependencies.probes), dependencies.intake))
    app.include_router(page_routes(dependencies))
    app.add_exception_handler(EngineError, _engine_error)
    app.add_exception_handler(MalformedBodyError, _malformed_body)
    app.add_exception_handler(HTTPException, _http_exception)
    _add_metrics(app, dependencies)
    operations = dependencies.operations
    install_openapi(app, [operations[name] for name in operations.names()])
    return app


def _add_metrics(app: FastAPI, dependencies: GatewayDependencies) -> None:
    @app.get("/metrics", tags=["probes"], summary="Figures in Prometheus' text format; needs a token")
    async def metrics(request: Request) -> Response:
        principal = await authenticate(request, dependencies)
        principal.require(Permission.WORKFLOW_READ)
        if dependencies.figures is not None:
            await dependencies.figures.refresh()
        return Response(generate_latest(dependencies.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)  # noqa: S101 - registered for this type
    return error_problem(error, request_id(request))


async def _malformed_body(request: Request, error: Exception) -> Response:
    return error_problem(InvalidParametersError(str(error)), request_id(request))


async def _http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    status = HTTPStatus(error.status_code)
    return problem(status, status.phrase, request_id(request), code=status.name, headers=error.headers)
