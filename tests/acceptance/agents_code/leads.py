"""Leads of a hierarchy that take their time: the chief passes every failure on, the director settles it."""

import asyncio
from typing import Any

from orchestration_agent import Task

SECONDS = 0.3


async def run(task: Task) -> dict[str, Any]:
    await asyncio.sleep(SECONDS)
    if task.role == "chief":
        return {"decision": "escalate", "reason": "above a chief"}
    return {"decision": "resolve", "result": {"settled": task.context["escalation"]["task_id"]}}
