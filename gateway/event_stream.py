"""Server-sent events: what the WebSocket sends, over plain HTTP, with the same cursor.

`GET /api/v1/executions/{execution_id}/events/stream`. Facts carry their sequence as `id`, which browsers send back as
`Last-Event-ID` when they reconnect by themselves. The last event is `end`, with the WebSocket's code and reason.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.contracts.views import ExecutionView
from engine.errors import EngineError, TooManyRequestsError
from gateway import websocket
from gateway.dependencies import GatewayDependencies
from gateway.operations.operation import Caller
from gateway.watching import SNAPSHOT, Rooms, Told
from gateway.websocket import (
    CLOSE_CODES,
    INTERNAL,
    REASONS,
    UNAUTHENTICATED,
    Stream,
    WatcherCount,
    admit,
    begin,
    cursor_of,
)

PATH: Final = "/api/v1/executions/{execution_id}/events/stream"
KEEP_ALIVE_SECONDS: Final = 15.0
CHUNK_BYTES: Final = 32 * 1024
RETRY_MS: Final = 2_000
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def event_stream_routes(dependencies: GatewayDependencies, rooms: Rooms, count: WatcherCount) -> APIRouter:
    router = APIRouter()

    @router.get(PATH, summary="The log and what happens, as server-sent events", tags=["executions"],
                response_class=Response, openapi_extra={"security": [{"bearer": []}]})  # fmt: skip
    async def endpoint(request: Request, execution_id: str) -> Response:
        caller, view = await admit(request, dependencies, execution_id)
        after = cursor_of(request.headers.get("last-event-id") or request.query_params.get("after"))
        if count.now >= websocket.WATCHERS_MAX:
            raise TooManyRequestsError("too many watchers", retry_after_seconds=10)
        return EventStream(dependencies, rooms, count, caller, view, after)

    return router


class EventStream(Response):
    """Sends until the execution is closed, the token expires, or the client goes or does not read."""

    def __init__(
        self,
        dependencies: GatewayDependencies,
        rooms: Rooms,
        count: WatcherCount,
        caller: Caller,
        view: ExecutionView,
        after: int | None,
    ) -> None:
        super().__init__(media_type="text/event-stream")
        self._dependencies = dependencies
        self._rooms = rooms
        self._count = count
        self._caller = caller
        self._view = view
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - the protocol's
        self._count.now += 1
        sender = asyncio.create_task(self._send_all(send), name="event-stream-send")
        reader = asyncio.create_task(_until_gone(receive), name="event-stream-read")
        try:
            await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._count.now -= 1
            for task in (sender, reader):
                task.cancel()
            await asyncio.wait({sender, reader})
        if not sender.cancelled() and (error := sender.exception()) is not None:
            raise error

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await _send(send, b"retry: %d\n\n" % RETRY_MS)
        with suppress(TimeoutError):  # it does not read: nothing more can be told
            try:
                code = await self._follow(send)
            except EngineError as error:
                code = CLOSE_CODES.get(error.code, INTERNAL)
            ending = orjson.dumps({"code": code, "reason": REASONS[code]})
            await _send(send, b"event: end\ndata: %b\n\n" % ending)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, send: Send) -> int:
        async with self._rooms.enter(self._caller.tenant, self._view.execution_id) as room:
            place, first = await begin(self._rooms, room, self._after)
            stream = Stream(place, first, self._caller.principal.expires_at, self._dependencies.stopping)
            sent_at = time.monotonic()
            while stream.ending is None:
                messages = await stream.next()
                if messages:
                    for chunk in _chunks(messages):
                        await _send(send, chunk)
                        if stream.expired:  # a long page and a slow reader: not after the token's end
                            return UNAUTHENTICATED
                elif time.monotonic() - sent_at > KEEP_ALIVE_SECONDS:
                    await _send(send, b": still here\n\n")
                else:
                    continue
                sent_at = time.monotonic()
            return stream.ending


def _event(message: Told) -> bytes:
    cursor = b"" if message.sequence is None or message.kind == SNAPSHOT else b"id: %d\n" % message.sequence
    return b"%bevent: %b\ndata: %b\n\n" % (cursor, message.kind.encode(), message.text.encode())


def _chunks(messages: list[Told]) -> Iterator[bytes]:
    """Small enough that one who does not read is noticed before much waits for them."""
    held = bytearray()
    for message in messages:
        held += _event(message)
        if len(held) >= CHUNK_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


async def _send(send: Send, body: bytes) -> None:
    async with asyncio.timeout(websocket.SEND_TIMEOUT_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
