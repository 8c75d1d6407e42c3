"""Live updates of one execution: messages from the WebSocket, snapshots from `workflow.status`.

The WebSocket is quick but may break; the snapshot is complete but costs a request. So there is one snapshot at the
start and at the end, one after each reconnection, and one whenever nothing was heard for a while.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import orjson
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from cli.board import ENDED_STATUSES
from cli.client import EngineClient
from cli.connection import Connection
from engine.errors import UnavailableError

RECEIVE_TIMEOUT_SECONDS = 0.2
"""How often a caller gets a chance to draw when nothing comes."""

SNAPSHOT_INTERVAL_SECONDS = 2.0
RECONNECT_DELAY_SECONDS = 1.0
UNREACHABLE_SECONDS_MAX = 60.0
"""An engine that is restarted comes back within this; afterwards the watcher gives up."""

OPEN_TIMEOUT_SECONDS = 5.0
MESSAGE_BYTES_MAX = 16 * 1024 * 1024

Update = tuple[str, dict[str, Any]]
"""("snapshot", the status), ("message", a WebSocket message) or ("idle", {})."""


class Socket(Protocol):
    """What is used of a WebSocket."""

    def recv(self, timeout: float | None = None) -> str | bytes: ...


Connect = Callable[[Connection, str], AbstractContextManager[Socket]]


def connect_websocket(connection: Connection, execution_id: str) -> AbstractContextManager[Socket]:
    address = "ws" + connection.url.removeprefix("http") + f"/ws/workflows/{execution_id}"
    return connect(
        address,
        additional_headers={"Authorization": f"Bearer {connection.token}"},
        open_timeout=OPEN_TIMEOUT_SECONDS,
        close_timeout=1,
        max_size=MESSAGE_BYTES_MAX,
        proxy=None,
    )


class ExecutionWatch:
    """Yields updates until the execution has ended; the last one is a snapshot."""

    def __init__(
        self,
        client: EngineClient,
        execution_id: str,
        *,
        connect_socket: Connect = connect_websocket,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._execution_id = execution_id
        self._connect = connect_socket
        self._clock = clock
        self._pause = pause
        self._heard_at = clock()

    def updates(self) -> Iterator[Update]:
        """Raises UnavailableError when the engine has been out of reach for too long."""
        while True:
            try:
                with self._connect(self._client.connection, self._execution_id) as socket:
                    for update in self._updates_of(socket):
                        yield update
                        if _is_last(update):
                            return
            except (ConnectionClosed, InvalidHandshake, OSError, UnavailableError):
                # The snapshot below decides: it says that the engine is away, or goes on without the WebSocket.
                pass
            snapshot = self._try_snapshot()
            if snapshot is not None:
                yield snapshot
                if _is_last(snapshot):
                    return
            self._pause(RECONNECT_DELAY_SECONDS)

    def _updates_of(self, socket: Socket) -> Iterator[Update]:
        # After the connection is open, so that nothing falls between the snapshot and the first message.
        yield self._snapshot()
        while True:
            try:
                message = orjson.loads(socket.recv(timeout=RECEIVE_TIMEOUT_SECONDS))
            except TimeoutError:
                quiet = self._clock() - self._heard_at >= SNAPSHOT_INTERVAL_SECONDS
                yield self._snapshot() if quiet else ("idle", {})
                continue
            self._heard_at = self._clock()
            yield ("message", message)
            if _says_closed(message):
                yield self._snapshot()

    def _snapshot(self) -> Update:
        view = self._client.call("workflow.status", {"execution_id": self._execution_id})
        self._heard_at = self._clock()
        return ("snapshot", view)

    def _try_snapshot(self) -> Update | None:
        try:
            return self._snapshot()
        except UnavailableError:
            if self._clock() - self._heard_at > UNREACHABLE_SECONDS_MAX:
                raise
            return None


def _is_last(update: Update) -> bool:
    kind, content = update
    return kind == "snapshot" and content["status"] in ENDED_STATUSES


def _says_closed(message: dict[str, Any]) -> bool:
    data = message.get("data") or {}
    return message.get("type") == "workflow.status_changed" and data.get("new_status") in ENDED_STATUSES
