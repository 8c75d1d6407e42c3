"""Whether the servers that a process needs answer, and whether they ever have."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from engine.observability.log import get_logger

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
        get_logger(__name__).warning("probe_failed", server=probe.server, error=repr(error))
        return False
    return True
