"""The codec endpoint: decompresses what the caller holds, shows nothing more, and cannot be made to swell."""

import base64
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from temporalio.api.common.v1 import Payload

from engine.temporal import remote_codec
from engine.temporal.claims import EXECUTION_MARK, PLAN_MARK
from engine.temporal.codec import ENCODING, REFERENCE_ENCODING, THRESHOLD_BYTES, compressed
from tests.unit.gateway.conftest import Gateway, settings_of

DECODE, ENCODE = "/api/v1/codec/decode", "/api/v1/codec/encode"
UI_ORIGIN = "http://127.0.0.1:8233"
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"long":"' + b"x" * 20_000 + b'"}')


def as_json(payload: Payload) -> dict[str, Any]:
    def text(value: bytes) -> str:
        return base64.b64encode(value).decode()

    return {"metadata": {key: text(value) for key, value in payload.metadata.items()}, "data": text(payload.data)}


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(settings_of(temporal_ui_url=f"{UI_ORIGIN}/", allowed_origins="https://console.test"))


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with gateway.client("viewer") as client:
        yield client


async def ask(http: httpx.AsyncClient, *payloads: Payload, path: str = DECODE, **headers: str) -> httpx.Response:
    return await http.post(path, json={"payloads": [as_json(payload) for payload in payloads]}, headers=headers)


async def test_what_is_compressed_is_shown_and_anything_else_comes_back_as_it_is(http: httpx.AsyncClient) -> None:
    other = Payload(metadata={"encoding": b"binary/encrypted"}, data=b"\0\1")
    answer = await ask(http, compressed(PLAIN), other, Payload())
    assert answer.status_code == 200
    assert answer.json() == {"payloads": [as_json(PLAIN), as_json(other), {}]}


async def test_references_are_not_resolved(http: httpx.AsyncClient) -> None:
    metadata = {"encoding": REFERENCE_ENCODING, EXECUTION_MARK: b"default/1"}
    reference = Payload(metadata=metadata, data=b"sha256:1")
    plan = Payload(metadata={"encoding": b"json/plain", PLAN_MARK: b"default/1"}, data=b'{"plan":{"reference":"1"}}')
    answer = await ask(http, reference, compressed(plan))
    assert answer.json() == {"payloads": [as_json(reference), as_json(plan)]}


@pytest.mark.parametrize("value", [b"acme/1", b"acme", b"\xff/1"])
async def test_what_says_that_it_is_another_tenants_is_not_opened(http: httpx.AsyncClient, value: bytes) -> None:
    theirs = compressed(Payload(metadata={"encoding": b"json/plain", EXECUTION_MARK: value}, data=b"{}"))
    answer = await ask(http, theirs)
    if value == b"acme/1":
        assert answer.json() == {"payloads": [as_json(theirs)]}
    else:
        assert answer.status_code == 413


async def test_a_bomb_is_refused_and_so_are_many_small_ones(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_codec, "ANSWER_BYTES_MAX", 100_000)
    bomb = Payload(metadata={"encoding": ENCODING}, data=zlib.compress(b"\0" * 10_000_000))
    answer = await ask(http, bomb)
    assert answer.status_code == 413
    assert answer.json()["code"] == "TOO_LARGE"
    assert (await ask(http, *[compressed(PLAIN)] * 4)).status_code == 200
    assert (await ask(http, *[compressed(PLAIN)] * 5)).status_code == 413
    assert (await ask(http, *[compressed(PLAIN)] * 50)).status_code == 413


async def test_a_body_above_the_limit_is_refused() -> None:
    async with Gateway(settings_of(request_bytes_max=10_000)).client() as http:
        assert (await ask(http, PLAIN)).status_code == 413


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'"x"', b'{"payloads":1}', b'{"payloads":[{"data":1}]}', b'{"payloads":[{"other":1}]}']
)
async def test_what_is_not_the_protocol_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    assert (await http.post(DECODE, content=body)).status_code == 400


async def test_no_more_than_a_thousand_payloads(http: httpx.AsyncClient) -> None:
    assert (await ask(http, *[Payload()] * 1_001)).status_code == 400


async def test_encoding_compresses_what_is_large_and_decoding_undoes_it(http: httpx.AsyncClient) -> None:
    small = Payload(metadata={"encoding": b"json/plain"}, data=b"1")
    assert len(PLAIN.data) > THRESHOLD_BYTES
    encoded = (await ask(http, PLAIN, small, path=ENCODE)).json()["payloads"]
    assert encoded == [as_json(compressed(PLAIN)), as_json(small)]
    back = await http.post(DECODE, json={"payloads": encoded})
    assert back.json()["payloads"] == [as_json(PLAIN), as_json(small)]


@pytest.mark.parametrize("path", [DECODE, ENCODE])
async def test_without_a_token_nothing_is_done(gateway: Gateway, path: str) -> None:
    async with gateway.client(None) as http:
        answer = await ask(http, compressed(PLAIN), path=path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_another_namespace_is_not_this_engines(http: httpx.AsyncClient) -> None:
    assert (await ask(http, PLAIN, **{"X-Namespace": "default"})).status_code == 200
    assert (await ask(http, PLAIN, **{"X-Namespace": "other"})).status_code == 400


def preflight(origin: str) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-namespace",
    }


@pytest.mark.parametrize(
    ("origin", "path", "allowed"),
    [
        (UI_ORIGIN, DECODE, True),
        ("https://console.test", DECODE, True),
        ("http://evil.test", DECODE, False),
        ("http://127.0.0.1:8234", DECODE, False),
        (UI_ORIGIN, "/api/v1/workflows", False),
    ],
)
async def test_browsers_may_ask_from_the_uis_origin_and_only_here(
    http: httpx.AsyncClient, origin: str, path: str, allowed: bool
) -> None:
    answer = await http.options(path, headers=preflight(origin))
    assert (answer.status_code == 200) is allowed
    assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
    plain = await http.post(path, json={"payloads": []}, headers={"Origin": origin})
    assert plain.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)


async def test_without_a_ui_no_other_origin_is_allowed() -> None:
    async with Gateway(settings_of()).client() as http:
        answer = await http.options(DECODE, headers=preflight(UI_ORIGIN))
        assert "Access-Control-Allow-Origin" not in answer.headers
