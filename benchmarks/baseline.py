"""Raw Temporal: the same graph with an activity a task, as the SDK's documentation would have it.

Its worker runs in a process of its own, as the engine's does, and on the engine's own tuned server:
`python -m benchmarks.baseline ADDRESS NAMESPACE`.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Final

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

TASK_QUEUE: Final = "benchmark-baseline"
READY: Final = "ready"
ACTIVITY_TIMEOUT: Final = timedelta(seconds=60)


@activity.defn
async def no_op(task: int) -> dict[str, str]:
    """Answers what a synthetic agent does."""
    return {"task": f"task-{task}"}


@workflow.defn(failure_exception_types=[Exception])
class BaselineWorkflow:
    """Starts each task's activity when the activities that it depends on are done."""

    @workflow.run
    async def run(self, graph: list[list[int]]) -> int:
        tasks: list[asyncio.Task[None]] = []
        for number, befores in enumerate(graph):
            tasks.append(asyncio.create_task(self._task(number, [tasks[before] for before in befores])))
        await asyncio.gather(*tasks)
        return len(tasks)

    async def _task(self, number: int, befores: "list[asyncio.Task[None]]") -> None:
        for before in befores:
            await before
        await workflow.execute_activity(no_op, number, start_to_close_timeout=ACTIVITY_TIMEOUT)


async def serve(address: str, namespace: str) -> None:
    """Until standard input ends, which it does with whoever started this process."""
    client = await Client.connect(address, namespace=namespace)
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[BaselineWorkflow], activities=[no_op]):
        print(READY, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:3]))
