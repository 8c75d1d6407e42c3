"""Server-sent events over a real server in this loop: the WebSocket's messages and cursor over plain HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest

from engine.contracts.execution import ExecutionStatus
from engine.errors import UnavailableError
from gateway import event_stream, watching
from gateway import websocket as gateway_websocket
from tests.fakes.stores import FakeExecution
from tests.unit.gateway.conftest import Client, Gateway
from tests.unit.gateway.test_websocket import url

__all__ = ["url"]


@pytest.fixture
async def row(client: Client, gateway: Gateway) -> FakeExecution:
    return gateway.executions.row("default", UUID(await client.execution()))


class Reader:
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def event(self) -> dict[str, Any]:
        """The next event: its fields, `data` as JSON."""
        fields: dict[str, Any] = {}
        async with asyncio.timeout(10):
            async for line in self._lines:
                if not line and fields.keys() - {"retry", ""}:
                    return fields
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = orjson.loads(value) if name == "data" else value
        raise AssertionError("the stream has ended")


@asynccontextmanager
async def stream(
    url: str, row: FakeExecution, token: str | None, query: str = "", **headers: str
) -> AsyncIterator[Reader]:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    address = f"{url.replace('ws', 'http', 1)}/api/v1/executions/{row.execution_id}/events/stream{query}"
    async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", address, headers=headers) as response:
        yield Reader(response)


async def test_the_stream_has_a_snapshot_then_the_log_then_its_end(
    url: str, gateway: Gateway, row: FakeExecution
) -> None:
    async with stream(url, row, gateway.token("viewer")) as reader:
        assert reader.response.headers["content-type"].startswith("text/event-stream")
        assert reader.response.headers["x-request-id"]
        snapshot = await reader.event()
        assert (snapshot["event"], snapshot["data"]["data"]["last_sequence"]) == ("workflow.snapshot", 2)
        assert "id" not in snapshot
        first, second = await reader.event(), await reader.event()
        assert [first["id"], second["id"]] == ["1", "2"]
        assert first["event"] == first["data"]["type"] == "workflow.status_changed"
        row.change(ExecutionStatus.COMPLETED)
        gateway.feed.nudge("default", row.execution_id, {"sequence": 3})
        assert (await reader.event())["data"]["data"]["new_status"] == "completed"
        end = await reader.event()
        assert (end["event"], end["data"]) == ("end", {"code": 1000, "reason": "the execution is closed"})
    assert gateway.outcomes()[-1] == ("execution.watch", "ok")


@pytest.mark.parametrize(("query", "headers"), [("?after=1", {}), ("", {"Last-Event-ID": "1"}),
                                                ("?after=0", {"Last-Event-ID": "1"})])  # fmt: skip
async def test_who_comes_back_gets_what_they_have_not_had(
    url: str, gateway: Gateway, row: FakeExecution, query: str, headers: dict[str, str]
) -> None:
    async with stream(url, row, gateway.token(), query, **headers) as reader:
        assert (await reader.event())["id"] == "2"


async def test_a_watch_token_opens_the_stream_for_browsers(url: str, client: Client, row: FakeExecution) -> None:
    ticket = await client.result("execution.watch_token", {"execution_id": str(row.execution_id)})
    async with stream(url, row, None, f"?after=now&token={ticket['token']}") as reader:
        assert (await reader.event())["event"] == "workflow.snapshot"
    async with stream(url, row, None, f"?after=now&token={ticket['token']}") as reader:
        assert reader.response.status_code == 401


async def test_refusals_are_http_answers(url: str, gateway: Gateway, row: FakeExecution) -> None:
    for token, query, status in ((None, "", 401), (gateway.token(tenant="stranger"), "", 404),
                                 (gateway.token(), "?after=x", 400)):  # fmt: skip
        async with stream(url, row, token, query) as reader:
            assert reader.response.status_code == status
    other = FakeExecution(row.launch.model_copy(update={"execution_id": str(uuid4())}), None)
    async with stream(url, other, gateway.token()) as reader:
        assert reader.response.status_code == 404


async def test_too_many_watchers_are_asked_to_come_later(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_websocket, "WATCHERS_MAX", 0)
    async with stream(url, row, gateway.token()) as reader:
        assert (reader.response.status_code, reader.response.headers["retry-after"]) == (429, "10")


async def test_the_end_says_why(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stream(url, row, gateway.token(lifetime_seconds=2), "?after=2") as reader:
        assert (await reader.event())["data"]["code"] == 4401
    async with stream(url, row, gateway.token(), "?after=2") as reader:
        gateway.dependencies.stopping.set()
        assert (await reader.event())["data"]["code"] == 1001
    gateway.dependencies.stopping.clear()

    async def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("PostgreSQL does not answer")

    monkeypatch.setattr(gateway.executions, "events", away)
    async with stream(url, row, gateway.token(), "?after=2") as reader:
        assert (await reader.event())["data"]["code"] == 1013


async def test_a_quiet_stream_says_that_it_lives(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.0)
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.05, raising=False)
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(gateway_websocket, "POLL_SECONDS", 0.05)
    async with stream(url, row, gateway.token(), "?after=2") as reader:
        async with asyncio.timeout(10):
            async for line in reader._lines:
                if line == ": still here":
                    break


async def test_who_does_not_read_is_given_up_and_who_leaves_is_forgotten(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_websocket, "SEND_TIMEOUT_SECONDS", 0.3)
    for number in range(400):
        row.add_event("task.completed", {"task_id": f"t{number}", "result": "x" * 100_000})
    async with stream(url, row, gateway.token()) as reader:
        assert reader.response.status_code == 200
        async with asyncio.timeout(10):
            while gateway.feed.watchers.get(("default", row.execution_id), [0]):  # noqa: ASYNC110 - the fake's own state
                await asyncio.sleep(0.05)


async def test_a_token_that_expires_within_a_page_ends_it_there(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([False, False, False, True])  # before the snapshot, behind it, before the page, behind its first event
    monkeypatch.setattr(event_stream, "CHUNK_BYTES", 1)
    monkeypatch.setattr(gateway_websocket.Stream, "expired", property(lambda _: next(asked)))
    async with stream(url, row, gateway.token("viewer")) as reader:
        assert (await reader.event())["event"] == "workflow.snapshot"
        assert (await reader.event())["id"] == "1"
        end = await reader.event()
        assert (end["event"], end["data"]["code"]) == ("end", 4401)
