"""Probes: whether the process lives, whether it can do what it is for, whether it has ever been ready."""

from http import HTTPStatus
from typing import Any, Protocol

from fastapi import APIRouter
from starlette.responses import JSONResponse

from engine.observability.readiness import PROBE_TIMEOUT_SECONDS, Probe, Readiness

__all__ = ["PROBE_TIMEOUT_SECONDS", "Probe", "Readiness", "probe_routes"]


class Intake(Protocol):
    async def full(self) -> str | None:
        """Why no more work is to come at present; None when it may."""
        ...


def probe_routes(readiness: Readiness, intake: Intake | None = None) -> APIRouter:
    router = APIRouter(tags=["probes"])

    @router.get("/health", summary="The process lives; no server is asked")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    has_been_ready = False

    @router.get("/ready", summary="Every server that the engine needs answers, and the queue is not full")
    async def ready() -> JSONResponse:
        nonlocal has_been_ready
        servers = await readiness.check()
        if not all(servers.values()):
            return JSONResponse({"status": "unavailable", "servers": servers}, HTTPStatus.SERVICE_UNAVAILABLE)
        # Not asked at first: an engine starts with whatever waits for it.
        full = await intake.full() if intake is not None and has_been_ready else None
        has_been_ready = True
        body: dict[str, Any] = {"status": "ready", "servers": servers}
        if full is not None:
            body |= {"status": "full", "reason": full}
        return JSONResponse(body, HTTPStatus.OK if full is None else HTTPStatus.SERVICE_UNAVAILABLE)

    @router.get("/startup", summary="Every server has answered at least once since the start")
    async def startup() -> JSONResponse:
        started = await readiness.started()
        body = {"status": "started" if started else "starting"}
        return JSONResponse(body, HTTPStatus.OK if started else HTTPStatus.SERVICE_UNAVAILABLE)

    return router
