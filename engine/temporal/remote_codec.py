"""Temporal's remote codec protocol: payloads as JSON in, payloads as JSON out, for its UI and its command.

It works on what the caller has sent and on nothing else: what is compressed is decompressed, and a claim check stays
what it is. So it can show nobody more than they hold already.
"""

from typing import Any, Final, Literal

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from temporalio.api.common.v1 import Payload, Payloads

from engine.errors import InvalidParametersError, TooLargeError
from engine.temporal.claims import EXECUTION_MARK, PLAN_MARK, marked
from engine.temporal.codec import THRESHOLD_BYTES, compressed, decompressed

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of all payloads of a request together, decompressed."""

PAYLOADS_MAX: Final = 1_000

Direction = Literal["decode", "encode"]


def transcode(direction: Direction, document: Any, tenant: str) -> dict[str, Any]:
    """Raises InvalidParametersError for what is not the protocol, TooLargeError for what grows too large."""
    try:
        given = ParseDict(document, Payloads()).payloads if isinstance(document, dict) else None
    except ParseError as error:
        raise InvalidParametersError("the body is not a list of Temporal payloads") from error
    if given is None or len(given) > PAYLOADS_MAX:
        raise InvalidParametersError(f"send an object with `payloads`, at most {PAYLOADS_MAX}")
    answer, left = Payloads(), ANSWER_BYTES_MAX
    for payload in given:
        made = _decoded(payload, tenant, left) if direction == "decode" else _encoded(payload)
        left -= len(made.data)
        answer.payloads.append(made)
    return MessageToDict(answer)


def _decoded(payload: Payload, tenant: str, bytes_max: int) -> Payload:
    try:
        if bytes_max <= 0:
            raise ValueError("nothing is left")
        inner = decompressed(payload, bytes_max)
        return inner if _may_see(inner, tenant) else payload
    except ValueError as error:
        message = f"a payload is malformed, or all are more than {ANSWER_BYTES_MAX} bytes together"
        raise TooLargeError(message, bytes_max=ANSWER_BYTES_MAX) from error


def _may_see(payload: Payload, tenant: str) -> bool:
    """Where a payload says whose it is. Most do not."""
    marks = [payload.metadata[key] for key in (PLAN_MARK, EXECUTION_MARK) if key in payload.metadata]
    return all(marked(mark)[0] == tenant for mark in marks)


def _encoded(payload: Payload) -> Payload:
    return compressed(payload) if len(payload.data) >= THRESHOLD_BYTES else payload
