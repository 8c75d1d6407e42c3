"""Compression of large payloads on their way to Temporal. Small ones stay readable as they are."""

import zlib
from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

ENCODING = b"binary/zlib"
THRESHOLD_BYTES = 16 * 1024
DECODED_BYTES_MAX = 64 * 1024 * 1024


class CompressionCodec(PayloadCodec):
    """zlib above a size. Stateless, and needs no key: it hides nothing, it only saves room."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encode(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._decode(payload) for payload in payloads]

    @staticmethod
    def _encode(payload: Payload) -> Payload:
        if len(payload.data) < THRESHOLD_BYTES:
            return payload
        packed = zlib.compress(payload.SerializeToString(), level=1)
        return Payload(metadata={"encoding": ENCODING}, data=packed)

    @staticmethod
    def _decode(payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        unpacked = zlib.decompressobj()
        data = unpacked.decompress(payload.data, DECODED_BYTES_MAX)
        if not unpacked.eof:
            # Not by `unconsumed_tail`: all input may have been read while some output is still to come.
            raise ValueError(f"a payload is cut off, or larger than {DECODED_BYTES_MAX} bytes when decompressed")
        return Payload.FromString(data)
