"""Events a second: progress reports from producers in processes of their own, through the engine's bridge, to the rows
that clients read.

Producers write at a fixed rate and never wait for the engine; the lag is how many entries of the streams nobody has
taken in, looked at ten times a second. What is offered must all be processed: in the end the streams are empty, the
dead letters too, and each task's row says what was said of it last.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import redis

from benchmarks.engine import BrokenError
from benchmarks.processes import spent
from benchmarks.results import CPU_SECONDS, Row, Target
from benchmarks.session import Session
from engine.contracts.streams import partition_of
from engine.events import keys

TENANT: Final = "default"
EXECUTIONS: Final = (10, 2)
TASKS: Final = 100
TASK_MS: Final = 3_600_000
SECONDS: Final = (60.0, 4.0)
OFFERED: Final = 100_000
HIGHEST: Final = (250_000, 400_000, 600_000)
SINGLES: Final = (40_000, 60_000)
QUICK_RATE: Final = 5_000
PACKED: Final = 500
LAG_MAX: Final = 100
LAG_POLL_SECONDS: Final = 0.1
SETTLED_SECONDS_MAX: Final = 60.0
START_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Poured:
    """One run of a producer."""

    rate: float
    """Events a second that were really written."""
    lags: tuple[float, ...]
    """Entries that nobody had taken in, all streams together."""
    settled_seconds: float
    """From the last write until nothing was left."""
    cpu_seconds: dict[str, float]


def events(session: Session) -> list[Row]:
    with _listeners(session) as executions:
        offered = _pour(session, executions, session.scaled(OFFERED, QUICK_RATE), PACKED)
        highest, kept = _highest(session, executions, session.scaled(HIGHEST, (QUICK_RATE,)), PACKED)
        singles, kept_singles = _highest(session, executions, session.scaled(SINGLES, (QUICK_RATE // 5,)), 1)
    lag = session.target(Target("p95", LAG_MAX))
    note = f"{PACKED} events an entry, producers of their own"
    return [
        Row(f"{OFFERED:,} events/s offered: lag", offered.lags, (), lag, note, "entries",
            offered.cpu_seconds, CPU_SECONDS),
        Row("events/s, the highest that was kept", (kept,), (), session.target(Target("p50", 250_000, at_least=True)),
            f"with a lag of p95 below {LAG_MAX} entries", "events/s", highest.cpu_seconds, CPU_SECONDS),
        Row("single events/s by XADD, the highest that was kept", (kept_singles,), (),
            session.target(Target("p50", 40_000, at_least=True)), "an event an entry", "events/s",
            singles.cpu_seconds, CPU_SECONDS),
    ]  # fmt: skip


def _highest(session: Session, executions: list[str], rates: tuple[int, ...], packed: int) -> tuple[Poured, float]:
    """The last rate that was kept, and 0 when none was; higher ones are not tried then."""
    best: tuple[Poured, float] | None = None
    for rate in rates:
        poured = _pour(session, executions, rate, packed)
        kept = poured.rate >= rate * 0.98 and sorted(poured.lags)[int(len(poured.lags) * 0.95)] < LAG_MAX
        if not kept:
            return best or (poured, 0.0)
        best = (poured, poured.rate)
    if best is None:
        raise BrokenError("no rate was tried")
    return best


@contextmanager
def _listeners(session: Session) -> Iterator[list[str]]:
    """Executions whose tasks all run, and have somebody who could tell of their progress."""
    count = session.scaled(*EXECUTIONS)
    tasks = [{"id": f"t{n}", "agent": "w", "input": {"duration_ms": TASK_MS}, "timeout_seconds": 86_400}
             for n in range(TASKS)]  # fmt: skip
    definition = {
        "name": "firehose", "version": "1", "orchestration_pattern": "supervisor", "tasks": tasks,
        "agents": {"w": {"type": "synthetic", "count": TASKS}}, "coordination": {"type": "graph_based"},
    }  # fmt: skip
    workflow_id = session.api.create(definition).result["workflow_id"]
    started = [session.api.execute(workflow_id, allow_concurrent=True).result["execution_id"] for _ in range(count)]
    try:
        for execution_id in started:
            _until(lambda e=execution_id: _running(session, e) == TASKS, START_SECONDS_MAX, "all tasks run")
        yield started
    finally:
        for execution_id in started:
            session.api.call("workflow.cancel", {"execution_id": execution_id})


def _running(session: Session, execution_id: str) -> int:
    items = session.api.get(f"/api/v1/executions/{execution_id}/tasks?limit=1000")["items"]
    return sum(item["state"] == "running" for item in items)


def _pour(session: Session, executions: list[str], rate: int, packed: int) -> Poured:
    seconds = session.scaled(*SECONDS)
    store = redis.Redis.from_url(session.engine.redis_url)
    partitions = len(store.keys(keys.partition_stream(TENANT, 0)[:-1] + "*"))
    streams = sorted({keys.partition_stream(TENANT, partition_of(e, partitions)) for e in executions})
    job = {
        "redis_url": session.engine.redis_url, "rate": rate, "packed": packed, "seconds": seconds, "tasks": TASKS,
        "targets": [[e, keys.partition_stream(TENANT, partition_of(e, partitions))] for e in executions],
    }  # fmt: skip
    before = session.engine.processes.cpu_seconds()
    command = [sys.executable, "-m", "benchmarks.producer"]
    producer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert producer.stdin is not None
        assert producer.stdout is not None
        producer.stdin.write(json.dumps(job) + "\n")
        producer.stdin.flush()
        lags = []
        while producer.poll() is None:
            lags.append(float(_lag(store, streams)))
            time.sleep(LAG_POLL_SECONDS)
        said = json.loads(producer.stdout.read())
    finally:
        producer.kill()
        producer.communicate()
    ended = time.monotonic()
    _until(lambda: _lag(store, streams) == 0, SETTLED_SECONDS_MAX, "everything is taken in")
    settled_seconds = time.monotonic() - ended
    _check(session, store, said["last"])
    store.close()
    after = spent(before, session.engine.processes.cpu_seconds())
    return Poured(said["events"] / said["seconds"], tuple(lags), settled_seconds, after)


def _lag(store: Any, streams: list[str]) -> int:
    """Entries that are still there: what was processed is deleted."""
    with store.pipeline(transaction=False) as pipe:
        for stream in streams:
            pipe.xlen(stream)
        return int(sum(pipe.execute()))


def _check(session: Session, store: Any, last: dict[str, dict[str, float]]) -> None:
    """Nothing was refused, and the rows say what was said last."""
    if store.xlen(keys.dead_letters(TENANT)):
        raise BrokenError("there are dead letters")

    def written() -> bool:
        for execution_id, expected in last.items():
            items = session.api.get(f"/api/v1/executions/{execution_id}/tasks?limit=1000")["items"]
            found = {item["task_id"]: item["progress"] for item in items}
            if any(abs((found[task_id] or 0) - value) > 0.001 for task_id, value in expected.items()):
                return False
        return True

    _until(written, SETTLED_SECONDS_MAX, "the rows say what was said last")


def _until(reached: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise BrokenError(f"not within {seconds:g} s: {what}")
        time.sleep(LAG_POLL_SECONDS)
