"""Probes: whether the process lives, whether the servers it needs answer, whether it has ever been ready."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog
from fastapi import APIRouter
from starlette.responses import JSONResponse

PROBE_TIMEOUT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A server that must answer. `check` raises when it does not."""

    server: str
    check: Callable[[], Awaitable[object]]


class Readiness:
    def __init__(self, probes: tuple[Probe, ...]) -> None:
        self._probes = probes
        self._started = False

    async def check(self) -> dict[str, bool]:
        answers = await asyncio.gather(*(_answers(probe) for probe in self._probes))
        result = dict(zip((probe.server for probe in self._probes), answers, strict=True))
        self._started = self._started or all(answers)
        return result

    async def started(self) -> bool:
        """Stays true once everything has answered: what is lost later is readiness, not the start."""
        return self._started or all((await self.check()).values())


async def _answers(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            await probe.check()
    except Exception as error:
        # Whatever a client library raises, the server did not answer; which one it was is the answer.
        structlog.get_logger("gateway.probes").warning("probe_failed", server=probe.server, error=repr(error))
        return False
    return True


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
