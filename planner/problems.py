"""Collects what is wrong with a definition: located, in the document's order, bounded.

Hostile input can hold hundreds of thousands of mistakes. Each code keeps only its first ones, so that a flood of
one kind never hides a single problem of another.
"""

import difflib
import json
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

from engine.contracts.limits import NAME_PATTERN
from engine.contracts.plan import Problem
from engine.errors import InvalidDefinitionError

Location = tuple[str | int, ...]

PROBLEMS_MAX: Final = 1_000
"""Problems reported for one definition; the rest is counted."""

QUOTED_LENGTH_MAX: Final = 80
"""Characters of a client's own text that a message repeats."""

COMPARISONS_MAX: Final = 20_000
"""Comparisons of names spent on suggestions for one definition."""

COMPARED_MAX: Final = 200
"""Names compared letter by letter for one suggestion."""

_NAME = re.compile(NAME_PATTERN)
_SEPARATORS = re.compile(r"[-_\s]+")


def is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def quoted(value: object) -> str:
    """A client's value as JSON shows it, cut to a bearable length, control characters escaped."""
    if isinstance(value, str):
        cut = value[:QUOTED_LENGTH_MAX]
        return json.dumps(cut) if len(value) <= QUOTED_LENGTH_MAX else json.dumps(cut + "...")
    if isinstance(value, dict | list):
        return f"{kind_of(value)} of {len(value)}"
    return str(value)[:QUOTED_LENGTH_MAX]


def kind_of(value: object) -> str:
    """JSON's word for the type of a value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"


def format_location(location: Location) -> str:
    """`("tasks", 3, "depends_on", 0)` as "tasks[3].depends_on[0]"; keys that are no names stand in brackets."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif is_name(part) and len(part) <= QUOTED_LENGTH_MAX:
            text += f".{part}" if text else part
        else:
            text += f"[{quoted(part)}]"
    return text


def _document_order(item: tuple[Location, Problem]) -> list[tuple[int, int, str]]:
    return [(0, part, "") if isinstance(part, int) else (1, 0, str(part)) for part in item[0]]


class ProblemList:
    """Problems of one definition, as they are found."""

    def __init__(self, problems_max: int = PROBLEMS_MAX) -> None:
        self._problems_max = problems_max
        self._by_code: dict[str, list[tuple[Location, Problem]]] = {}
        self.count = 0

    def add(self, code: str, location: Location, message: str) -> None:
        self.count += 1
        kept = self._by_code.setdefault(code, [])
        if len(kept) < self._problems_max:
            kept.append((location, Problem(code=code, location=format_location(location), message=message)))

    def listed(self) -> list[Problem]:
        """The problems in the document's order; rare codes are kept whole when not all fit."""
        kept: list[tuple[Location, Problem]] = []
        codes = sorted(self._by_code, key=lambda code: (len(self._by_code[code]), code))
        for number, code in enumerate(codes):
            share = (self._problems_max - len(kept)) // (len(codes) - number)
            kept.extend(self._by_code[code][:share])
        kept.sort(key=_document_order)
        listed = [problem for _, problem in kept]
        if self.count > len(listed):
            more = self.count - len(listed)
            listed.append(Problem(code="MORE_PROBLEMS", location="", message=f"... and {more} more"))
        return listed

    def raise_if_any(self) -> None:
        if self.count:
            raise invalid_definition(self.listed(), self.count)


def invalid_definition(problems: Iterable[Problem], count: int) -> InvalidDefinitionError:
    """The error for these problems: a summary of one line, and all of them in its data."""
    listed = list(problems)
    first = str(listed[0])
    summary = f"invalid workflow definition: {first}"
    if count > 1:
        summary = f"invalid workflow definition, {count} problems; the first: {first}"
    return InvalidDefinitionError(summary, errors=[problem.model_dump() for problem in listed], error_count=count)


class Suggester:
    """Finds the name that was probably meant, within a budget of comparisons for the whole definition."""

    def __init__(self, comparisons_max: int = COMPARISONS_MAX) -> None:
        self._comparisons_left = comparisons_max

    def hint(self, word: Any, candidates: Collection[str]) -> str:
        """`; did you mean "x"?` or an empty string."""
        closest = self._closest(word, candidates) if isinstance(word, str) else None
        return f"; did you mean {quoted(closest)}?" if closest is not None else ""

    def _closest(self, word: str, candidates: Collection[str]) -> str | None:
        if len(candidates) > self._comparisons_left or not word or len(word) > QUOTED_LENGTH_MAX:
            return None
        self._comparisons_left -= len(candidates)
        plain = _SEPARATORS.sub("", word).lower()
        near = []
        longer = None
        for candidate in candidates:
            if _SEPARATORS.sub("", candidate).lower() == plain:
                return candidate
            if len(word) > 2 and candidate.startswith(word):
                longer = longer or candidate
            if candidate[:1] == word[:1] and abs(len(candidate) - len(word)) <= 3:
                near.append(candidate)
        compared = candidates if len(candidates) <= COMPARED_MAX else near
        matches = difflib.get_close_matches(word, compared, n=1) if len(compared) <= COMPARED_MAX else []
        return matches[0] if matches else longer
