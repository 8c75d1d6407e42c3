"""Raw Temporal: the same graph with an activity a task, as the SDK's documentation would have it, and empty workflows.

Its worker runs in a process of its own, as the engine's does, and on the engine's own tuned server:
`python -m benchmarks.baseline ADDRESS NAMESPACE`. It is tuned for throughput: no sandbox, many activities and workflow
tasks at once, all workflows in the cache, eager activities and, for many workflows at once, an eager first workflow
task, which only a client in the worker's process can have. So this process starts those, as a line on its standard
input says, and answers with a line.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

TASK_QUEUE: Final = "benchmark-baseline"
READY: Final = "ready"
ACTIVITY_TIMEOUT: Final = timedelta(seconds=600)
AT_ONCE: Final = 500
PENDING_MAX: Final = 1_900
"""The server refuses a workflow's 2,001st pending activity, and then the workflow stands still."""

CACHED_WORKFLOWS: Final = 2_000
STARTS_AT_ONCE: Final = 32
"""More are slower: they starve each other in this process."""
POLL_SECONDS: Final = 0.25
CROWD_TIMEOUT_SECONDS: Final = 120.0


@activity.defn
async def no_op(task: int) -> dict[str, str]:
    """Answers what a synthetic agent does."""
    return {"task": f"task-{task}"}


@workflow.defn(failure_exception_types=[Exception])
class BaselineWorkflow:
    """Starts each task's activity when the activities that it depends on are done."""

    @workflow.run
    async def run(self, graph: list[list[int]]) -> int:
        pending = asyncio.Semaphore(PENDING_MAX)
        done: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in graph]

        async def task(number: int, befores: list[int]) -> None:
            for before in befores:
                await done[before]
            async with pending:
                await workflow.execute_activity(no_op, number, start_to_close_timeout=ACTIVITY_TIMEOUT)
            done[number].set_result(None)

        await asyncio.gather(*(task(number, befores) for number, befores in enumerate(graph)))
        return len(graph)


@activity.defn
async def timed(duration_ms: int) -> list[float]:
    """When it began and ended, by its own clock."""
    began = time.time()
    await asyncio.sleep(duration_ms / 1000)
    return [began, time.time()]


@workflow.defn
class PacedWorkflow:
    """One activity after another; how long after the end of one the next began, in milliseconds."""

    @workflow.run
    async def run(self, steps: int, duration_ms: int) -> list[float]:
        times = [
            await workflow.execute_activity(timed, duration_ms, start_to_close_timeout=ACTIVITY_TIMEOUT)
            for _ in range(steps)
        ]
        return [(later[0] - earlier[1]) * 1000 for earlier, later in pairwise(times)]


@workflow.defn
class EmptyWorkflow:
    """Does nothing: what a server's start and end of a workflow cost."""

    @workflow.run
    async def run(self) -> None:
        return


async def crowd(client: Client, count: int, graph: list[list[int]] | None) -> dict[str, Any]:
    """So many workflows at once, of that graph or empty. From the first request to the last recorded end."""
    name = f"crowd-{uuid4()}"
    gate = asyncio.Semaphore(STARTS_AT_ONCE)

    async def start(number: int) -> None:
        async with gate:
            await client.start_workflow(
                "EmptyWorkflow" if graph is None else "BaselineWorkflow",
                args=[] if graph is None else [graph],
                id=f"{name}-{number}",
                task_queue=TASK_QUEUE,
                request_eager_start=True,
            )

    began = datetime.now(UTC)
    await asyncio.gather(*(start(number) for number in range(count)))
    # Waiting for each result would cost the server another call a workflow: ask how many have ended instead.
    ended = f"WorkflowId BETWEEN '{name}' AND '{name}.' AND ExecutionStatus = 'Completed'"
    deadline = time.monotonic() + CROWD_TIMEOUT_SECONDS
    while (await client.count_workflows(ended)).count < count:
        if time.monotonic() > deadline:
            return {"error": f"not all of {count} workflows ended within {CROWD_TIMEOUT_SECONDS:g} s"}
        await asyncio.sleep(POLL_SECONDS)
    ends = [found.close_time async for found in client.list_workflows(ended) if found.close_time is not None]
    return {"seconds": (max(ends) - began).total_seconds()}


async def paced(client: Client, count: int, steps: int, duration_ms: int, between_seconds: float) -> dict[str, Any]:
    """So many workflows that begin one after the other; the waits of all."""
    handles = []
    for number in range(count):
        handles.append(
            await client.start_workflow(
                PacedWorkflow.run,
                args=[steps, duration_ms],
                id=f"paced-{uuid4()}-{number}",
                task_queue=TASK_QUEUE,
            )
        )
        await asyncio.sleep(between_seconds)
    waits = await asyncio.gather(*(handle.result() for handle in handles))
    return {"waits_ms": [wait for one in waits for wait in one]}


async def serve(address: str, namespace: str) -> None:
    """Until standard input ends, which it does with whoever started this process."""
    client = await Client.connect(address, namespace=namespace)
    async with Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[BaselineWorkflow, EmptyWorkflow, PacedWorkflow],
        activities=[no_op, timed],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=CACHED_WORKFLOWS,
        max_concurrent_activities=AT_ONCE,
        max_concurrent_workflow_tasks=AT_ONCE,
    ):
        print(READY, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            kind = paced if "steps" in asked else crowd
            print(json.dumps(await kind(client, **asked)), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:3]))
