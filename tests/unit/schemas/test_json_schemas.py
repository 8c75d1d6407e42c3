"""JSON Schemas that clients write."""

import time
from typing import Any

import pytest

from engine.json_schemas import VIOLATIONS_MAX, CompiledSchema, InvalidSchemaError


def test_violations_say_where_and_what() -> None:
    schema = CompiledSchema({"properties": {"parts": {"items": {"type": "integer"}}}})
    assert schema.violations({"parts": [1, 2]}) == []
    assert schema.violations({"parts": [1, "two"]}) == ['parts.1: "two" is not of type "integer"']


def test_there_are_only_so_many_violations_and_each_is_short() -> None:
    found = CompiledSchema({"items": {"type": "integer"}}).violations(["x" * 1_000] * 100)
    assert len(found) == VIOLATIONS_MAX
    assert all(len(text) < 320 for text in found)


def test_true_takes_everything_and_false_nothing() -> None:
    assert CompiledSchema(True).violations(1) == []
    assert CompiledSchema(False).violations(1)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "nonsense"}, ["type"]),
        ({"properties": {"a": {"minimum": "low"}}}, ["properties", "a", "minimum"]),
        ({"pattern": "(a"}, ["pattern"]),
        ({"pattern": "(?=a)b"}, ["pattern"]),
        ({"$ref": "http://127.0.0.1:1/other"}, []),
        ({"$ref": "file:///etc/hostname"}, []),
        ({"$ref": "#/$defs/absent"}, []),
        ({"$schema": "http://127.0.0.1:1/dialect"}, []),
        ({"pattern": "(a{1000}){1000}"}, ["pattern"]),
    ],
)
def test_what_is_no_schema_or_reaches_outside_is_refused(schema: dict[str, Any], path: list[str]) -> None:
    with pytest.raises(InvalidSchemaError) as refusal:
        CompiledSchema(schema)
    assert refusal.value.data["path"] == path


def test_a_schema_that_refers_to_itself_ends() -> None:
    assert CompiledSchema({"$ref": "#"}).violations([[]]) == []


def test_patterns_that_would_backtrack_for_ever_do_not() -> None:
    began = time.monotonic()
    assert CompiledSchema({"pattern": "^(a+)+$"}).violations("a" * 5_000 + "b")
    assert time.monotonic() - began < 1.0


def nested(levels: int, inner: Any = 1) -> Any:
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize("value", ["\ud800", nested(1_000)], ids=["no Unicode", "too deep"])
def test_a_value_that_cannot_be_checked_does_not_fit(value: Any) -> None:
    [found] = CompiledSchema({"type": "string"}).violations(value)
    assert found.startswith("cannot be checked")


def test_what_no_json_document_can_hold_is_refused() -> None:
    schema: dict[Any, Any] = {"properties": {1: {}}}
    with pytest.raises(InvalidSchemaError):
        CompiledSchema(schema)
