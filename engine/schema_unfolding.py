"""How much work a JSON Schema's references make of one value.

A definition that refers twice to another, which refers twice to a third, is short and takes for ever. What a schema
says of a value in one place is counted here with its references unfolded; what it says of a value's parts, for as many
levels as the value has. Counting takes a moment for each definition and level, not for each unfolding.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from engine.errors import EngineError

STEPS_MAX: Final = 100_000
"""Parts of the schema that are looked at for one place of a value, or one path into it."""
DEPTH_MAX: Final = 200
"""The validator refuses values that are nested about as deep."""

OPEN_MAX: Final = 80
"""Schemas within each other and behind references that are looked at at once."""

KNOWN_ELSEWHERE: Final = ("https://json-schema.org/", "http://json-schema.org/")
REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
OF_ELEMENTS: Final = frozenset({"items", "prefixItems", "additionalItems", "contains", "unevaluatedItems"})
OF_MEMBERS: Final = frozenset(
    {"properties", "patternProperties", "additionalProperties", "propertyNames", "unevaluatedProperties"}
)
NO_SCHEMAS: Final = frozenset({"const", "enum", "default", "examples", "$defs", "definitions", "required", "type"})

Path = tuple[str | int, ...]
Steps = tuple[int, int, int]
NO_STEPS: Final[Steps] = (0, 0, 0)
ONE_STEP: Final[Steps] = (1, 0, 0)


class UnfoldingError(EngineError):
    """Too much work, or a reference that nobody can follow. `data["path"]` is where."""

    code = "SCHEMA_UNFOLDS_TOO_FAR"


class Unfolding:
    """The work of one schema. Raises UnfoldingError when it is too much whatever the value."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._named: dict[str, Any] = {"": document, "#": document}
        self._name(document)
        self._steps: dict[tuple[int, int], Steps] = {}
        self._open: set[tuple[int, int]] = set()
        self.refers = self._refers(document)
        if self.refers:
            self.check(0)

    def check(self, depth: int) -> None:
        """For values that are nested so deep. Raises UnfoldingError."""
        if self.refers:
            # From the ground up: what a level asks of the one below it is known then.
            for level in range(min(depth, DEPTH_MAX) + 1):
                self._level(self._document, level, ())

    def _level(self, schema: Any, depth: int, path: Path) -> int:
        """Of one place of the value and what lies below it: it has elements or members, not both."""
        here, elements, members = self._work(schema, depth, path)
        return here + max(elements, members)

    def _work(self, schema: Any, depth: int, path: Path) -> Steps:
        """Of the place itself; of its elements, if it has any; of its members."""
        if isinstance(schema, list):
            return _sum(self._work(part, depth, (*path, n)) for n, part in enumerate(schema))
        if not isinstance(schema, Mapping):
            return NO_STEPS
        key = (id(schema), depth)
        if key in self._steps:
            return self._steps[key]
        if key in self._open:
            return ONE_STEP  # the validator ends there too
        if len(self._open) > OPEN_MAX:
            raise UnfoldingError(f"refers to what refers further, more than {OPEN_MAX} times", path=_in_document(path))
        self._open.add(key)
        steps = _sum([ONE_STEP, *(self._of_keyword(name, part, depth, (*path, name)) for name, part in schema.items())])
        self._open.discard(key)
        if steps[0] + max(steps[1:]) > STEPS_MAX:
            raise UnfoldingError(f"unfolds to more than {STEPS_MAX:,} steps", path=_in_document(path))
        self._steps[key] = steps
        return steps

    def _of_keyword(self, name: str, part: Any, depth: int, path: Path) -> Steps:
        if name in REFERENCES and isinstance(part, str):
            return self._work(self._target(part, path), depth, path)
        if name in OF_ELEMENTS or name in OF_MEMBERS:
            below = self._of_parts(name, part, depth - 1, path) if depth else 0
            return (0, below, 0) if name in OF_ELEMENTS else (0, 0, below)
        return NO_STEPS if name in NO_SCHEMAS else self._work(part, depth, path)

    def _of_parts(self, name: str, part: Any, depth: int, path: Path) -> int:
        if name == "properties" and isinstance(part, Mapping):
            # Each says something of another member.
            return max((self._level(one, depth, (*path, member)) for member, one in part.items()), default=0)
        return self._level(part, depth, path)

    def _target(self, reference: str, path: Path) -> Any:
        if reference in self._named:
            return self._named[reference]
        base, _, pointer = reference.partition("#")
        if base in self._named and (not pointer or pointer.startswith("/")):
            return _at(self._named[base], pointer)
        if reference.startswith(KNOWN_ELSEWHERE):
            return True
        raise UnfoldingError(f"refers to {reference[:100]!r}: write references as #/...", path=_in_document(path))

    def _name(self, part: Any) -> None:
        for schema in _schemas(part):
            for name, form in (("$id", "{}"), ("$anchor", "#{}"), ("$dynamicAnchor", "#{}")):
                if isinstance(schema.get(name), str):
                    self._named.setdefault(form.format(schema[name].removesuffix("#")), schema)

    def _refers(self, part: Any) -> bool:
        return any(name in schema for schema in _schemas(part) for name in REFERENCES)


def depth_of(value: Any) -> int:
    """How deep it is nested, up to DEPTH_MAX."""
    level, depth = [value], 0
    while depth < DEPTH_MAX:
        level = [part for one in level if isinstance(one, dict | list) for part in _parts(one)]
        if not level:
            return depth
        depth += 1
    return depth


def _sum(steps: Iterable[Steps]) -> Steps:
    here = elements = members = 0
    for one in steps:
        here, elements, members = here + one[0], elements + one[1], members + one[2]
    return here, elements, members


def _schemas(part: Any) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    waiting = [part]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            found.append(one)
        if isinstance(one, Mapping | list):
            waiting.extend(_parts(one))
    return found


def _parts(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else list(value)


def _in_document(path: Path) -> list[str | int]:
    """Up to the first reference: what lies behind it is somewhere else in the document."""
    ends = (n for n, name in enumerate(path, 1) if name in REFERENCES)
    return list(path[: next(ends, len(path))])


def _at(document: Any, pointer: str) -> Any:
    for token in unquote(pointer).split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        try:
            document = document[int(name)] if isinstance(document, list) else document[name]
        except (KeyError, IndexError, ValueError, TypeError):
            return True  # the validator has said so already
    return document
