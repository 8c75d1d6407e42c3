"""`/ws/workflows/{execution_id}`: a snapshot, the execution's audit log from a given sequence on, then live to its end.

Without a cursor the snapshot comes first and then the whole log; with `?after=now` the snapshot and what comes after
it; with `?after=<last sequence>`, which is how a watcher comes back, only what it has not had.
"""

import asyncio
import re
import time
from typing import Final

import structlog
from fastapi import APIRouter
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.contracts.views import ExecutionView
from engine.errors import EngineError, InvalidParametersError, UnauthenticatedError
from gateway.dependencies import GatewayDependencies
from gateway.http import address_of, base_url, caller_of, request_id
from gateway.operations.operation import Caller
from gateway.watch_access import watching_principal
from gateway.watching import POLL_SECONDS, SNAPSHOT, Place, Room, Rooms, Told

WATCHERS_MAX: Final = 2_000
SEND_TIMEOUT_SECONDS: Final = 10.0
CLOSE_TIMEOUT_SECONDS: Final = 5.0

CLOSED: Final = 1000
GOING_AWAY: Final = 1001
INTERNAL: Final = 1011
TRY_LATER: Final = 1013
UNAUTHENTICATED: Final = 4401
FORBIDDEN: Final = 4403
NOT_FOUND: Final = 4404
TOO_SLOW: Final = 4408

CLOSE_CODES: Final = {
    "UNAUTHENTICATED": UNAUTHENTICATED,
    "FORBIDDEN": FORBIDDEN,
    "NOT_FOUND": NOT_FOUND,
    "INVALID_PARAMETERS": NOT_FOUND,
    "UNAVAILABLE": TRY_LATER,
}
REASONS: Final = {
    CLOSED: "the execution is closed",
    GOING_AWAY: "the gateway stops; come back",
    INTERNAL: "internal error",
    TRY_LATER: "temporarily unavailable",
    UNAUTHENTICATED: "unauthenticated",
    FORBIDDEN: "forbidden",
    NOT_FOUND: "not found",
    TOO_SLOW: "messages are not read fast enough",
}
_SEQUENCE: Final = re.compile(r"[0-9]{1,18}\Z", re.ASCII)


class WatcherCount:
    """WebSockets and event streams of this process together."""

    def __init__(self) -> None:
        self.now = 0


def websocket_routes(dependencies: GatewayDependencies, rooms: Rooms, count: WatcherCount) -> APIRouter:
    router = APIRouter()
    watchers = Watchers(dependencies, rooms, count)

    @router.websocket("/ws/workflows/{execution_id}")
    async def endpoint(websocket: WebSocket, execution_id: str) -> None:
        await watchers.serve(websocket, execution_id)

    return router


