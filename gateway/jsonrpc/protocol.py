"""JSON-RPC 2.0 itself: requests, answers, batches, notifications. Knows nothing of this engine.

Written here because the libraries for it refuse positional parameters, encode results twice or reject a whole
batch for one bad member. https://www.jsonrpc.org/specification
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.errors import INVALID_REQUEST, PARSE_ERROR, TOO_LARGE

CONCURRENT_CALLS_MAX: Final = 8
"""Of one batch: more would let one request take all database connections."""

BATCH_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""Calls of a batch whose answers have reached this are refused: the answers are in memory until all are there."""

ID_LENGTH_MAX: Final = 1024

RequestId = str | int | float | None


class RpcError(Exception):
    """An error as it is answered."""

    def __init__(self, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class Call:
    """`params` as it was sent: named, positional, or none at all."""

    method: str
    params: dict[str, Any] | list[Any] | None
    id: RequestId
    notification: bool


Handler = Callable[[Call], Awaitable[Any]]
"""Answers a call or raises RpcError; anything else that it raises is its own affair to prevent."""


def parse_call(value: Any) -> Call:
    """Raises RpcError (-32600) for what is not a request object."""
    if not isinstance(value, dict):
        raise RpcError(INVALID_REQUEST, "Invalid Request")
    method, params, identifier = value.get("method"), value.get("params"), value.get("id")
    if value.get("jsonrpc") != "2.0" or not isinstance(method, str) or not _is_id(identifier):
        raise RpcError(INVALID_REQUEST, "Invalid Request")
    if "params" in value and not isinstance(params, dict | list):
        raise RpcError(INVALID_REQUEST, "Invalid Request", {"reason": "params must be an object or an array"})
    return Call(method, params, identifier, notification="id" not in value)


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= ID_LENGTH_MAX
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def id_of(value: Any) -> RequestId:
    """The id of what may not even be a request: null where there is none that counts."""
    identifier = value.get("id") if isinstance(value, dict) else None
    return identifier if _is_id(identifier) else None


async def respond(value: Any, handler: Handler, batch_max: int) -> bytes | None:
    """Answer a parsed body: one request or a batch. None where nothing is to be answered (notifications)."""
    if not isinstance(value, list):
        return await _respond_one(value, handler)
    if not value:
        return error_answer(None, RpcError(INVALID_REQUEST, "Invalid Request", {"reason": "empty batch"}))
    if len(value) > batch_max:
        return error_answer(
            None, RpcError(INVALID_REQUEST, "Invalid Request", {"reason": f"over {batch_max} calls in a batch"})
        )
    slots = asyncio.Semaphore(CONCURRENT_CALLS_MAX)
    answered_bytes = 0

    async def while_answers_fit(call: Call) -> Any:
        if answered_bytes >= BATCH_ANSWER_BYTES_MAX and not call.notification:
            raise RpcError(TOO_LARGE, "Too large: the batch's answers; call the rest again", {"code": "TOO_LARGE"})
        return await handler(call)

    async def limited(item: Any) -> bytes | None:
        nonlocal answered_bytes
        async with slots:
            answer = await _respond_one(item, while_answers_fit)
            answered_bytes += len(answer) if answer is not None else 0
            return answer

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(limited(item)) for item in value]
    answers = [answer for task in tasks if (answer := task.result()) is not None]
    return b"[" + b",".join(answers) + b"]" if answers else None


async def _respond_one(value: Any, handler: Handler) -> bytes | None:
    try:
        call = parse_call(value)
    except RpcError as error:
        return error_answer(id_of(value), error)
    try:
        result = await handler(call)
    except RpcError as error:
        return None if call.notification else error_answer(call.id, error)
    return None if call.notification else _answer(call.id, "result", result)


def error_answer(identifier: RequestId, error: RpcError) -> bytes:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return _answer(identifier, "error", body)


def parse_error_answer(reason: str) -> bytes:
    return error_answer(None, RpcError(PARSE_ERROR, "Parse error", {"reason": reason}))


def _answer(identifier: RequestId, member: str, value: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", member: value, "id": identifier}, default=str)
