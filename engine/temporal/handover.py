"""The payload of a tick that is handed to its local activity as an object: a number in place of the tick."""

from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.converter import EncodingPayloadConverter

from engine.contracts.handover import HandedTick, taken

ENCODING = "orchestrator/handed"


class HandedPayloadConverter(EncodingPayloadConverter):
    """For `HandedTick` alone."""

    @property
    def encoding(self) -> str:
        return ENCODING

    def to_payload(self, value: Any) -> Payload | None:
        if not isinstance(value, HandedTick):
            return None
        return Payload(metadata={"encoding": ENCODING.encode()}, data=str(value.token).encode())

    def from_payload(self, payload: Payload, type_hint: Any = None) -> HandedTick:  # noqa: ARG002 - the SDK's signature
        return taken(int(payload.data))
