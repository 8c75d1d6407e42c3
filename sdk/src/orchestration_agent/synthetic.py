"""The built-in agent for tests and benchmarks: it does what its task's input says.

- `duration_ms`: how long it takes (0)
- `result`: what it returns; `{"task": <task_id>}` when absent
- `fail_times`: attempts 1 to n fail
- `fail`: every attempt fails, with this message
- `spawn`: tasks that it adds, objects as in a definition
- `progress`: number of progress updates, spread over the duration
- `compensation`: the same for undoing the task; with `never_happened` it says that there is nothing to undo

Failures are retryable and have the code SYNTHETIC_FAILURE; an input that makes no sense fails for good with
INVALID_INPUT.
"""

import asyncio
from typing import Any

from orchestration_agent.task import NeverHappened, Spawned, Task, TaskFailed

DURATION_MS_MAX = 7 * 24 * 3600 * 1000
UPDATES_MAX = 10_000


async def run(task: Task) -> Any:
    request = task.input if task.compensates is None else _compensation(task.input)
    duration_ms = _number(request, "duration_ms", DURATION_MS_MAX)
    updates = int(_number(request, "progress", UPDATES_MAX))
    steps = max(1, updates)
    for step in range(1, steps + 1):
        if duration_ms:
            await asyncio.sleep(duration_ms / steps / 1000)
        if updates:
            await task.progress(step / steps)
    if request.get("never_happened"):
        raise NeverHappened
    if "fail" in request:
        raise TaskFailed(str(request["fail"]), code="SYNTHETIC_FAILURE", retryable=True)
    if task.attempt <= _number(request, "fail_times", 1_000_000):
        raise TaskFailed(f"attempt {task.attempt} fails as asked", code="SYNTHETIC_FAILURE", retryable=True)
    result = request.get("result", {"task": task.task_id})
    return Spawned(result, _tasks(request["spawn"])) if "spawn" in request else result


def _compensation(given: dict[str, Any]) -> dict[str, Any]:
    """Undoing does not do again what the task's own input asks for."""
    value = given.get("compensation", {})
    if not isinstance(value, dict):
        raise TaskFailed("compensation is an object", code="INVALID_INPUT")
    return value


def _tasks(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise TaskFailed("spawn is a list of tasks", code="INVALID_INPUT")
    return value


def _number(request: dict[str, Any], name: str, maximum: float) -> float:
    value = request.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= maximum:
        raise TaskFailed(f"{name} is {value!r}: give a number from 0 to {maximum}", code="INVALID_INPUT")
    return value
