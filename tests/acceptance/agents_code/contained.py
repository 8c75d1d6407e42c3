"""An agent for containers: says where it runs, and takes more memory than it may when asked to."""

import asyncio
import os
import sys
from typing import Any

from orchestration_agent import Task

BLOCK_BYTES = 8 * 1024**2


async def run(task: Task) -> dict[str, Any]:
    """`hog`: in the first attempt, memory until somebody ends it. `lasting`: the first attempt ends in no other way."""
    sys.stdout.write(f"working on {task.task_id}, attempt {task.attempt}\n")
    sys.stdout.flush()
    if task.attempt == 1 and task.input.get("hog"):
        held = []
        while True:
            held.append(bytearray(BLOCK_BYTES))
    while task.attempt == 1 and task.input.get("lasting"):  # noqa: ASYNC110 - it is to be ended from outside
        await asyncio.sleep(0.1)
    await asyncio.sleep(task.input.get("duration_ms", 0) / 1000)
    return {
        "pod": os.environ["HOSTNAME"],
        "user": os.getuid(),
        "token": os.access("/var/run/secrets/kubernetes.io", os.F_OK),
    }
