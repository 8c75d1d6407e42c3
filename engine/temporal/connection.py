"""The connection to Temporal, with the engine's way of writing payloads."""

import asyncio
import dataclasses
from functools import cache

from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticPayloadConverter, ToJsonOptions
from temporalio.converter import CompositePayloadConverter, DataConverter, EncodingPayloadConverter

from engine.errors import UnavailableError
from engine.plans import PlanLoader
from engine.ports import PayloadStore
from engine.settings import Settings
from engine.temporal.claims import ClaimCheckConverter
from engine.temporal.codec import CompressionCodec
from engine.temporal.handover import HandedPayloadConverter

CONNECT_TIMEOUT_SECONDS = 15.0


class SparsePayloadConverter(CompositePayloadConverter):
    """Writes only the fields that were set: defaults would make up most of a large plan.

    The SDK makes one for every activation of a workflow; the converters in it keep no state and are made once.
    """

    def __init__(self) -> None:
        self.converters = _converters()


@cache
def _converters() -> dict[bytes, EncodingPayloadConverter]:
    options = ToJsonOptions(exclude_unset=True)
    handed, json = HandedPayloadConverter(), ClaimCheckConverter(options)
    usual = PydanticPayloadConverter(options).converters
    return {handed.encoding.encode(): handed, **usual, json.encoding.encode(): json}


DATA_CONVERTER = dataclasses.replace(
    DataConverter.default, payload_converter_class=SparsePayloadConverter, payload_codec=CompressionCodec()
)
"""For what needs no database: it leaves claim checks as they are."""


async def connect(settings: Settings, plans: PlanLoader | None = None, payloads: PayloadStore | None = None) -> Client:
    """Raises UnavailableError when no server answers at `TEMPORAL_ADDRESS` in time.

    Whoever reads executions' arguments, as workers and replay do, gives the two stores to read claim checks from.
    """
    converter = dataclasses.replace(DATA_CONVERTER, payload_codec=CompressionCodec(plans, payloads))
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            return await Client.connect(
                settings.temporal_address, namespace=settings.temporal_namespace, data_converter=converter
            )
    except (RuntimeError, TimeoutError) as error:
        raise UnavailableError(f"Temporal does not answer at {settings.temporal_address}") from error
