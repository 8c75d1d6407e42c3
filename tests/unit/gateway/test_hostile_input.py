"""Bodies that are meant to hurt: each gets the documented error at once, and leaves nothing behind."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from engine.contracts.limits import REQUEST_BYTES_MAX
from gateway import json_body
from gateway.json_body import DEPTH_MAX, MalformedBodyError, parse_json, read_body
from tests.unit.gateway.conftest import Client, Gateway, definition

CALL = b'{"jsonrpc": "2.0", "method": "workflow.create", "params": {"input": %s}, "id": 1}'

HOSTILE = {
    "arrays 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "arrays 100,000 deep, not closed": b"[" * 100_000,
    "objects 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "arrays one level too deep": b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1),
    "arrays 1,000 deep": b"[" * 1000 + b"]" * 1000,
    "a number of 5,000 digits": b"1" * 5000,
    "a number beyond doubles": b"1e400",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "an unpaired surrogate": b'"\\ud800"',
    "NUL in a value": b'"a\\u0000b"',
    "NUL in a key": b'{"\\u0000": 1}',
    "duplicate keys": b'{"a": 1, "a": 2}',
    "duplicate keys by escapes": b'{"a": 1, "\\u0061": 2}',
    "bytes that are not UTF-8": b'"\xff\xfe"',
    "a raw control character": b'"\x01"',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a comment": b"{} // x",
    "nothing": b"",
    "blanks": b"   ",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_json_is_a_parse_error_at_once(client: Client, gateway: Gateway, payload: bytes) -> None:
    started = time.monotonic()
    for body in (payload, CALL % payload):
        answer = await client.http.post("/api/v1/jsonrpc", content=body)
        assert answer.status_code == 200
        assert answer.json()["error"]["code"] == -32700
        assert answer.json()["id"] is None
        rest = await client.http.post("/api/v1/workflows", content=body)
        assert rest.status_code == 400
        assert rest.headers["content-type"] == "application/problem+json"
    assert time.monotonic() - started < 1.0
    assert not gateway.definitions.rows


@pytest.mark.parametrize(
    "value",
    [b'"\\\\u0000"', b'"\\u0001"', b"18446744073709551615", b"0.1", b"[" * 40 + b"]" * 40, b"true", b'{"a": {"a": 1}}'],
)
def test_unusual_but_legal_json_is_taken(value: bytes) -> None:
    assert parse_json(b'{"v": ' + value + b"}")["v"] == orjson.loads(value)


storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | storable_text,
        lambda children: st.lists(children, max_size=3) | st.dictionaries(storable_text, children, max_size=3),
        max_leaves=10,
    )
)
def test_what_is_taken_can_be_written_again(value: Any) -> None:
    parsed = parse_json(orjson.dumps(value))
    assert orjson.loads(orjson.dumps(parsed)) == parsed == value


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_malformed(body: bytes) -> None:
    try:
        value = parse_json(body)
    except MalformedBodyError:
        return
    assert orjson.loads(orjson.dumps(value)) == value


def padded(size: int) -> bytes:
    body = orjson.dumps({"jsonrpc": "2.0", "method": "workflow.list", "id": 1})
    return body + b" " * (size - len(body))


async def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(client: Client) -> None:
    assert REQUEST_BYTES_MAX == 2 * 1024 * 1024
    fits = await client.http.post("/api/v1/jsonrpc", content=padded(REQUEST_BYTES_MAX))
    assert (fits.status_code, "result" in fits.json()) == (200, True)
    large = await client.http.post("/api/v1/jsonrpc", content=padded(REQUEST_BYTES_MAX + 1))
    assert (large.status_code, large.json()["error"]["code"]) == (413, -32019)
    rest = await client.http.post("/api/v1/workflows", content=b" " * (REQUEST_BYTES_MAX + 1))
    assert (rest.status_code, rest.json()["code"]) == (413, "TOO_LARGE")


async def test_a_body_that_never_ends_is_cut_off(client: Client) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 1024 * 1024

    answer = await client.http.post("/api/v1/jsonrpc", content=endless())
    assert answer.status_code == 413


async def test_a_body_that_does_not_arrive_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "READ_TIMEOUT_SECONDS", 0.05)

    async def silent() -> Any:
        await asyncio.Event().wait()

    with pytest.raises(MalformedBodyError):
        await read_body(Request({"type": "http"}, silent), 10)


async def test_a_client_that_hangs_up_is_malformed() -> None:
    async def gone() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(MalformedBodyError):
        await read_body(Request({"type": "http"}, gone), 10)


@pytest.mark.parametrize(
    "params",
    [
        {"name": {"$gt": ""}},
        {"name": "a'; DROP TABLE workflow_definitions; --"},
        {"name": "a\x7f"},
        {"version": "1.0\n"},
        {"tasks": [{"id": "a", "agent": "worker"}] * 10_001},
        {"tasks": {"id": "a"}},
        {"tasks": [None]},
        {"agents": []},
        {"agents": {"w w": {"type": "synthetic"}}},
        {"coordination": "hybrid"},
        {"description": "\u0007"},
    ],
)
async def test_definitions_that_are_meant_to_hurt_are_invalid(
    client: Client, gateway: Gateway, params: dict[str, Any]
) -> None:
    error = await client.error("workflow.create", definition(**params))
    assert error["code"] == -32602
    assert len(orjson.dumps(error)) < 1_000_000
    assert not gateway.definitions.rows


@pytest.mark.parametrize(
    "identifier", ["", "x", "' OR 1=1 --", "../../etc/passwd", 7, None, True, [], {}, "0" * 10_000]
)
@pytest.mark.parametrize("method", ["workflow.status", "workflow.get", "workflow.pause"])
async def test_ids_that_are_none_are_invalid(client: Client, method: str, identifier: Any) -> None:
    assert (await client.error(method, [identifier]))["code"] == -32602


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 1001}, {"limit": "5"}, {"limit": True}, {"page_token": "a b"}]
)
async def test_paging_has_limits(client: Client, params: dict[str, Any]) -> None:
    assert (await client.error("workflow.list", params))["code"] == -32602


@pytest.mark.parametrize(
    "method", ["", "rpc.discover", "workflow", "__class__", "workflow.create\x00", "execution.watch"]
)
async def test_methods_that_are_not_offered_do_not_exist(client: Client, method: str) -> None:
    answer = await client.http.post(
        "/api/v1/jsonrpc", content=orjson.dumps({"jsonrpc": "2.0", "method": method, "id": 1})
    )
    assert answer.json()["error"]["code"] in (-32601, -32700)
