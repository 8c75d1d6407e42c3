"""What is known of values before anything runs: their kinds, and the fields of objects.

Only what is certain is a problem: a value that may be of the right kind passes, and shows when it is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

KINDS: Final = frozenset({"null", "boolean", "number", "string", "list", "object"})

_JSON_SCHEMA_KINDS: Final[Mapping[str, str]] = {
    "null": "null",
    "boolean": "boolean",
    "integer": "number",
    "number": "number",
    "string": "string",
    "array": "list",
    "object": "object",
}


@dataclass(frozen=True)
class Shape:
    """`kinds` it may be of. `fields` are those of an object that are known; `closed`: it has no others; `sure`: it has
    all of them."""

    kinds: frozenset[str] = KINDS
    fields: Mapping[str, "Shape"] = field(default_factory=dict)
    closed: bool = False
    sure: bool = False

    def of_field(self, name: str) -> "Shape | None":
        """None: there is certainly no such field."""
        found = self.fields.get(name)
        if found is not None:
            return found if self.sure else Shape(found.kinds | {"null"}, found.fields, found.closed, found.sure)
        return None if self.closed else ANY


ANY: Final = Shape()


def of_kinds(*kinds: str) -> Shape:
    return Shape(frozenset(kinds))


def closed_object(**fields: Shape) -> Shape:
    return Shape(frozenset({"object"}), fields, closed=True, sure=True)


def shape_of_schema(schema: Mapping[str, Any]) -> Shape:
    """Of the settings that a JSON Schema describes, as far as its first level says."""
    properties = schema.get("properties")
    fields = (
        {name: Shape(_kinds_of_schema(inner)) for name, inner in properties.items()}
        if isinstance(properties, dict)
        else {}
    )
    closed = schema.get("additionalProperties") is False and not {"patternProperties", "allOf", "$ref"} & schema.keys()
    return Shape(frozenset({"object"}), fields, closed)


def _kinds_of_schema(schema: Any) -> frozenset[str]:
    if not isinstance(schema, dict) or "type" not in schema:
        return KINDS
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return frozenset(_JSON_SCHEMA_KINDS[name] for name in types if name in _JSON_SCHEMA_KINDS) or KINDS
