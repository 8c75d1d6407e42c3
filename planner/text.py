"""JSON or YAML text to a plain object, safely.

YAML is built from the parser's events rather than by its constructors: nesting, aliases and their expansion are
bounded, keys must be unique, and scalars follow YAML 1.2's core schema, so that `no`, `on` or a date stay the
strings they look like. Infinity and NaN are refused in both, since JSON cannot carry them.
"""

import json
import math
import re
from typing import Any, Final

import yaml

from engine.contracts.limits import REQUEST_BYTES_MAX
from engine.contracts.plan import Problem
from engine.errors import InvalidDefinitionError
from planner.problems import invalid_definition, kind_of, quoted

DEPTH_MAX: Final = 100
"""Nesting of objects and lists in a text."""

ALIASES_MAX: Final = 1_000
NODES_MAX: Final = 1_000_000
"""Values in a YAML text with its aliases expanded."""

_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_OCTAL = re.compile(r"0o[0-7]{1,100}")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_STRING_TAGS = ("!", "tag:yaml.org,2002:str")
_PLAIN_TAGS = (None, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def parse_text(text: str, bytes_max: int = REQUEST_BYTES_MAX) -> dict[str, Any]:
    """The object that a JSON or YAML text holds. Raises InvalidDefinitionError, located by line and column."""
    size = len(text.encode(errors="surrogatepass"))
    if size > bytes_max:
        raise _refused("TOO_LARGE", f"the text has {size} bytes; at most {bytes_max} are taken")
    text = text.removeprefix("\ufeff")
    data = _parse_json(text) if text.lstrip()[:1] == "{" else _parse_yaml(text)
    if not isinstance(data, dict):
        raise _refused("INVALID_TYPE", f"must be an object, not {kind_of(data)}")
    return data


def _refused(code: str, message: str, mark: Any = None) -> InvalidDefinitionError:
    location = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return invalid_definition([Problem(code=code, location=location, message=message)], 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _refused("DUPLICATE_KEY", f"the key {quoted(key)} stands twice in one object; keep one")
            seen.add(key)
    return built


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _refused("NOT_FINITE", f"{quoted(text)} is not a finite number; JSON has none other")
    return value


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite)
    except json.JSONDecodeError as error:
        not_json = Problem(
            code="MALFORMED",
            location=f"line {error.lineno}, column {error.colno}",
            message=f"is not JSON: {error.msg}",
        )
    except RecursionError as error:
        raise _refused("TOO_DEEP", "objects and lists are nested too deeply") from error
    except ValueError as error:
        raise _refused("MALFORMED", f"a number cannot be read: {error}") from error
    try:
        return _parse_yaml(text)  # A mapping in YAML's flow style begins like JSON.
    except InvalidDefinitionError as error:
        if error.data["errors"][0]["code"] == "MALFORMED":
            raise invalid_definition([not_json], 1) from error
        raise


def _parse_yaml(text: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        why = error.problem or "cannot be read"
        raise _refused("MALFORMED", f"is not YAML: {why}", error.problem_mark or error.context_mark) from error
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise _refused("MALFORMED", f"is not YAML: {str(error)[:200]}") from error
    return builder.root


class _Open:
    """An object or list whose end has not come yet."""

    __slots__ = ("anchor", "height", "items", "key", "nodes", "wants_key")

    def __init__(self, items: dict[str, Any] | list[Any], anchor: str | None) -> None:
        self.items = items
        self.anchor = anchor
        self.wants_key = isinstance(items, dict)
        self.key = ""
        self.nodes = 1
        self.height = 1


class _Builder:
    """Builds values from YAML's events with a stack of its own, so that depth never becomes recursion."""

    def __init__(self) -> None:
        self.root: Any = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int, int]] = {}
        self._aliases = 0
        self._documents = 0
        self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._complete(_scalar(event), event.anchor, 1, 0, event.start_mark)
            case yaml.MappingStartEvent():
                self._open({}, event)
            case yaml.SequenceStartEvent():
                self._open([], event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                closed = self._stack.pop()
                self._complete(closed.items, closed.anchor, closed.nodes, closed.height, event.start_mark)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _refused("MALFORMED", "holds more than one YAML document; keep one", event.start_mark)

    def _open(self, items: dict[str, Any] | list[Any], event: Any) -> None:
        if event.tag not in _PLAIN_TAGS:
            raise _refused("MALFORMED", f"the tag {quoted(event.tag)} is not supported", event.start_mark)
        if self._stack and self._stack[-1].wants_key:
            raise _refused("MALFORMED", "a key must be a string", event.start_mark)
        if len(self._stack) >= DEPTH_MAX:
            raise _refused("TOO_DEEP", f"objects and lists are nested deeper than {DEPTH_MAX}", event.start_mark)
        self._stack.append(_Open(items, event.anchor))

    def _alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > ALIASES_MAX:
            raise _refused("TOO_MANY_ALIASES", f"uses more than {ALIASES_MAX} aliases", event.start_mark)
        if event.anchor not in self._anchors:
            raise _refused(
                "MALFORMED", f"the alias *{event.anchor} names no finished value before it", event.start_mark
            )
        value, nodes, height = self._anchors[event.anchor]
        self._complete(value, None, nodes, height, event.start_mark)

    def _complete(self, value: Any, anchor: str | None, nodes: int, height: int, mark: Any) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, nodes, height)
        if not self._stack:
            self.root = value
            return
        parent = self._stack[-1]
        parent.nodes += nodes
        parent.height = max(parent.height, height + 1)
        if parent.nodes > NODES_MAX:
            raise _refused("TOO_LARGE", f"holds more than {NODES_MAX} values once aliases are expanded", mark)
        if len(self._stack) + height > DEPTH_MAX:
            raise _refused("TOO_DEEP", f"objects and lists are nested deeper than {DEPTH_MAX}", mark)
        if isinstance(parent.items, list):
            parent.items.append(value)
        elif parent.wants_key:
            if not isinstance(value, str):
                raise _refused("MALFORMED", f"a key must be a string, not {kind_of(value)}: quote it", mark)
            if value in parent.items:
                raise _refused("DUPLICATE_KEY", f"the key {quoted(value)} stands twice in one object; keep one", mark)
            parent.key, parent.wants_key = value, False
        else:
            parent.items[parent.key] = value
            parent.wants_key = True


def _scalar(event: Any) -> Any:
    text: str = event.value
    if event.tag in _STRING_TAGS or (event.tag is None and not event.implicit[0]):
        return text
    if event.tag is not None:
        raise _refused("MALFORMED", f"the tag {quoted(event.tag)} is not supported", event.start_mark)
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if not math.isfinite(value):
            raise _refused("NOT_FINITE", f"{quoted(text)} is too large for a number", event.start_mark)
        return value
    if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        return int(text, 0)
    if _NOT_FINITE.fullmatch(text):
        raise _refused(
            "NOT_FINITE", f"{text} is not a finite number; quote it if it is meant as text", event.start_mark
        )
    return text
