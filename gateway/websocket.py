"""`/ws/workflows/{execution_id}`: an execution's audit log from a given sequence on, then live until it is closed.

What is sent is read from the store, in order; the feed only says when to look. So a watcher that comes back with
`?after=<last sequence>` misses nothing, whatever was lost between.
"""

import asyncio
import re
import time
from typing import Final

import structlog
from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.views import ExecutionView
from engine.errors import EngineError, InvalidParametersError, UnauthenticatedError
from engine.ports import ExecutionStore
from engine.security.principal import Principal
from gateway.dependencies import GatewayDependencies
from gateway.http import address_of, base_url, bearer_token, caller_of, request_id
from gateway.messages import message_of, progress_message
from gateway.operations.nudges import nudges_of
from gateway.operations.operation import Caller

WATCHERS_MAX: Final = 2_000
EVENTS_PAGE: Final = 500
POLL_SECONDS: Final = 1.0
STATUS_EVERY_SECONDS: Final = 10.0
SEND_TIMEOUT_SECONDS: Final = 10.0
CLOSE_TIMEOUT_SECONDS: Final = 5.0

CLOSED: Final = 1000
INTERNAL: Final = 1011
TRY_LATER: Final = 1013
UNAUTHENTICATED: Final = 4401
FORBIDDEN: Final = 4403
NOT_FOUND: Final = 4404
TOO_SLOW: Final = 4408

_CLOSE_CODES: Final = {
    "UNAUTHENTICATED": UNAUTHENTICATED,
    "FORBIDDEN": FORBIDDEN,
    "NOT_FOUND": NOT_FOUND,
    "INVALID_PARAMETERS": NOT_FOUND,
    "UNAVAILABLE": TRY_LATER,
}
_REASONS: Final = {
    CLOSED: "the execution is closed",
    INTERNAL: "internal error",
    TRY_LATER: "temporarily unavailable",
    UNAUTHENTICATED: "unauthenticated",
    FORBIDDEN: "forbidden",
    NOT_FOUND: "not found",
    TOO_SLOW: "messages are not read fast enough",
}
_SEQUENCE: Final = re.compile(r"[0-9]{1,18}\Z", re.ASCII)


def websocket_routes(dependencies: GatewayDependencies) -> APIRouter:
    router = APIRouter()
    watchers = Watchers(dependencies)

    @router.websocket("/ws/workflows/{execution_id}")
    async def endpoint(websocket: WebSocket, execution_id: str) -> None:
        await watchers.serve(websocket, execution_id)

    return router


class Watchers:
    """All WebSockets of this process."""

    def __init__(self, dependencies: GatewayDependencies) -> None:
        self._dependencies = dependencies
        self._count = 0
        self._logger = structlog.get_logger("gateway.websocket")

    async def serve(self, websocket: WebSocket, execution_id: str) -> None:
        if not self._origin_allowed(websocket):
            self._logger.warning("origin_refused", address=address_of(websocket))
            await websocket.close(FORBIDDEN)  # before the handshake: answered as HTTP 403
            return
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept("bearer" if "bearer" in offered else None)
        if self._count >= WATCHERS_MAX:
            await _close(websocket, TRY_LATER)
            return
        self._count += 1
        try:
            code = await self._watch(websocket, execution_id)
        except Exception:
            # The end of this connection, whatever it was.
            self._logger.exception("watcher_failed", request_id=request_id(websocket))
            code = INTERNAL
        finally:
            self._count -= 1
        if code is not None:
            await _close(websocket, code)

    async def _watch(self, websocket: WebSocket, execution_id: str) -> int | None:
        """The code to close with; None when the client has gone."""
        try:
            principal = await self._principal(websocket)
            caller = caller_of(websocket, self._dependencies, principal)
            after = _after(websocket)
            view = await self._dependencies.operations.perform(
                "execution.watch", caller, {"execution_id": execution_id}
            )
        except EngineError as error:
            if isinstance(error, UnauthenticatedError):
                self._logger.warning("unauthenticated", reason=error.message, address=address_of(websocket))
            return _CLOSE_CODES.get(error.code, INTERNAL)
        assert isinstance(view, ExecutionView)  # noqa: S101 - what this operation answers
        sender = asyncio.create_task(self._send(websocket, caller, view, after), name="watcher-send")
        reader = asyncio.create_task(_read_until_gone(websocket), name="watcher-read")
        try:
            await asyncio.wait({sender, reader}, return_when=asyncio.FIRST_COMPLETED)
            return sender.result() if sender.done() else None
        finally:
            for task in (sender, reader):
                task.cancel()
            await asyncio.wait({sender, reader})

    async def _send(self, websocket: WebSocket, caller: Caller, view: ExecutionView, after: int) -> int:
        stream = _Stream(self._dependencies.executions, caller.tenant, view, after)
        expires_at = caller.principal.expires_at
        try:
            async with nudges_of(self._dependencies.feed, caller.tenant, view.execution_id) as nudges:
                while True:
                    messages = await stream.next_page()
                    messages += [progress_message(view.execution_id, item) for item in nudges.take_progress()]
                    for message in messages:
                        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                            await websocket.send_text(message)
                    if time.time() >= expires_at:
                        return UNAUTHENTICATED
                    if stream.finished:
                        return CLOSED
                    if not stream.behind:
                        await nudges.wait(min(POLL_SECONDS, max(0.0, expires_at - time.time())))
        except TimeoutError:
            return TOO_SLOW
        except EngineError as error:
            return _CLOSE_CODES.get(error.code, INTERNAL)

    async def _principal(self, websocket: WebSocket) -> Principal:
        return await self._dependencies.verifier.verify(_token(websocket))

    def _origin_allowed(self, websocket: WebSocket) -> bool:
        """Browsers send where the page came from; other programs send nothing, and need none."""
        origin = websocket.headers.get("origin")
        settings = self._dependencies.settings
        own = {base_url(websocket, None), base_url(websocket, settings.public_url)}
        return origin is None or origin in own or origin in settings.allowed_origins


