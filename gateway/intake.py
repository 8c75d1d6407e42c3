"""Whether the engine can take more work: the queue of what waits for capacity, and the event streams."""

import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

import structlog

from engine.contracts.pressure import Pressure
from engine.errors import EngineError
from gateway.operations.operation import LoadGauge

FRESH_SECONDS: Final = 2.0
"""Probes come from many sides: the sums are read no more often."""


class Waiting(Protocol):
    @property
    def waiting(self) -> Mapping[Any, int]: ...


class QueueTotals(Protocol):
    async def totals(self) -> Waiting: ...


class QueueIntake:
    """Implements `gateway.probes.Intake`."""

    def __init__(self, queue: QueueTotals, waiting_max: int, pressure: LoadGauge) -> None:
        self._queue = queue
        self._waiting_max = waiting_max
        self._pressure = pressure
        self._read_at = float("-inf")
        self._full: str | None = None

    async def full(self) -> str | None:
        now = time.monotonic()
        if now - self._read_at >= FRESH_SECONDS:
            self._read_at = now
            self._full = await self._look()
        return self._full

    async def _look(self) -> str | None:
        if await self._pressure.level() is Pressure.STOP:
            return "the event streams are almost full"
        try:
            waiting = sum((await self._queue.totals()).waiting.values())
        except EngineError as error:
            # That a server is away is what the other probes say.
            structlog.get_logger("gateway.intake").warning("intake.not_read", error=str(error))
            return None
        if waiting >= self._waiting_max:
            return f"{waiting} executions wait for capacity: {self._waiting_max} may"
        return None
