"""What becomes of payloads between this process and Temporal: large ones are compressed, and some are claim checks.

- Above a size, zlib. Small payloads stay readable as they are.
- An argument that names its plan (see `engine.temporal.claims`) is given to the converter when that plan is in this
  process's cache; the plan itself never passes through here.
- What a run hands to the next one goes to PostgreSQL when it is large even when compressed: an argument above
  Temporal's limit would leave the execution stuck for good.
"""

import asyncio
import zlib
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from engine.contracts.limits import CARRY_INLINE_BYTES_MAX
from engine.plans import PlanLoader
from engine.ports import PayloadStore
from engine.temporal.claims import EXECUTION_MARK, PLAN_MARK, marked

ENCODING: Final = b"binary/zlib"
REFERENCE_ENCODING: Final = b"orchestrator/reference"
"""The payload is in PostgreSQL; the data is its reference."""

THRESHOLD_BYTES: Final = 16 * 1024
THREAD_ABOVE_BYTES: Final = 256 * 1024
DECODED_BYTES_MAX: Final = 64 * 1024 * 1024
STORE_TIMEOUT_SECONDS: Final = 15.0


class CompressionCodec(PayloadCodec):
    """Needs no key: it hides nothing, it only saves room. Without the two stores it leaves claim checks as they are."""

    def __init__(self, plans: PlanLoader | None = None, payloads: PayloadStore | None = None) -> None:
        self._plans = plans
        self._payloads = payloads

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [payload if len(payload.data) < THRESHOLD_BYTES else await self._encode(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [await self._decode(payload) if payload.metadata else payload for payload in payloads]

    async def _encode(self, payload: Payload) -> Payload:
        if len(payload.data) <= THREAD_ABOVE_BYTES:
            packed = compressed(payload)
        else:
            packed = await asyncio.to_thread(compressed, payload)
        mark = payload.metadata.get(EXECUTION_MARK)
        if len(packed.data) <= CARRY_INLINE_BYTES_MAX or mark is None or self._payloads is None:
            return packed
        tenant, execution_id = marked(mark)
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            reference = await self._payloads.put_payload(tenant, UUID(execution_id), packed.SerializeToString())
        metadata = {"encoding": REFERENCE_ENCODING, EXECUTION_MARK: mark}
        return Payload(metadata=metadata, data=reference.encode())

    async def _decode(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") == REFERENCE_ENCODING and self._payloads is not None:
            payload = await self._fetched(payload, self._payloads)
        if payload.metadata.get("encoding") == ENCODING:
            if len(payload.data) <= THREAD_ABOVE_BYTES:
                payload = decompressed(payload)
            else:
                payload = await asyncio.to_thread(decompressed, payload)
        plan_mark = payload.metadata.get(PLAN_MARK)
        if plan_mark is not None and self._plans is not None:
            await self._plans.load(*marked(plan_mark))
        return payload

    async def _fetched(self, payload: Payload, payloads: PayloadStore) -> Payload:
        mark = payload.metadata.get(EXECUTION_MARK, b"")
        tenant, execution_id = marked(mark)
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            stored = await payloads.payload(tenant, UUID(execution_id), payload.data.decode())
        return Payload.FromString(stored)


def decompressed(payload: Payload, bytes_max: int | None = None) -> Payload:
    """What was compressed, and any other payload as it is. Raises ValueError for what is malformed or too large."""
    bytes_max = bytes_max or DECODED_BYTES_MAX
    if payload.metadata.get("encoding") != ENCODING:
        return payload
    unpacked = zlib.decompressobj()
    try:
        data = unpacked.decompress(payload.data, bytes_max)
    except zlib.error as error:
        raise ValueError("a payload is not what its encoding says") from error
    if not unpacked.eof:
        # Not by `unconsumed_tail`: all input may have been read while some output is still to come.
        raise ValueError(f"a payload is cut off, or larger than {bytes_max} bytes when decompressed")
    try:
        return Payload.FromString(data)
    except DecodeError as error:
        raise ValueError("a payload is not what its encoding says") from error


def compressed(payload: Payload) -> Payload:
    return Payload(metadata={"encoding": ENCODING}, data=zlib.compress(payload.SerializeToString(), level=1))
