"""Large payloads are compressed, small ones stay readable, and a bomb is not let off."""

import secrets
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload

from engine.temporal import codec
from engine.temporal.codec import ENCODING, THREAD_ABOVE_BYTES, THRESHOLD_BYTES, CompressionCodec


def payload(data: bytes) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=data)


@given(st.lists(st.binary(max_size=100) | st.binary(min_size=100, max_size=200).map(lambda b: b * 300), max_size=4))
async def test_whatever_is_encoded_comes_back(bodies: list[bytes]) -> None:
    payloads = [payload(body) for body in bodies]
    assert await CompressionCodec().decode(await CompressionCodec().encode(payloads)) == payloads


async def test_small_payloads_are_left_alone_and_large_ones_shrink() -> None:
    small, large = payload(b"x" * (THRESHOLD_BYTES - 1)), payload(b"x" * THRESHOLD_BYTES)
    [same, packed] = await CompressionCodec().encode([small, large])
    assert same == small
    assert packed.metadata["encoding"] == ENCODING
    assert len(packed.data) < 1_000


async def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte above the limit too: by then all input may have been read."""
    monkeypatch.setattr(codec, "DECODED_BYTES_MAX", 100_000)
    for size in (1_000_000, 100_001, 100_050):
        bomb = Payload(metadata={"encoding": ENCODING}, data=zlib.compress(b"\0" * size))
        with pytest.raises(ValueError, match="larger than 100000 bytes"):
            await CompressionCodec().decode([bomb])


async def test_a_payload_that_is_cut_off_is_refused() -> None:
    [packed] = await CompressionCodec().encode([payload(bytes(range(256)) * 100)])
    cut = Payload(metadata={"encoding": ENCODING}, data=packed.data[:-10])
    with pytest.raises(ValueError, match="cut off"):
        await CompressionCodec().decode([cut])


@pytest.mark.parametrize("data", [b"not zlib", zlib.compress(b"\xff not a payload")])
async def test_what_is_not_what_its_encoding_says_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not what its encoding says"):
        await CompressionCodec().decode([Payload(metadata={"encoding": ENCODING}, data=data)])


async def test_what_does_not_compress_comes_back_too() -> None:
    large = payload(secrets.token_bytes(THREAD_ABOVE_BYTES + 1))
    [packed] = await CompressionCodec().encode([large])
    assert len(packed.data) > THREAD_ABOVE_BYTES
    assert await CompressionCodec().decode([packed]) == [large]
