"""Runs graphs on raw Temporal and reads their times from its history."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError

from benchmarks.baseline import READY, TASK_QUEUE, BaselineWorkflow
from benchmarks.engine import BrokenError, RunningEngine
from benchmarks.history import history_events
from benchmarks.results import NANOSECONDS_PER_MS
from benchmarks.shapes import Dependencies

STOP_TIMEOUT_SECONDS: Final = 20.0
GRAPH_TIMEOUT: Final = timedelta(minutes=10)
"""For 10,000 tasks: on a busy machine they take minutes."""


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Of one run of a graph, for either side: first task handed out to last task done, and the whole."""

    tasks_ms: float
    whole_ms: float


class Baseline:
    def __init__(self, process: "subprocess.Popen[str]", runner: asyncio.Runner, client: Client) -> None:
        self._process = process
        self._runner = runner
        self._client = client

    def run(self, graph: Dependencies) -> RunTimes:
        return self._runner.run(self._run(graph))

    def crowd(self, count: int, graph: Dependencies | None) -> float:
        """Seconds from the first request for one of that many workflows at once to the end of the last."""
        return float(self._asked("seconds", count=count, graph=graph))

    def paced(self, count: int, steps: int, duration_ms: int, between_seconds: float) -> list[float]:
        """Milliseconds from the end of one activity to the start of the next, of that many workflows at once."""
        given = {"count": count, "steps": steps, "duration_ms": duration_ms, "between_seconds": between_seconds}
        return [float(wait) for wait in self._asked("waits_ms", **given)]

    def _asked(self, wanted: str, **question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its worker has ended"}
        if wanted not in answer:
            raise BrokenError(f"the baseline: {answer['error']}")
        return answer[wanted]

    def history_events(self, workflow_id: str) -> tuple[int, int]:
        """(events, runs) of any workflow on the server."""
        return self._runner.run(history_events(self._client, workflow_id))

    async def _run(self, graph: Dependencies) -> RunTimes:
        began_ns = time.time_ns()
        handle = await self._client.start_workflow(
            BaselineWorkflow.run,
            graph,
            id=f"baseline-{uuid4()}",
            task_queue=TASK_QUEUE,
            execution_timeout=GRAPH_TIMEOUT,
        )
        try:
            done = await handle.result()
        except WorkflowFailureError as error:
            raise BrokenError(f"the baseline: {error.cause}") from error
        if done != len(graph):
            raise BrokenError(f"the baseline did {done} of {len(graph)} tasks")
        first_ns = last_ns = ended_ns = 0
        async for event in handle.fetch_history_events():
            at_ns = event.event_time.ToNanoseconds()
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                first_ns = first_ns or at_ns
            elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                last_ns = at_ns
            elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
                ended_ns = at_ns
        return RunTimes((last_ns - first_ns) / NANOSECONDS_PER_MS, (ended_ns - began_ns) / NANOSECONDS_PER_MS)


@contextmanager
def running_baseline(engine: RunningEngine) -> Iterator[Baseline]:
    """A worker process for it, on the engine's Temporal server."""
    address, namespace = engine.temporal_address, engine.temporal_namespace
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.baseline", address, namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != READY:
            raise BrokenError("the baseline's worker did not start")
        with asyncio.Runner() as runner:
            yield Baseline(process, runner, runner.run(Client.connect(address, namespace=namespace)))
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        finally:
            process.kill()  # nothing, once it has ended
            process.stdout.close()
