"""JSON Schemas that clients write: checked when they are registered, and used on settings in bounded time.

Regular expressions run in linear time, nothing is fetched, and a schema refers to its own parts only, in no circle and
not so often that it would unfold into more than `UNFOLDED_MAX` parts.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema_rs
import orjson

from planner.problems import Location, ProblemList, quoted

SCHEMA_BYTES_MAX: Final = 64 * 1024
UNFOLDED_MAX: Final = 20_000
DEPTH_MAX: Final = 64
REFERENCES_DEEP_MAX: Final = 20
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MESSAGE_LENGTH_MAX: Final = 300

_ELSEWHERE: Final = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary")


def check_schema(schema: dict[str, Any], root: Location, problems: ProblemList) -> None:
    """Add a problem for each reason why `schema` cannot be used."""
    try:
        size_bytes = len(orjson.dumps(schema))
    except TypeError as error:
        problems.add("INVALID_VALUE", root, f"is not plain JSON: {error}")
        return
    if size_bytes > SCHEMA_BYTES_MAX:
        problems.add("TOO_LARGE", root, f"has {size_bytes} bytes as JSON; at most {SCHEMA_BYTES_MAX} are taken")
        return
    before = problems.count
    _check_references(schema, root, problems)
    if problems.count > before:
        return
    try:
        jsonschema_rs.meta.validate(schema)
        _validator(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        at = tuple(getattr(error, "instance_path", ()))
        message = str(getattr(error, "message", error))[:MESSAGE_LENGTH_MAX]
        problems.add("INVALID_SCHEMA", (*root, *at), f"is not JSON Schema: {message}")


def check_settings_by_schema(
    settings: dict[str, Any], schema: dict[str, Any], root: Location, problems: ProblemList
) -> None:
    """Add a problem for each of the schema's complaints; `schema` has passed `check_schema`."""
    for error in _validator(schema).iter_errors(settings):
        location = (*root, *error.instance_path)
        kind = error.kind.name
        names: list[str] = []
        if kind == "required":
            names = [error.kind.as_dict()["property"]]
        elif kind in ("additionalProperties", "unevaluatedProperties"):
            names = list(error.kind.as_dict().get("unexpected", ()))
        code = {"required": "MISSING_FIELD", "additionalProperties": "UNKNOWN_FIELD"}.get(kind, "INVALID_VALUE")
        message = {"required": "is required", "additionalProperties": "is not a setting of this pattern"}.get(
            kind, error.message[:MESSAGE_LENGTH_MAX]
        )
        for at in [(*location, name) for name in names] or [location]:
            problems.add(code, at, message)


def with_defaults(settings: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, and the `default` of each property of the first level that they leave out."""
    properties = schema.get("properties")
    defaults = (
        {name: inner["default"] for name, inner in properties.items() if isinstance(inner, dict) and "default" in inner}
        if isinstance(properties, dict)
        else {}
    )
    return {**defaults, **settings}


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        schema, retriever=_refuse, pattern_options=jsonschema_rs.RegexOptions(), validate_formats=False
    )


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is not part of the schema")


def _check_references(schema: dict[str, Any], root: Location, problems: ProblemList) -> None:
    before = problems.count
    if schema.get("$schema", DIALECT) != DIALECT:
        problems.add("INVALID_SCHEMA", (*root, "$schema"), f"must be {DIALECT}, or be left out")
    for location, part in _parts(schema):
        if len(location) > DEPTH_MAX:
            problems.add("TOO_DEEP", (*root, *location), f"schemas are nested deeper than {DEPTH_MAX}")
            return
        for key in _ELSEWHERE:
            if key in part:
                message = 'is not taken here; refer to a part of this schema: "$ref": "#/$defs/name"'
                problems.add("INVALID_SCHEMA", (*root, *location, key), message)
        reference = part.get("$ref")
        if isinstance(reference, str) and _resolved(schema, reference) is None:
            message = f'{quoted(reference)} is no part of this schema; write "#/$defs/name"'
            problems.add("INVALID_SCHEMA", (*root, *location, "$ref"), message)
    if problems.count == before:
        _check_unfolded(schema, root, problems)


def _parts(schema: Any) -> Iterator[tuple[Location, dict[str, Any]]]:
    pending: list[tuple[Location, Any]] = [((), schema)]
    while pending:
        location, value = pending.pop()
        if isinstance(value, dict):
            yield location, value
            pending.extend(((*location, key), inner) for key, inner in value.items())
        elif isinstance(value, list):
            pending.extend(((*location, number), inner) for number, inner in enumerate(value))


def _resolved(schema: Any, reference: str) -> Any:
    if not reference.startswith("#/"):
        return None
    value = schema
    for step in reference[2:].split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def _check_unfolded(schema: dict[str, Any], root: Location, problems: ProblemList) -> None:
    """Sizes of parts with all references put in their place; each named part is measured once."""
    sizes: dict[str, int | None] = {}

    def size(value: Any) -> int:
        if isinstance(value, dict):
            reference = value.get("$ref")
            named = measured(reference) if isinstance(reference, str) else 0
            return 1 + named + sum(size(inner) for inner in value.values())
        return 1 + sum(map(size, value)) if isinstance(value, list) else 0

    def measured(reference: str) -> int:
        known = sizes.get(reference, 0)
        if known is None:
            raise _CircleError(f"{quoted(reference)} refers to itself; write the levels that there may be one by one")
        if len(sizes) - sum(made is not None for made in sizes.values()) >= REFERENCES_DEEP_MAX:
            raise _CircleError(f"{quoted(reference)} is more than {REFERENCES_DEEP_MAX} references deep; nest less")
        if reference not in sizes:
            sizes[reference] = None
            sizes[reference] = size(_resolved(schema, reference))
        return sizes[reference] or 0

    try:
        whole = size(schema)
    except _CircleError as error:
        problems.add("INVALID_SCHEMA", root, str(error))
        return
    if whole > UNFOLDED_MAX:
        message = f"unfolds into {whole} parts; at most {UNFOLDED_MAX} are taken: refer less often"
        problems.add("TOO_LARGE", root, message)


class _CircleError(Exception):
    """A part that refers to itself, or through too many others."""
