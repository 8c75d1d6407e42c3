"""JSON on its way into PostgreSQL.

What a client sends is refused when it cannot be stored; what an agent reports is stored whatever it holds, because
a result must not stop a tick: there NUL characters, which jsonb refuses, become U+FFFD.
"""

import json
import re
from typing import Any

import orjson

from engine.errors import InvalidParametersError

_ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def client_document(value: Any) -> bytes:
    """JSON of what a client sent. Raises InvalidParametersError for what JSON or PostgreSQL cannot hold."""
    try:
        document = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise InvalidParametersError(f"a value cannot be stored as JSON: {error}") from error
    if b"\\u0000" in document and _ESCAPED_NUL.search(document):
        raise InvalidParametersError("a value holds a NUL character, which cannot be stored")
    return document


def reported_document(value: Any) -> bytes:
    """JSON of what the engine or an agent produced, for jsonb."""
    document = raw_document(value)
    return _ESCAPED_NUL.sub(rb"\1\\ufffd", document) if b"\\u0000" in document else document


def raw_document(value: Any) -> bytes:
    """JSON as it stands, for columns of type json or text, which hold escaped NUL characters."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Beyond orjson: numbers over 64 bits, very deep nesting.
        return json.dumps(value, default=str).encode()


def storable_text(text: str) -> str:
    """Text that PostgreSQL takes: no NUL characters, no lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
