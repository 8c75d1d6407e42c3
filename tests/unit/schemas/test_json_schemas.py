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


def doubling(levels: int) -> dict[str, Any]:
    """Short, and twice as much work with each level."""
    definitions: dict[str, Any] = {"a0": {"type": "integer"}}
    for n in range(1, levels + 1):
        below = {"$ref": f"#/$defs/a{n - 1}"}
        definitions[f"a{n}"] = {"allOf": [below, below]}
    return {"$defs": definitions, "properties": {"x": {"$ref": f"#/$defs/a{levels}"}}, "$ref": f"#/$defs/a{levels}"}


def test_references_that_unfold_without_end_are_refused_with_where() -> None:
    assert CompiledSchema(doubling(10)).violations(1) == []
    began = time.monotonic()
    with pytest.raises(InvalidSchemaError, match="unfolds to more than 100,000 steps") as refusal:
        CompiledSchema(doubling(35))
    assert time.monotonic() - began < 1.0
    assert refusal.value.data["path"] == ["$ref"]


def test_references_behind_references_are_limited() -> None:
    with pytest.raises(InvalidSchemaError, match="refers further"):
        CompiledSchema(doubling(400))


def test_a_schema_that_looks_twice_at_each_level_takes_shallow_values_only() -> None:
    twice = CompiledSchema({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]})
    assert twice.violations(nested(8)) == []
    began = time.monotonic()
    assert "nested so deep" in twice.violations(nested(60))[0]
    assert time.monotonic() - began < 1.0


def test_a_tree_is_checked_however_deep_it_is() -> None:
    tree = CompiledSchema(
        {
            "oneOf": [
                {"type": "integer"},
                {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
                {"type": "array", "items": {"$ref": "#"}},
            ]
        }
    )
    value: Any = 1
    for _ in range(50):
        value = {"left": [value], "right": 2}
    assert tree.violations(value) == []
    assert tree.violations({"left": ["x"]})


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"n": {"$anchor": "number", "type": "integer"}}, "$ref": "#number"},
        {"$defs": {"n": {"$id": "urn:n", "type": "integer"}}, "$ref": "urn:n"},
        {"$defs": {"a/b": {"anyOf": [{"type": "integer"}]}}, "$ref": "#/$defs/a~1b/anyOf/0"},
    ],
)
def test_references_by_name_and_by_pointer_are_followed(schema: dict[str, Any]) -> None:
    compiled = CompiledSchema(schema)
    assert compiled.violations(1) == []
    assert compiled.violations("one")


def test_a_reference_whose_work_cannot_be_told_is_refused() -> None:
    relative = {"$id": "http://a/b/c", "$defs": {"n": {"$id": "../n", "type": "integer"}}, "$ref": "http://a/n"}
    with pytest.raises(InvalidSchemaError, match="write references as"):
        CompiledSchema(relative)
