"""Keyset pagination. A token holds the listing's name and the last row's key; it is opaque to clients."""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from engine.contracts.limits import PAGE_SIZE_MAX
from engine.errors import InvalidParametersError

_TOKEN_LENGTH_MAX = 1024


def check_limit(limit: int) -> None:
    if not 1 <= limit <= PAGE_SIZE_MAX:
        raise InvalidParametersError(f"limit must be between 1 and {PAGE_SIZE_MAX}")


def encode_token(listing: str, key: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([listing, *key])).rstrip(b"=").decode()


def decode_token(listing: str, token: str | None, types: Sequence[type]) -> list[Any] | None:
    """The key in the token; None without one. Raises InvalidParametersError for what this listing never gave."""
    if token is None:
        return None
    try:
        if len(token) > _TOKEN_LENGTH_MAX:
            raise ValueError("too long")
        raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        name, *values = orjson.loads(raw)
        if name != listing or len(values) != len(types):
            raise ValueError("another listing's")
        key = [_decode(value, kind) for value, kind in zip(values, types, strict=True)]
        if encode_token(listing, key) != token:
            raise ValueError("not canonical")
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidParametersError("page_token is not one that this listing gave") from error
    return key


def _decode(value: Any, kind: type) -> Any:
    if kind is int:
        if type(value) is not int or not 0 <= value < 2**63:
            raise ValueError("not a position")
        return value
    if not isinstance(value, str) or "\x00" in value:
        raise ValueError("not text")
    if kind is UUID:
        return UUID(value)
    if kind is datetime:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return moment
    return value
