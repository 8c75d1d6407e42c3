"""Connecting to Temporal, and how payloads are written."""

import socket

import pytest

from engine.contracts.kernel import Checkpoint, Delta
from engine.errors import UnavailableError
from engine.settings import Settings
from engine.temporal import connection
from engine.temporal.connection import DATA_CONVERTER, connect


def settings(port: int) -> Settings:
    return Settings.model_validate({"temporal_address": f"127.0.0.1:{port}"})


async def test_nobody_there_is_said_with_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_SECONDS", 0.5)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(UnavailableError, match=str(port)):
            await connect(settings(port))


async def test_models_are_written_without_their_defaults_and_read_as_models() -> None:
    delta = Delta(tick=1, at_ms=2, checkpoint=Checkpoint(checkpoint_id="c", reason="pause", completed=()))
    [written] = await DATA_CONVERTER.encode([delta])
    assert written.data == (b'{"tick":1,"at_ms":2,"checkpoint":{"checkpoint_id":"c","reason":"pause","completed":[]}}')
    assert await DATA_CONVERTER.decode([written], [Delta]) == [delta]
