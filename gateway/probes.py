"""Probes: whether the process lives, whether the servers it needs answer, whether it has ever been ready."""

from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import JSONResponse

from engine.observability.readiness import PROBE_TIMEOUT_SECONDS, Probe, Readiness

__all__ = ["PROBE_TIMEOUT_SECONDS", "Probe", "Readiness", "probe_routes"]


def probe_routes(readiness: Readiness) -> APIRouter:
    router = APIRouter(tags=["probes"])

    @router.get("/health", summary="The process lives; no server is asked")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready", summary="Every server that the engine needs answers")
    async def ready() -> JSONResponse:
        servers = await readiness.check()
        ok = all(servers.values())
        body = {"status": "ready" if ok else "unavailable", "servers": servers}
        return JSONResponse(body, HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)

    @router.get("/startup", summary="Every server has answered at least once since the start")
    async def startup() -> JSONResponse:
        started = await readiness.started()
        body = {"status": "started" if started else "starting"}
        return JSONResponse(body, HTTPStatus.OK if started else HTTPStatus.SERVICE_UNAVAILABLE)

    return router
