"""The examples of the JSON-RPC 2.0 specification, section 7, word for word."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.json_body import MalformedBodyError, parse_json
from gateway.jsonrpc.protocol import Call, RpcError, parse_error_answer, respond

PARSE_ERROR = {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": None}
INVALID_REQUEST = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": None}
METHOD_NOT_FOUND = {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}

notified: list[str] = []


async def example_methods(call: Call) -> Any:
    match call.method, call.params:
        case "subtract", [minuend, subtrahend]:
            return minuend - subtrahend
        case "subtract", {"minuend": minuend, "subtrahend": subtrahend}:
            return minuend - subtrahend
        case "sum", [*numbers]:
            return sum(numbers)
        case "get_data", None:
            return ["hello", 5]
        case (("update" | "notify_hello" | "notify_sum"), _):
            notified.append(call.method)
            return None
    raise RpcError(-32601, "Method not found")


async def answer(body: str) -> Any:
    try:
        value = parse_json(body.encode())
    except MalformedBodyError as error:
        raw: bytes | None = parse_error_answer(str(error))
    else:
        raw = await respond(value, example_methods, 100)
    return None if raw is None else without_data(orjson.loads(raw))


def without_data(value: Any) -> Any:
    """`data` is the server's to add; the examples have none."""
    for item in value if isinstance(value, list) else [value]:
        item.get("error", {}).pop("data", None)
    return value


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        pytest.param(
            '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
            {"jsonrpc": "2.0", "result": 19, "id": 1},
            id="positional parameters",
        ),
        pytest.param(
            '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
            {"jsonrpc": "2.0", "result": -19, "id": 2},
            id="positional parameters, the other way round",
        ),
        pytest.param(
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
            {"jsonrpc": "2.0", "result": 19, "id": 3},
            id="named parameters",
        ),
        pytest.param(
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
            {"jsonrpc": "2.0", "result": 19, "id": 4},
            id="named parameters, the other way round",
        ),
        pytest.param('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None, id="a notification"),
        pytest.param('{"jsonrpc": "2.0", "method": "foobar"}', None, id="a notification of nothing known"),
        pytest.param('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', METHOD_NOT_FOUND, id="an unknown method"),
        pytest.param('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', PARSE_ERROR, id="invalid JSON"),
        pytest.param('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID_REQUEST, id="an invalid request"),
        pytest.param(
            '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]',
            PARSE_ERROR,
            id="a batch of invalid JSON",
        ),
        pytest.param("[]", INVALID_REQUEST, id="an empty array"),
        pytest.param("[1]", [INVALID_REQUEST], id="an invalid batch, not empty"),
        pytest.param("[1,2,3]", [INVALID_REQUEST] * 3, id="an invalid batch"),
        pytest.param(
            """[
                {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
                {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
                {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
                {"foo": "boo"},
                {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
                {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
            ]""",
            [
                {"jsonrpc": "2.0", "result": 7, "id": "1"},
                {"jsonrpc": "2.0", "result": 19, "id": "2"},
                INVALID_REQUEST,
                {**METHOD_NOT_FOUND, "id": "5"},
                {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"},
            ],
            id="a batch",
        ),
        pytest.param(
            '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
            '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
            None,
            id="a batch of notifications",
        ),
    ],
)
async def test_the_specifications_examples(request_body: str, expected: Any) -> None:
    assert await answer(request_body) == expected


async def test_notifications_are_carried_out() -> None:
    notified.clear()
    await answer('{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}')
    assert notified == ["notify_hello"]


@pytest.mark.parametrize("identifier", [0, -1, 2.5, "", "x", None, 2**53])
async def test_every_legal_id_comes_back_as_it_was(identifier: Any) -> None:
    request = {"jsonrpc": "2.0", "method": "subtract", "params": [1, 1], "id": identifier}
    assert (await answer(orjson.dumps(request).decode()))["id"] == identifier


@pytest.mark.parametrize(
    "changes",
    [
        {"id": True},
        {"id": [1]},
        {"id": {"a": 1}},
        {"id": "x" * 5000},
        {"jsonrpc": "1.0"},
        {"jsonrpc": 2.0},
        {"method": None},
        {"params": "text"},
        {"params": 1},
        {"params": None},
    ],
)
async def test_what_is_no_request_object_is_an_invalid_request(changes: dict[str, Any]) -> None:
    request = {"jsonrpc": "2.0", "method": "subtract", "params": [1, 1], "id": None} | changes
    assert (await answer(orjson.dumps(request).decode()))["error"]["code"] == -32600


async def test_the_id_of_an_invalid_request_comes_back_where_it_is_legal() -> None:
    assert (await answer('{"jsonrpc": "1.0", "method": "subtract", "id": 7}'))["id"] == 7


async def test_a_batch_keeps_its_order_whatever_finishes_first() -> None:
    turn = asyncio.Event()

    async def second_first(call: Call) -> Any:
        if call.id == 0:
            await turn.wait()
        turn.set()
        return call.id

    batch = [{"jsonrpc": "2.0", "method": "m", "id": number} for number in range(5)]
    raw = await respond(batch, second_first, 100)
    assert raw is not None
    assert [item["result"] for item in orjson.loads(raw)] == [0, 1, 2, 3, 4]


async def test_a_batch_whose_answers_are_large_refuses_the_rest_unrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.jsonrpc.protocol.BATCH_ANSWER_BYTES_MAX", 10_000)
    monkeypatch.setattr("gateway.jsonrpc.protocol.CONCURRENT_CALLS_MAX", 1)
    ran: list[Any] = []

    async def large(call: Call) -> Any:
        ran.append(call.id)
        return "x" * 4_000

    batch: list[Any] = [{"jsonrpc": "2.0", "method": "m", "id": number} for number in range(5)]
    raw = await respond([*batch, {"jsonrpc": "2.0", "method": "m"}], large, 100)
    assert raw is not None
    answers = orjson.loads(raw)
    assert [item["id"] for item in answers if "result" in item] == [0, 1, 2]
    assert [(item["id"], item["error"]["code"]) for item in answers if "error" in item] == [(3, -32019), (4, -32019)]
    assert ran == [0, 1, 2, None]


async def test_a_batch_runs_a_bounded_number_of_calls_at_once() -> None:
    running = most = 0

    async def counted(_call: Call) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    batch = [{"jsonrpc": "2.0", "method": "m", "id": number} for number in range(100)]
    await respond(batch, counted, 100)
    assert 1 < most <= 8


@pytest.mark.parametrize(("calls", "refused"), [(100, False), (101, True), (10_000, True)])
async def test_a_batch_has_a_limit(calls: int, refused: bool) -> None:
    batch = [{"jsonrpc": "2.0", "method": "get_data", "id": number} for number in range(calls)]
    raw = await respond(batch, example_methods, 100)
    assert raw is not None
    body = orjson.loads(raw)
    assert isinstance(body, dict) is refused
    if refused:
        assert body["error"]["code"] == -32600


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(json_values)
async def test_any_json_is_answered_as_the_protocol_says(value: Any) -> None:
    raw = await respond(value, example_methods, 100)
    if raw is None:
        return
    body = orjson.loads(raw)
    for item in body if isinstance(body, list) else [body]:
        assert item["jsonrpc"] == "2.0"
        assert ("result" in item) != ("error" in item)
