"""JSON on its way into PostgreSQL."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidParametersError
from engine.postgres.documents import client_document, raw_document, reported_document, storable_text

texts = st.text('a\x00\\u0/"\n', max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(has_nul(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(has_nul(part) for part in value)
    return isinstance(value, str) and "\x00" in value


def without_nul(value: Any) -> Any:
    if isinstance(value, dict):
        return {without_nul(key): without_nul(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_nul(part) for part in value]
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else value


@given(values)
def test_a_clients_document_is_itself_or_refused_for_its_nul_characters(value: Any) -> None:
    if has_nul(value):
        with pytest.raises(InvalidParametersError):
            client_document(value)
    else:
        assert orjson.loads(client_document(value)) == value


@given(values)
def test_a_reported_document_loses_nothing_but_nul_characters(value: Any) -> None:
    assert orjson.loads(reported_document(value)) == without_nul(value)
    assert orjson.loads(raw_document(value)) == value


@pytest.mark.parametrize("value", ["\ud800", 2**64, object(), {"x": {1, 2}}])
def test_what_json_cannot_hold_is_the_clients_error(value: Any) -> None:
    with pytest.raises(InvalidParametersError):
        client_document(value)


def test_a_report_beyond_the_fast_encoder_is_stored_all_the_same() -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    for value in (2**70, deep):
        assert json.loads(raw_document(value)) == value


def test_storable_text_has_neither_nul_nor_surrogates() -> None:
    assert storable_text("a\x00b\ud800c✓") == "a\ufffdb?c✓"
