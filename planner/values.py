"""Checks the free-form parts of a definition (`input`, `pattern_config`): plain JSON that every part can carry.

PostgreSQL's JSON refuses NUL, encoders refuse lone surrogates and integers above 64 bits, and nothing can carry
NaN: found here, they are the client's mistakes with a place; found later, they are failures in the middle of a run.
"""

import math
from typing import Any, Final

from planner.problems import Location, ProblemList, kind_of

VALUE_DEPTH_MAX: Final = 64
"""Nesting inside one free-form value."""

_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**64 - 1


def _text_problem(text: str) -> str | None:
    if "\x00" in text:
        return "must not contain the NUL character"
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        return "contains half of a surrogate pair, which is no character"
    return None


def _scalar_problem(value: Any) -> str | None:
    match value:
        case str():
            return _text_problem(value)
        case bool() | None:
            return None
        case int():
            if _INTEGER_MIN <= value <= _INTEGER_MAX:
                return None
            return "must fit 64 bits; write larger integers as strings"
        case float():
            return None if math.isfinite(value) else "must be a finite number; JSON has none other"
        case _:
            return f"must be a JSON value, not {kind_of(value)}"


def check_value(value: Any, location: Location, problems: ProblemList) -> None:
    """Report everything in `value` that is not plain JSON."""
    pending: list[tuple[Location, Any, int]] = [(location, value, 0)]
    while pending:
        at, item, depth = pending.pop()
        if not isinstance(item, dict | list):
            problem = _scalar_problem(item)
            if problem is not None:
                problems.add("INVALID_VALUE", at, problem)
        elif depth >= VALUE_DEPTH_MAX:
            problems.add("TOO_DEEP", at, f"values are nested deeper than {VALUE_DEPTH_MAX}")
        elif isinstance(item, dict):
            for key, inner in item.items():
                problem = _text_problem(key) if isinstance(key, str) else "a key must be a string"
                if problem is not None:
                    problems.add("INVALID_VALUE", (*at, str(key)), problem)
                pending.append(((*at, str(key)), inner, depth + 1))
        else:
            pending.extend(((*at, index), inner, depth + 1) for index, inner in enumerate(item))
