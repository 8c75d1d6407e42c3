"""Runs an agent's function for one attempt and says how it went. Never raises because of user code."""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from orchestration_agent.task import Spawned, Task, TaskFailed
from orchestration_agent.threads import Threads
from orchestration_agent.wire import (
    CODE_LENGTH_MAX,
    MESSAGE_LENGTH_MAX,
    RESULT_BYTES_MAX,
    SPAWN_BYTES_MAX,
    SPAWN_TASKS_MAX,
)

logger = logging.getLogger("orchestration_agent")

Function = Callable[[Task], Any]


@dataclass(slots=True, frozen=True)
class Outcome:
    """Either `result` (JSON) or `error`; with a result, the tasks that it adds (JSON)."""

    result: bytes | None = None
    spawn: bytes | None = None
    error: dict[str, Any] | None = None


def failure(code: str, message: str, *, retryable: bool) -> Outcome:
    return Outcome(
        error={
            "code": code[:CODE_LENGTH_MAX],
            "message": message[:MESSAGE_LENGTH_MAX],
            "retryable": retryable,
        }
    )


class Runner:
    """Coroutine functions run in the event loop, plain functions in threads."""

    def __init__(self, function: Function, threads_max: int) -> None:
        self._function = function
        self._asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is a coroutine function
        )
        self._threads = None if self._asynchronous else Threads(threads_max)

    async def run(self, task: Task, on_thread: Callable[[asyncio.Future[Any]], None]) -> Outcome:
        """Raises CancelledError when the attempt is cancelled. `on_thread` gets the future of a thread's work,
        which may go on after that."""
        try:
            if self._threads is None:
                value = await self._function(task)
            else:
                future = self._threads.run(self._function, task)
                on_thread(future)
                value = await asyncio.shield(future)
        except TaskFailed as failed:
            return failure(failed.code, failed.message, retryable=failed.retryable)
        except (Exception, SystemExit) as error:  # the task ends here, the host does not
            logger.error("%r failed:\n%s", task, traceback.format_exc())
            return failure("AGENT_ERROR", _describe(error), retryable=True)
        return encode_result(value, task.spawned)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.close()


def encode_result(value: Any, spawned: Sequence[Any] = ()) -> Outcome:
    if isinstance(value, Spawned):
        value, spawned = value.result, [*spawned, *value.tasks]
    try:
        encoded = orjson.dumps(value)
    except TypeError as error:  # orjson's encoding error is one
        return failure("RESULT_NOT_JSON", f"the result cannot be written as JSON: {error}", retryable=False)
    if len(encoded) > RESULT_BYTES_MAX:
        message = f"the result has {len(encoded)} bytes as JSON, at most {RESULT_BYTES_MAX} are taken"
        return failure("RESULT_TOO_LARGE", message, retryable=False)
    return _with_spawned(encoded, spawned) if spawned else Outcome(result=encoded)


def _with_spawned(result: bytes, tasks: Sequence[Any]) -> Outcome:
    if len(tasks) > SPAWN_TASKS_MAX:
        message = f"the result adds {len(tasks)} tasks, at most {SPAWN_TASKS_MAX} are taken"
        return failure("SPAWN_TOO_LARGE", message, retryable=False)
    for task in tasks:
        if not isinstance(task, dict) or not isinstance(task.get("id"), str) or not isinstance(task.get("agent"), str):
            message = f"a task to add is an object with id and agent, as in a definition; this is {task!r}"
            return failure("SPAWN_INVALID", message, retryable=False)
    try:
        encoded = orjson.dumps(tasks)
    except TypeError as error:
        return failure("SPAWN_INVALID", f"the tasks to add cannot be written as JSON: {error}", retryable=False)
    if len(encoded) > SPAWN_BYTES_MAX:
        message = f"the tasks to add have {len(encoded)} bytes as JSON, at most {SPAWN_BYTES_MAX} are taken"
        return failure("SPAWN_TOO_LARGE", message, retryable=False)
    return Outcome(result=result, spawn=encoded)


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
