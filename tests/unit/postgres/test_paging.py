"""Page tokens: opaque, of their own alphabet, and refused when forged."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidParametersError
from engine.postgres.paging import check_limit, decode_token, encode_token

moments = st.datetimes(timezones=st.just(UTC))
TYPES = (datetime, UUID, int, str)
keys = st.tuples(moments, st.uuids(), st.integers(0, 2**63 - 1), st.text("abc-_ü🎈", max_size=60))


@given(keys)
def test_a_token_gives_back_its_key(key: tuple[Any, ...]) -> None:
    token = encode_token("things", key)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert decode_token("things", token, TYPES) == list(key)


@given(keys, st.integers(0, 10_000), st.sampled_from("AZaz09-_=+/ ü\x00"))
def test_a_changed_token_is_refused_or_is_another_key_of_the_right_types(
    key: tuple[Any, ...], position: int, replacement: str
) -> None:
    token = encode_token("things", key)
    position %= len(token)
    forged = token[:position] + replacement + token[position + 1 :]
    try:
        decoded = decode_token("things", forged, TYPES)
    except InvalidParametersError:
        return
    assert decoded is not None
    assert encode_token("things", decoded) == forged
    assert all(isinstance(value, kind) for value, kind in zip(decoded, TYPES, strict=True))


@given(st.text(max_size=80))
def test_any_text_is_refused_and_never_fails_otherwise(token: str) -> None:
    with pytest.raises(InvalidParametersError):
        decode_token("things", token, TYPES)


@pytest.mark.parametrize(
    ("key", "types"),
    [
        ((True,), (int,)),
        ((-1,), (int,)),
        ((2**63,), (int,)),
        (("1",), (int,)),
        (("2026-01-01T00:00:00",), (datetime,)),
        (("yesterday",), (datetime,)),
        (("nothing",), (UUID,)),
        ((7,), (UUID,)),
        (("a\x00b",), (str,)),
        ((1, 2), (int,)),
        ((), (int,)),
    ],
)
def test_a_key_of_the_wrong_kind_is_refused(key: tuple[Any, ...], types: tuple[type, ...]) -> None:
    with pytest.raises(InvalidParametersError):
        decode_token("things", encode_token("things", key), types)


def test_a_token_of_another_listing_or_a_huge_one_is_refused() -> None:
    with pytest.raises(InvalidParametersError):
        decode_token("others", encode_token("things", (1,)), (int,))
    with pytest.raises(InvalidParametersError):
        decode_token("things", encode_token("things", ("x" * 2000,)), (str,))


def test_without_a_token_a_listing_begins_at_its_start() -> None:
    assert decode_token("things", None, TYPES) is None


def test_a_page_has_one_to_a_thousand_items() -> None:
    check_limit(1)
    check_limit(1000)
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidParametersError):
            check_limit(limit)
