"""How long a circuit breaker takes to reject: from what a process remembers, and asked on the server."""

import asyncio
import time
from typing import Final

from benchmarks.engine import BrokenError
from benchmarks.results import NANOSECONDS_PER_MS, Row, Target, percentile
from benchmarks.session import Session
from engine.breakers import CircuitBreaker
from engine.contracts.circuits import CircuitAsk, CircuitRule
from engine.errors import CircuitOpenError
from engine.events.breakers import RedisBreakers
from engine.events.connection import connect
from engine.events.functions import Functions
from engine.settings import Settings

CALLS: Final = 10_000
SERVICE: Final = "benchmark"
RULE: Final = CircuitRule(timeout_ms=3_600_000)
TARGET: Final = Target("p95", 10)


def breakers(session: Session) -> list[Row]:
    calls = session.scaled(CALLS, CALLS // 10)
    remembered, asked = asyncio.run(_rejections(session.engine.redis_url, int(calls)))
    return [
        _row(f"breaker rejects, remembered, {calls:,} calls", remembered),
        _row(f"breaker rejects, asked in Redis, {calls:,} calls", asked),
    ]


def _row(name: str, samples: tuple[float, ...]) -> Row:
    details = {"p99": percentile(samples, 99), "max": max(samples)}
    return Row(name, samples, target=TARGET, details=details, details_of="ms")


async def _rejections(redis_url: str, calls: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    redis = connect(Settings.model_validate({"redis_url": redis_url}))
    store = RedisBreakers(redis, Functions(redis))
    breaker = CircuitBreaker(SERVICE, store, RULE)
    remembered: list[float] = []
    asked: list[float] = []
    try:
        for _ in range(RULE.failure_threshold):
            await breaker.record_failure(await breaker.admit())
        for n in range(calls):
            began = time.perf_counter_ns()
            try:
                await breaker.admit()
            except CircuitOpenError:
                remembered.append((time.perf_counter_ns() - began) / NANOSECONDS_PER_MS)
            ask = CircuitAsk(service=SERVICE, wanted=(f"call-{n}",))
            began = time.perf_counter_ns()
            (view,) = await store.consult(None, RULE, [ask], "benchmark")
            asked.append((time.perf_counter_ns() - began) / NANOSECONDS_PER_MS)
            if view.admitted:
                raise BrokenError("an open breaker admitted a call")
    finally:
        await store.reset(None, SERVICE)
        await redis.aclose()
    if len(remembered) != calls:
        raise BrokenError(f"{calls - len(remembered)} of {calls} calls were not rejected")
    return tuple(remembered), tuple(asked)
