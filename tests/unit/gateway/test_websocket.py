"""The WebSocket over a real server in this loop, with the ports in memory."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import jwt
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from engine.contracts.execution import ExecutionStatus
from engine.errors import UnavailableError
from engine.security.keys import key_id
from gateway import watching
from gateway import websocket as gateway_websocket
from gateway.serve import GatewayServer, server_config
from tests.fakes.stores import FakeExecution
from tests.unit.gateway.conftest import Client, ClientOf, Gateway
from tests.unit.security.test_tokens import claims


@pytest.fixture
async def url(gateway: Gateway) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = GatewayServer(server_config(gateway.app, gateway.dependencies.settings))
    serving = asyncio.create_task(server.serve([listener]))
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
            await asyncio.sleep(0.01)
    yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await serving
    listener.close()


@pytest.fixture
async def row(client: Client, gateway: Gateway) -> FakeExecution:
    return gateway.executions.row("default", UUID(await client.execution()))


def watch(url: str, row: FakeExecution, token: str | None, query: str = "", **options: Any) -> connect:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return connect(f"{url}/ws/workflows/{row.execution_id}{query}", additional_headers=headers, proxy=None, **options)


async def receive(connection: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(30):
        message: dict[str, Any] = orjson.loads(await connection.recv())
    return message


async def close_code(connection: ClientConnection) -> int | None:
    async with asyncio.timeout(30):
        with suppress(ConnectionClosed):  # codes other than 1000 and 1001
            async for _ in connection:
                pass
        await connection.wait_closed()
    return connection.close_code


async def refusal(attempt: connect) -> int | None:
    async with attempt as connection:
        return await close_code(connection)


async def test_the_log_is_replayed_then_followed_until_the_execution_closes(
    url: str, gateway: Gateway, row: FakeExecution
) -> None:
    async with watch(url, row, gateway.token("viewer")) as connection:
        snapshot = await receive(connection)
        assert (snapshot["type"], snapshot["sequence"]) == ("workflow.snapshot", None)
        assert snapshot["data"]["last_sequence"] == 2
        assert snapshot["data"]["status"] == "executing"
        assert snapshot["data"]["task_states"] == dict.fromkeys("abcd", "pending")
        first, second = await receive(connection), await receive(connection)
        assert (first["type"], first["sequence"]) == ("workflow.status_changed", 1)
        assert first["data"] == {
            "execution_id": str(row.execution_id),
            "previous_status": None,
            "new_status": "planning",
            "timestamp": first["timestamp"],
        }
        assert second["data"]["new_status"] == "executing"
        row.add_event(
            "agent.task_assigned",
            {"task_id": "a", "agent_id": "worker-1", "attempt": 1, "dependencies": [], "estimated_duration_seconds": 1},
        )
        row.add_event("agent.task_started", {"task_id": "a"})
        row.add_event(
            "task.completed",
            {
                "task_id": "a",
                "agent_id": "worker-1",
                "attempt": 1,
                "status": "success",
                "result": {"n": 1},
                "duration_seconds": 1.6,
            },
        )
        row.add_event("error.occurred", {"error_type": "BROKEN", "error_message": "it broke", "task_id": "b"})
        row.add_checkpoint(uuid4(), "interval")
        hook = {"hook_id": str(uuid4()), "hook_name": "format", "trigger": "post_task", "status": "completed",
                "duration_ms": 7, "output": "not for everybody"}  # fmt: skip
        row.add_event("hook.executed", hook)
        row.change(ExecutionStatus.COMPLETED)
        gateway.feed.nudge("default", row.execution_id, {"sequence": 8})
        messages = [await receive(connection) for _ in range(6)]
        assert [message["type"] for message in messages] == [
            "agent.task_assigned",
            "task.completed",
            "error.occurred",
            "checkpoint.created",
            "hook.executed",
            "workflow.status_changed",
        ]
        assigned, completed, error, checkpoint, executed, closed = (message["data"] for message in messages)
        assert (assigned["agent_id"], assigned["dependencies"]) == ("worker-1", [])
        assert (completed["result"], completed["duration_seconds"], completed["status"]) == ({"n": 1}, 2, "success")
        assert (error["error_type"], error["task_id"]) == ("BROKEN", "b")
        assert UUID(checkpoint["checkpoint_id"]) in row.checkpoints
        assert {name: value for name, value in hook.items() if name != "output"}.items() <= executed.items()
        assert "output" not in executed
        assert closed["new_status"] == "completed"
        assert await close_code(connection) == 1000
    assert gateway.outcomes()[-1] == ("execution.watch", "ok")


async def test_a_watcher_goes_on_after_the_sequence_it_has_seen(url: str, gateway: Gateway, row: FakeExecution) -> None:
    async with watch(url, row, gateway.token(), "?after=1") as connection:
        assert (await receive(connection))["sequence"] == 2


async def test_progress_comes_from_the_feed(url: str, gateway: Gateway, row: FakeExecution) -> None:
    async with watch(url, row, gateway.token(), "?after=2") as connection:
        async with asyncio.timeout(30):
            while ("default", row.execution_id) not in gateway.feed.watchers:  # noqa: ASYNC110 - the fake's own state
                await asyncio.sleep(0.01)
        progress = {"task_id": "a", "agent_id": "worker-1", "progress": 0.5}
        gateway.feed.nudge("default", row.execution_id, {"progress": progress})
        message = await receive(connection)
    assert (message["type"], message["sequence"]) == ("task.progress_update", None)
    assert message["data"] | progress == message["data"]


async def test_without_the_feed_the_log_is_still_followed(url: str, gateway: Gateway, row: FakeExecution) -> None:
    gateway.feed.available = False
    async with watch(url, row, gateway.token(), "?after=2") as connection:
        row.change(ExecutionStatus.FAILED)
        assert (await receive(connection))["data"]["new_status"] == "failed"


async def test_a_closed_execution_is_replayed_and_closed(url: str, gateway: Gateway, row: FakeExecution) -> None:
    row.change(ExecutionStatus.CANCELLED)
    async with watch(url, row, gateway.token()) as connection:
        assert (await receive(connection))["data"]["status"] == "cancelled"
        assert [(await receive(connection))["sequence"] for _ in range(3)] == [1, 2, 3]
        assert await close_code(connection) == 1000


async def test_more_than_a_page_is_sent_in_order(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "EVENTS_PAGE", 3)
    for number in range(10):
        row.add_event("task.completed", {"task_id": f"t{number}"})
    row.change(ExecutionStatus.COMPLETED)
    async with watch(url, row, gateway.token()) as connection:
        assert (await receive(connection))["type"] == "workflow.snapshot"
        assert [(await receive(connection))["sequence"] for _ in range(13)] == list(range(1, 14))


async def test_a_watcher_behind_the_closing_event_is_closed_too(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "STATUS_EVERY_SECONDS", 0.0)
    async with watch(url, row, gateway.token(), "?after=999") as connection:
        row.change(ExecutionStatus.COMPLETED)
        gateway.feed.nudge("default", row.execution_id, {"sequence": 3})
        assert await close_code(connection) == 1000


async def test_browsers_send_the_token_as_a_subprotocol(url: str, gateway: Gateway, row: FakeExecution) -> None:
    protocols: Any = ["bearer", gateway.token()]
    async with watch(url, row, None, subprotocols=protocols) as connection:
        assert connection.subprotocol == "bearer"
        assert (await receive(connection))["type"] == "workflow.snapshot"


async def test_a_watch_token_stands_in_the_query_and_works_once_for_its_execution(
    url: str, gateway: Gateway, client: Client, row: FakeExecution, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.http.post(f"/api/v1/executions/{row.execution_id}/watch-token")
    assert answer.status_code == 201
    ticket = answer.json()
    assert ticket["url"] == f"ws://gateway.test/ws/workflows/{row.execution_id}?token={ticket['token']}"
    with caplog.at_level(0):
        async with watch(url, row, None, f"?token={ticket['token']}") as connection:
            assert (await receive(connection))["type"] == "workflow.snapshot"
        assert await refusal(watch(url, row, None, f"?token={ticket['token']}")) == 4401
    ours = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    assert not any(ticket["token"] in record.getMessage() for record in ours)
    other = (await client.result("execution.watch_token", {"execution_id": str(row.execution_id)}))["token"]
    attempt = connect(f"{url}/ws/workflows/{uuid4()}?token={other}", proxy=None)
    assert await refusal(attempt) == 4401
    assert ticket["token"] not in str(gateway.log.records)


async def test_a_watch_token_is_for_what_is_ones_own(client_of: ClientOf, row: FakeExecution) -> None:
    stranger = client_of(tenant="stranger")
    assert (await stranger.http.post(f"/api/v1/executions/{row.execution_id}/watch-token")).status_code == 404


async def test_a_jwt_in_the_query_must_expire_soon_and_counts_once(
    url: str, gateway: Gateway, row: FakeExecution
) -> None:
    assert await refusal(watch(url, row, None, f"?token={gateway.token()}")) == 4401
    short = gateway.token(lifetime_seconds=30)
    async with watch(url, row, None, f"?token={short}") as connection:
        assert (await receive(connection))["type"] == "workflow.snapshot"
    assert await refusal(watch(url, row, None, f"?token={short}")) == 4401
    gateway.tickets.available = False
    assert await refusal(watch(url, row, None, f"?token={gateway.token(lifetime_seconds=31)}")) == 1013


async def test_a_stream_that_a_ticket_opened_ends_with_the_token_behind_it(
    url: str, gateway: Gateway, row: FakeExecution
) -> None:
    document = {"execution_id": str(row.execution_id), "subject": "s", "tenant": "default", "roles": ["viewer"],
                "expires_at": time.time() + 1}  # fmt: skip
    await gateway.tickets.keep("opaque", document, 30)
    async with watch(url, row, None, "?token=opaque") as connection:
        assert await close_code(connection) == 4401


@pytest.mark.parametrize("token", [None, "nonsense"])
async def test_without_a_good_token_nothing_is_sent(url: str, row: FakeExecution, token: str | None) -> None:
    assert await refusal(watch(url, row, token)) == 4401


async def test_a_role_that_allows_nothing_is_forbidden(url: str, gateway: Gateway, row: FakeExecution) -> None:
    token = jwt.encode(
        claims(tenant="default", roles=["guest"]),
        gateway.key,
        algorithm="EdDSA",
        headers={"kid": key_id(gateway.key.public_key())},
    )
    assert await refusal(watch(url, row, token)) == 4403


async def test_anothers_execution_is_closed_exactly_like_none(url: str, gateway: Gateway, row: FakeExecution) -> None:
    stranger = gateway.token(tenant="stranger")
    assert await refusal(watch(url, row, stranger)) == 4404
    headers = {"Authorization": f"Bearer {stranger}"}
    for identifier in (str(uuid4()), "not-an-id"):
        attempt = connect(f"{url}/ws/workflows/{identifier}", additional_headers=headers, proxy=None)
        assert await refusal(attempt) == 4404


async def test_who_asks_for_now_gets_a_snapshot_and_what_comes_after_it(
    url: str, gateway: Gateway, row: FakeExecution
) -> None:
    async with watch(url, row, gateway.token(), "?after=now") as connection:
        assert (await receive(connection))["data"]["last_sequence"] == 2
        row.change(ExecutionStatus.PAUSED)
        gateway.feed.nudge("default", row.execution_id, {"sequence": 3})
        assert (await receive(connection))["sequence"] == 3


async def test_an_after_that_is_no_sequence_is_refused(url: str, gateway: Gateway, row: FakeExecution) -> None:
    assert await refusal(watch(url, row, gateway.token(), "?after=-1")) == 4404


async def test_a_token_that_expires_ends_the_stream(url: str, gateway: Gateway, row: FakeExecution) -> None:
    async with watch(url, row, gateway.token(lifetime_seconds=2)) as connection:
        assert (await receive(connection))["type"] == "workflow.snapshot"
        assert await close_code(connection) == 4401


async def test_pages_of_other_origins_are_refused(url: str, gateway: Gateway, row: FakeExecution) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with watch(url, row, gateway.token(), origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403


async def test_pages_of_the_gateway_itself_may_watch(url: str, gateway: Gateway, row: FakeExecution) -> None:
    own: Any = url.replace("ws", "http", 1)
    async with watch(url, row, gateway.token(), origin=own) as connection:
        assert (await receive(connection))["type"] == "workflow.snapshot"


async def test_a_reader_that_is_too_slow_is_closed(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_websocket, "SEND_TIMEOUT_SECONDS", 0.3)
    for number in range(400):
        row.add_event("task.completed", {"task_id": f"t{number}", "result": "x" * 100_000})
    async with watch(url, row, gateway.token(), max_queue=1) as connection:
        await asyncio.sleep(1.0)  # not reading is what is tested
        assert await close_code(connection) in (4408, 1006)
        if connection.close_code == 4408:
            assert "come back with after=" in (connection.close_reason or "")


async def test_too_many_watchers_are_asked_to_come_later(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_websocket, "WATCHERS_MAX", 0)
    assert await refusal(watch(url, row, gateway.token())) == 1013


async def test_over_the_rate_limit_the_handshake_is_refused(url: str, gateway: Gateway, row: FakeExecution) -> None:
    gateway.rate_limit.wait_seconds = 5.0
    with pytest.raises(InvalidStatus):
        async with watch(url, row, gateway.token()):
            pass


async def test_a_store_that_is_away_or_broken_ends_the_stream(
    url: str, gateway: Gateway, row: FakeExecution, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("PostgreSQL does not answer")

    monkeypatch.setattr(gateway.executions, "events", away)
    assert await refusal(watch(url, row, gateway.token())) == 1013

    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.executions, "events", broken)
    assert await refusal(watch(url, row, gateway.token())) == 1011


async def test_a_client_that_leaves_is_unsubscribed(url: str, gateway: Gateway, row: FakeExecution) -> None:
    async with watch(url, row, gateway.token()) as connection:
        await receive(connection)
        await connection.send("clients have nothing to say")
    async with asyncio.timeout(30):
        while gateway.feed.watchers["default", row.execution_id]:  # noqa: ASYNC110 - the fake's own state
            await asyncio.sleep(0.01)
