"""Request bodies: read up to a limit, and parsed as JSON that can be stored and written again.

Refused beside malformed JSON: NaN and infinities, numbers too large for a double, unpaired surrogates, NUL
characters (PostgreSQL has no place for them), duplicate keys (readers disagree on which one counts) and nesting
deeper than any definition needs.
"""

import asyncio
import json
from contextlib import suppress
from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect, Request

from engine.errors import TooLargeError

DEPTH_MAX: Final = 64
READ_TIMEOUT_SECONDS: Final = 30.0
DRAIN_BYTES_MAX: Final = 32 * 1024 * 1024
DRAIN_TIMEOUT_SECONDS: Final = 5.0


class MalformedBodyError(Exception):
    """The body is not JSON that we take; the message says why."""


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The whole body. Raises TooLargeError for one byte too many, MalformedBodyError when it does not arrive.

    A body that is too large is read on for a while and dropped: a client that is still sending when the
    connection closes would see a reset instead of the answer.
    """
    chunks: list[bytes] = []
    size = 0
    stream = request.stream()
    try:
        async with asyncio.timeout(READ_TIMEOUT_SECONDS):
            async for chunk in stream:
                size += len(chunk)
                if size > bytes_max:
                    break
                chunks.append(chunk)
    except TimeoutError as error:
        raise MalformedBodyError("the body did not arrive in time") from error
    except ClientDisconnect as error:
        raise MalformedBodyError("the connection closed before the body had arrived") from error
    if size <= bytes_max:
        return b"".join(chunks)
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DRAIN_TIMEOUT_SECONDS):
            async for chunk in stream:
                size += len(chunk)
                if size > DRAIN_BYTES_MAX:
                    break
    raise TooLargeError(f"the body must not exceed {bytes_max} bytes", bytes_max=bytes_max)


def parse_json(body: bytes) -> Any:
    """Raises MalformedBodyError."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBodyError(f"the body is not valid JSON: {error.msg}, at character {error.pos}") from error
    _check_depth(value)
    if b"\\u0000" in body:
        _check_nul(value)
    try:
        # orjson keeps the last of duplicate keys and does not tell; the standard library does.
        json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise MalformedBodyError("the body is not valid JSON") from error
    return value


def _check_depth(value: Any) -> None:
    """Level by level rather than by recursion, which deep nesting would exhaust."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEPTH_MAX):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise MalformedBodyError(f"the body is nested more than {DEPTH_MAX} levels deep")


def _check_nul(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str) and "\x00" in item:
            raise MalformedBodyError("the body contains the character U+0000")


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise MalformedBodyError("the body has the same key twice in one object")
