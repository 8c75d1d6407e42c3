"""Runs an agent's function for one attempt and says how it went. Never raises because of user code."""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from orchestration_agent.task import Task, TaskFailed
from orchestration_agent.wire import CODE_LENGTH_MAX, MESSAGE_LENGTH_MAX, RESULT_BYTES_MAX

logger = logging.getLogger("orchestration_agent")

Function = Callable[[Task], Any]


@dataclass(slots=True, frozen=True)
class Outcome:
    """Either `result` (JSON) or `error`."""

    result: bytes | None = None
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
        self._executor = None if self._asynchronous else ThreadPoolExecutor(threads_max, "agent")

    async def run(self, task: Task, on_thread: Callable[[asyncio.Future[Any]], None]) -> Outcome:
        """Raises CancelledError when the attempt is cancelled. `on_thread` gets the future of a thread's work,
        which may go on after that."""
        try:
            if self._executor is None:
                value = await self._function(task)
            else:
                future = asyncio.get_running_loop().run_in_executor(self._executor, self._function, task)
                on_thread(future)
                value = await asyncio.shield(future)
        except TaskFailed as failed:
            return failure(failed.code, failed.message, retryable=failed.retryable)
        except (Exception, SystemExit) as error:  # the task ends here, the host does not
            logger.error("%r failed:\n%s", task, traceback.format_exc())
            return failure("AGENT_ERROR", _describe(error), retryable=True)
        return encode_result(value)

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def encode_result(value: Any) -> Outcome:
    try:
        encoded = orjson.dumps(value)
    except TypeError as error:  # orjson's encoding error is one
        return failure("RESULT_NOT_JSON", f"the result cannot be written as JSON: {error}", retryable=False)
    if len(encoded) > RESULT_BYTES_MAX:
        message = f"the result has {len(encoded)} bytes as JSON, at most {RESULT_BYTES_MAX} are taken"
        return failure("RESULT_TOO_LARGE", message, retryable=False)
    return Outcome(result=encoded)


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
