from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
import pytest
from websockets.exceptions import ConnectionClosedError

from cli.client import EngineClient
from cli.connection import Connection
from cli.watch import UNREACHABLE_SECONDS_MAX, ExecutionWatch
from engine.errors import NotFoundError, UnavailableError
from tests.unit.cli.fake_engine import EXECUTION_ID, status_of

CLOSING = {"type": "workflow.status_changed", "data": {"new_status": "completed"}}
PROGRESS = {"type": "task.progress_update", "data": {"task_id": "a", "progress": 0.5}}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class ScriptedSocket:
    """Gives messages in turn; None is a silence, an exception is raised."""

    def __init__(self, clock: Clock, script: list[Any]) -> None:
        self._clock = clock
        self._script = script

    def recv(self, timeout: float | None = None) -> str | bytes:
        item = self._script.pop(0) if self._script else None
        if isinstance(item, Exception):
            raise item
        if item is None:
            self._clock.advance(timeout or 0.0)
            raise TimeoutError
        return orjson.dumps(item)


def watch(clock: Clock, statuses: list[Any], sockets: list[Any]) -> ExecutionWatch:
    """Statuses are answered in turn, the last one stays; sockets are scripts, or errors of the handshake."""

    def answer(_: httpx.Request) -> httpx.Response:
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        if isinstance(status, Exception):
            raise status
        if isinstance(status, int):
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "error": {"code": status, "message": "no"}})
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": status_of(status)})

    @contextmanager
    def connect(_: Connection, execution_id: str) -> Iterator[ScriptedSocket]:
        assert execution_id == EXECUTION_ID
        script = sockets.pop(0) if sockets else OSError("nobody listens")
        if isinstance(script, Exception):
            raise script
        yield ScriptedSocket(clock, script)

    client = EngineClient(Connection("http://engine", "t"), httpx.MockTransport(answer))
    return ExecutionWatch(client, EXECUTION_ID, connect_socket=connect, clock=clock, pause=clock.advance)


def kinds(watching: ExecutionWatch) -> list[str]:
    return [f"snapshot {content['status']}" if kind == "snapshot" else kind for kind, content in watching.updates()]


def test_messages_come_between_the_first_snapshot_and_the_last() -> None:
    watching = watch(Clock(), ["executing", "completed"], [[PROGRESS, CLOSING]])
    assert kinds(watching) == ["snapshot executing", "message", "message", "snapshot completed"]


def test_an_execution_that_has_ended_already_is_one_snapshot() -> None:
    assert kinds(watch(Clock(), ["failed"], [[]])) == ["snapshot failed"]


def test_an_end_that_nobody_told_is_found_by_asking_after_a_silence() -> None:
    updates = kinds(watch(Clock(), ["executing", "completed"], [[]]))
    assert updates[0] == "snapshot executing"
    assert updates[-1] == "snapshot completed"
    assert set(updates[1:-1]) == {"idle"}


def test_a_broken_socket_is_opened_again() -> None:
    sockets = [[PROGRESS, ConnectionClosedError(None, None)], [CLOSING]]
    watching = watch(Clock(), ["executing", "executing", "executing", "completed"], sockets)
    assert kinds(watching)[-2:] == ["message", "snapshot completed"]
    assert sockets == []


def test_without_any_socket_snapshots_are_enough() -> None:
    assert kinds(watch(Clock(), ["executing", "completed"], [])) == ["snapshot executing", "snapshot completed"]


def test_an_engine_that_comes_back_is_followed_further() -> None:
    away = httpx.ConnectError("refused")
    assert kinds(watch(Clock(), [away, away, "completed"], [])) == ["snapshot completed"]


def test_an_engine_that_stays_away_is_given_up() -> None:
    clock = Clock()
    with pytest.raises(UnavailableError):
        kinds(watch(clock, [httpx.ConnectError("refused")], []))
    assert clock.now > UNREACHABLE_SECONDS_MAX


def test_an_execution_that_is_not_there_is_told_at_once() -> None:
    clock = Clock()
    with pytest.raises(NotFoundError):
        kinds(watch(clock, [-32003], [[]]))
    assert clock.now == 0.0
