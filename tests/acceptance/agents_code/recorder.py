"""An agent that writes down what it does, so that a test knows it from somebody other than the engine."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from orchestration_agent import Task


async def run(task: Task) -> dict[str, Any]:
    """Takes `duration_ms`; one line in the file at the beginning and one at the end, each in one write.

    With `held`, it goes on only once the test has released it, however fast or slow the machine is.
    """
    _write(task, "began")
    await asyncio.sleep(task.input.get("duration_ms", 0) / 1000)
    while task.input.get("held", False) and not _released(task):  # noqa: ASYNC110 - another process decides
        await asyncio.sleep(0.02)
    _write(task, "ended")
    return {"task": task.task_id, "results": sorted(task.results)}


def _released(task: Task) -> bool:
    return Path(f"{os.environ['RECORDER_FILE']}.{task.execution_id}.{task.task_id}").exists()


def _write(task: Task, what: str) -> None:
    line = {
        "execution_id": task.execution_id,
        "task_id": task.task_id,
        "epoch": task.epoch,
        "attempt": task.attempt,
        "what": what,
        "pid": os.getpid(),
        "at": time.time(),
    }
    # An append of one small write is not torn, whatever happens to the process.
    descriptor = os.open(os.environ["RECORDER_FILE"], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)
