"""The connection to Temporal, with the engine's way of writing payloads."""

import asyncio
import dataclasses

from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticPayloadConverter, ToJsonOptions
from temporalio.converter import DataConverter

from engine.errors import UnavailableError
from engine.settings import Settings
from engine.temporal.codec import CompressionCodec

CONNECT_TIMEOUT_SECONDS = 15.0


class SparsePayloadConverter(PydanticPayloadConverter):
    """Writes only the fields that were set: defaults would make up most of a large plan."""

    def __init__(self) -> None:
        super().__init__(ToJsonOptions(exclude_unset=True))


DATA_CONVERTER = dataclasses.replace(
    DataConverter.default, payload_converter_class=SparsePayloadConverter, payload_codec=CompressionCodec()
)


async def connect(settings: Settings) -> Client:
    """Raises UnavailableError when no server answers at `TEMPORAL_ADDRESS` in time."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            return await Client.connect(
                settings.temporal_address, namespace=settings.temporal_namespace, data_converter=DATA_CONVERTER
            )
    except (RuntimeError, TimeoutError) as error:
        raise UnavailableError(f"Temporal does not answer at {settings.temporal_address}") from error