class Watchers:
    """All WebSockets of this process."""

    def __init__(self, dependencies: GatewayDependencies, rooms: Rooms, count: WatcherCount) -> None:
        self._dependencies = dependencies
        self._rooms = rooms
        self._count = count
        self._logger = structlog.get_logger("gateway.websocket")

    async def serve(self, websocket: WebSocket, execution_id: str) -> None:
        if not self._origin_allowed(websocket):
            self._logger.warning("origin_refused", address=address_of(websocket))
            await websocket.close(FORBIDDEN)  # before the handshake: answered as HTTP 403
            return
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept("bearer" if "bearer" in offered else None)
        if self._count.now >= WATCHERS_MAX:
            await _close(websocket, TRY_LATER, REASONS[TRY_LATER])
            return
        self._count.now += 1
        try:
            ending = await self._watch(websocket, execution_id)
        except Exception:
            # The end of this connection, whatever it was.
            self._logger.exception("watcher_failed", request_id=request_id(websocket))
            ending = INTERNAL, REASONS[INTERNAL]
        finally:
            self._count.now -= 1
        if ending is not None:
            await _close(websocket, *ending)

    async def _watch(self, websocket: WebSocket, execution_id: str) -> tuple[int, str] | None:
        """Code and reason to close with; None when the client has gone."""
        try:
            caller, view = await admit(websocket, self._dependencies, execution_id)
            after = cursor_of(websocket.query_params.get("after"))
        except EngineError as error:
            code = CLOSE_CODES.get(error.code, INTERNAL)
            return code, REASONS[code]
        sender = asyncio.create_task(self._send(websocket, caller, view, after), name="watcher-send")
        reader = asyncio.create_task(_read_until_gone(websocket), name="watcher-read")
        try:
            await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
            return sender.result() if sender.done() else None
        finally:
            for task in (sender, reader):
                task.cancel()
            await asyncio.wait({sender, reader})

    async def _send(
        self, websocket: WebSocket, caller: Caller, view: ExecutionView, after: int | None
    ) -> tuple[int, str]:
        sent = 0
        try:
            async with self._rooms.enter(caller.tenant, view.execution_id) as room:
                place, first = await begin(self._rooms, room, after)
                sent = place.sequence
                stream = Stream(place, first, caller.principal.expires_at, self._dependencies.stopping)
                while stream.ending is None:
                    for message in await stream.next():
                        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                            await websocket.send_text(message.text)
                        if message.sequence is not None and message.kind != SNAPSHOT:
                            sent = message.sequence
                        if stream.expired:
                            break
                return stream.ending, REASONS[stream.ending]
        except TimeoutError:
            return TOO_SLOW, f"{REASONS[TOO_SLOW]}; come back with after={sent}"
        except EngineError as error:
            code = CLOSE_CODES.get(error.code, INTERNAL)
            return code, REASONS[code]

    def _origin_allowed(self, websocket: WebSocket) -> bool:
        """Browsers send where the page came from; other programs send nothing, and need none."""
        origin = websocket.headers.get("origin")
        settings = self._dependencies.settings
        own = {base_url(websocket, None), base_url(websocket, settings.public_url)}
        return origin is None or origin in own or origin in settings.allowed_origins


class Stream:
    """What is sent to one watcher, and when that ends."""

    def __init__(self, place: Place, first: list[Told], expires_at: float, stopping: asyncio.Event) -> None:
        self._place = place
        self._first = first
        self._expires_at = expires_at
        self._stopping = stopping
        self.ending: int | None = None

    @property
    def expired(self) -> bool:
        return time.time() >= self._expires_at

    async def next(self) -> list[Told]:
        """The next messages; none now and then, and when it ends."""
        if self.expired:
            self.ending = UNAUTHENTICATED
        elif self._stopping.is_set():
            self.ending = GOING_AWAY
        elif self._first:
            first, self._first = self._first, []
            return first
        else:
            messages = await self._place.next(min(POLL_SECONDS, max(0.0, self._expires_at - time.time())))
            if not messages and self._place.finished:
                self.ending = CLOSED
            return messages
        return []


NOW: Final = -1
"""The cursor of those who want to know what comes, and of what was no more than a snapshot."""


async def admit(
    connection: HTTPConnection, dependencies: GatewayDependencies, execution_id: str
) -> tuple[Caller, ExecutionView]:
    """Who watches, and what. Raises EngineError."""
    try:
        principal = await watching_principal(connection, dependencies, execution_id)
    except UnauthenticatedError as error:
        structlog.get_logger("gateway.websocket").warning(
            "unauthenticated", reason=error.message, address=address_of(connection)
        )
        raise
    caller = caller_of(connection, dependencies, principal)
    view = await dependencies.operations.perform("execution.watch", caller, {"execution_id": execution_id})
    assert isinstance(view, ExecutionView)  # noqa: S101 - what this operation answers
    return caller, view


def cursor_of(text: str | None) -> int | None:
    """The last sequence that the watcher has; None without a cursor."""
    if text is None or text == "now":
        return None if text is None else NOW
    if not _SEQUENCE.match(text):
        raise InvalidParametersError("after must be a sequence, or now")
    return int(text)


async def begin(rooms: Rooms, room: Room, after: int | None) -> tuple[Place, list[Told]]:
    """Where a watcher with this cursor begins, and what it is told first."""
    if after is not None and after != NOW:
        return rooms.place(room, after), []
    snapshot = await room.snapshot()
    return rooms.place(room, 0 if after is None else snapshot.sequence or 0), [snapshot]


async def _read_until_gone(websocket: WebSocket) -> None:
    """Clients have nothing to say here; reading is how one learns that they are gone."""
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
    except WebSocketDisconnect:
        return


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await websocket.close(code, reason)
    except (RuntimeError, TimeoutError, WebSocketDisconnect):
        # The client was faster, or does not read: the server ends the connection in its own time.
        return
