"""The functions of the language, on evaluated arguments.

None depends on a library's tables or algorithms: upper and lower change ASCII letters only (Unicode's tables differ
between Python versions), and sums are added from left to right (Python's `sum` compensates from 3.12 on).
"""

from collections.abc import Callable, Mapping
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final, TypeAlias

from engine.expressions.errors import ExpressionTypeError, ValueTooLargeError
from engine.expressions.values import (
    CHARACTERS_A_STEP,
    ELEMENTS_MAX,
    contained,
    in_range,
    is_number,
    kind_of,
    less,
    operand,
)

Spend: TypeAlias = Callable[[int], None]
Function: TypeAlias = Callable[[int, list[Any], Spend], Any]

_TO_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
_TO_UPPER: Final = str.maketrans(ascii_lowercase, ascii_uppercase)


def _wanted(at: int, function: str, wanted: str, value: Any) -> ExpressionTypeError:
    return ExpressionTypeError(at, f"{function} needs {wanted}, not {kind_of(value)}")


def _text(at: int, function: str, value: Any, spend: Spend) -> str:
    if type(value) is not str:
        raise _wanted(at, function, "a string", value)
    spend(len(value) // CHARACTERS_A_STEP)
    return value


def _size(at: int, arguments: list[Any], _spend: Spend) -> Any:
    value = arguments[0]
    if type(value) not in (str, list, dict):
        raise _wanted(at, "size", "a string, a list or an object", value)
    return len(value)


def _lower(at: int, arguments: list[Any], spend: Spend) -> Any:
    return _text(at, "lower", arguments[0], spend).translate(_TO_LOWER)


def _upper(at: int, arguments: list[Any], spend: Spend) -> Any:
    return _text(at, "upper", arguments[0], spend).translate(_TO_UPPER)


def _contains(at: int, arguments: list[Any], spend: Spend) -> Any:
    return contained(at, arguments[1], arguments[0], spend)


def _starts_with(at: int, arguments: list[Any], spend: Spend) -> Any:
    text, beginning = arguments
    if type(text) is not str:
        raise _wanted(at, "starts_with", "a string", text)
    return text.startswith(_text(at, "starts_with", beginning, spend))


def _ends_with(at: int, arguments: list[Any], spend: Spend) -> Any:
    text, end = arguments
    if type(text) is not str:
        raise _wanted(at, "ends_with", "a string", text)
    return text.endswith(_text(at, "ends_with", end, spend))


def _matches(at: int, arguments: list[Any], spend: Spend) -> Any:
    """`*` stands for any characters, `?` for one. After a mismatch only the last `*` is tried again."""
    text, pattern = _text(at, "matches", arguments[0], spend), _text(at, "matches", arguments[1], spend)
    index = place = 0
    star, star_index = -1, 0
    while index < len(text):
        spend(1)
        symbol = pattern[place] if place < len(pattern) else ""
        if symbol == "*":
            star, star_index = place, index
            place += 1
        elif symbol and symbol in ("?", text[index]):
            index += 1
            place += 1
        elif star >= 0:
            star_index += 1
            index, place = star_index, star + 1
        else:
            return False
    return not pattern[place:].strip("*")


def _extreme(at: int, name: str, arguments: list[Any], spend: Spend) -> Any:
    values = arguments[0] if len(arguments) == 1 else arguments
    if type(values) is not list:
        raise _wanted(at, name, "a list, or several values", values)
    spend(len(values))
    if not values:
        return None
    best = values[0]
    less(at, best, best, spend)
    for value in values[1:]:
        if less(at, value, best, spend) if name == "min" else less(at, best, value, spend):
            best = value
    return best


def _min(at: int, arguments: list[Any], spend: Spend) -> Any:
    return _extreme(at, "min", arguments, spend)


def _max(at: int, arguments: list[Any], spend: Spend) -> Any:
    return _extreme(at, "max", arguments, spend)


def _sum(at: int, arguments: list[Any], spend: Spend) -> Any:
    values = arguments[0]
    if type(values) is not list:
        raise _wanted(at, "sum", "a list", values)
    spend(len(values))
    total: int | float = 0
    for value in values:
        if not is_number(value):
            raise _wanted(at, "sum", "numbers in its list", value)
        total = in_range(at, total + operand(at, value))
    return total


def _sorted_keys(at: int, function: str, value: Any, spend: Spend) -> list[str]:
    """In the order of code points: stores do not keep the order in which an object was written."""
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise _wanted(at, function, "an object", value)
    spend(len(value))
    return sorted(value)


def _keys(at: int, arguments: list[Any], spend: Spend) -> Any:
    return _sorted_keys(at, "keys", arguments[0], spend)


def _values(at: int, arguments: list[Any], spend: Spend) -> Any:
    return [arguments[0][key] for key in _sorted_keys(at, "values", arguments[0], spend)]


def _range(at: int, arguments: list[Any], spend: Spend) -> Any:
    for argument in arguments:
        if type(argument) is not int:
            raise _wanted(at, "range", "integers", argument)
        operand(at, argument)
    start, end = arguments if len(arguments) == 2 else (0, arguments[0])
    if end - start > ELEMENTS_MAX:
        raise ValueTooLargeError(at, f"range would make {end - start} elements; at most {ELEMENTS_MAX} are allowed")
    spend(max(0, end - start))
    return list(range(start, end))


FUNCTIONS: Final[Mapping[str, Function]] = {
    "contains": _contains,
    "ends_with": _ends_with,
    "keys": _keys,
    "lower": _lower,
    "matches": _matches,
    "max": _max,
    "min": _min,
    "range": _range,
    "size": _size,
    "starts_with": _starts_with,
    "sum": _sum,
    "upper": _upper,
    "values": _values,
}
