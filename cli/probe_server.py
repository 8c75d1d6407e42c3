"""Probes for roles that serve no HTTP of their own: `/health`, `/ready` and `/startup` on `ORCHESTRATOR_PROBE_PORT`.

They run on the role's own event loop, so that one that hangs answers none of them.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from engine.errors import ConfigurationError
from engine.observability.readiness import Probe, Readiness
from engine.redis_addresses import addresses
from engine.settings import Settings

CONNECTIONS_MAX: Final = 64
STOP_SECONDS_MAX: Final = 3.0
CONNECT_SECONDS: Final = 1.5
"""Less than a probe has: a node that does not answer at all must not hide the others of its cluster."""


async def probed(settings: Settings, role: Callable[[], Awaitable[None]]) -> None:
    """Run the role, with probes beside it where a port is set for them."""
    async with probes_served(settings):
        await role()


@asynccontextmanager
async def probes_served(settings: Settings) -> AsyncIterator[None]:
    """For the time of the context. Raises ConfigurationError when the port cannot be had."""
    if settings.probe_port is None:
        yield
        return
    try:
        listener = socket.create_server((settings.host, settings.probe_port))
    except OSError as error:
        raise ConfigurationError(
            f"ORCHESTRATOR_PROBE_PORT {settings.probe_port} cannot be listened on: {error}"
        ) from error
    server = _server(settings)
    serving = asyncio.create_task(server.serve([listener]), name="probes")
    try:
        yield
    finally:
        server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(serving, STOP_SECONDS_MAX)


def _server(settings: Settings) -> Any:
    import uvicorn  # roles without probes do not pay for it

    class Server(uvicorn.Server):
        """Leaves signals to the role."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(
        uvicorn.Config(
            _application(Readiness(tuple(_server_probes(settings)))),
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="error",
            server_header=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=1,
        )
    )


def _application(readiness: Readiness) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Plain ASGI: the gateway's framework costs a worker more to import than it serves."""

    async def answer(path: str) -> tuple[HTTPStatus, dict[str, Any]]:
        if path == "/health":
            return HTTPStatus.OK, {"status": "ok"}
        if path == "/ready":
            servers = await readiness.check()
            ok, body = all(servers.values()), {"servers": servers}
            return _status(ok), {"status": "ready" if ok else "unavailable", **body}
        if path == "/startup":
            started = await readiness.started()
            return _status(started), {"status": "started" if started else "starting"}
        return HTTPStatus.NOT_FOUND, {"status": "there is /health, /ready and /startup"}

    async def application(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, body = await answer(scope["path"])
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    return application


def _status(ok: bool) -> HTTPStatus:
    return HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE


def _server_probes(settings: Settings) -> Iterator[Probe]:
    """Whether they take connections; the role itself, which ends when they do not do what they should, knows more."""
    yield Probe("postgresql", _connects([_address(settings.database_url.get_secret_value(), 5432)]))
    yield Probe("redis", _connects(addresses(settings.redis_url.get_secret_value())))
    yield Probe("temporal", _connects([_address(f"//{settings.temporal_address}", 7233)]))


def _address(url: str, port: int) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or port


def _connects(nodes: Sequence[tuple[str, int]]) -> Callable[[], Awaitable[None]]:
    """To one of them at least: a cluster goes on without one of its nodes, and so does who uses it."""

    async def connect() -> None:
        answers = await asyncio.gather(*(_connect(host, port) for host, port in nodes), return_exceptions=True)
        failures = [answer for answer in answers if answer is not None]
        if len(failures) == len(nodes):
            raise failures[0]

    return connect


async def _connect(host: str, port: int) -> None:
    _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_SECONDS)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