class _Stream:
    """Where one watcher stands in one execution's log."""

    def __init__(self, executions: ExecutionStore, tenant: str, view: ExecutionView, after: int) -> None:
        self._executions = executions
        self._tenant = tenant
        self._execution_id = view.execution_id
        self._sequence = after
        self._closed = view.status.closed
        self._looked_at = time.monotonic()
        self.behind = True

    @property
    def finished(self) -> bool:
        return self._closed and not self.behind

    async def next_page(self) -> list[str]:
        """The messages that come next, perhaps none."""
        events, self.behind = await self._executions.events(
            self._tenant, self._execution_id, after_sequence=self._sequence, limit=EVENTS_PAGE
        )
        messages = []
        for event in events:
            self._sequence = event.sequence
            message = message_of(self._execution_id, event)
            if message is not None:
                messages.append(message)
            if event.event_type == AuditEventType.STATUS_CHANGED:
                self._closed = ExecutionStatus(event.payload["new_status"]).closed
        if not events and not self._closed:
            await self._look_at_status()
        return messages

    async def _look_at_status(self) -> None:
        """For watchers that start behind the closing event and would wait for it for ever."""
        if time.monotonic() - self._looked_at < STATUS_EVERY_SECONDS:
            return
        self._looked_at = time.monotonic()
        view = await self._executions.status(self._tenant, self._execution_id, include_tasks=False)
        if view.status.closed:
            # Once more through the log: the closing event may have come after the page was read.
            self._closed = self.behind = True


def _token(websocket: WebSocket) -> str:
    """From the header, from the subprotocols `bearer, <token>` (browsers), or from `?token=`."""
    if "authorization" in websocket.headers:
        return bearer_token(websocket)
    offered = websocket.scope.get("subprotocols", [])
    if len(offered) == 2 and offered[0] == "bearer":
        return str(offered[1])
    token = websocket.query_params.get("token")
    if not token:
        raise UnauthenticatedError("no token")
    return token


def _after(websocket: WebSocket) -> int:
    text = websocket.query_params.get("after", "0")
    if not _SEQUENCE.match(text):
        raise InvalidParametersError("after must be a sequence")
    return int(text)


async def _read_until_gone(websocket: WebSocket) -> None:
    """Clients have nothing to say here; reading is how one learns that they are gone."""
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
    except WebSocketDisconnect:
        return


async def _close(websocket: WebSocket, code: int) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            await websocket.close(code, _REASONS[code])
    except (RuntimeError, TimeoutError, WebSocketDisconnect):
        # The client was faster, or does not read: the server ends the connection in its own time.
        return
