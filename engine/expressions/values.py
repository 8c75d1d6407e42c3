"""JSON values: their kinds, equality, order and size. Nothing here recurses, however deep a value is.

Python's own operators are not JSON's: to them true equals 1, and comparing deep values exhausts the stack.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from engine.expressions.errors import ExpressionTypeError, ValueTooLargeError
from engine.expressions.tokens import INTEGER_MAX, INTEGER_MIN

STRING_LENGTH_MAX: Final = 1024 * 1024
"""Characters of a string that an expression makes."""

ELEMENTS_MAX: Final = 100_000
"""Elements of a list that an expression makes."""

RESULT_SIZE_MAX: Final = 16 * 1024 * 1024
"""Of a value that an expression has made, about as bytes of JSON: what it holds many times counts many times."""

NO_JSON: Final = "what is no JSON value"

_SCALAR_SIZE: Final = 8
CHARACTERS_A_STEP: Final = 64

_KINDS: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


def kind_of(value: Any) -> str:
    if type(value) is float and not math.isfinite(value):
        return NO_JSON
    return _KINDS.get(type(value), NO_JSON)


def is_number(value: Any) -> bool:
    """A finite one: decoders let NaN in, which is no JSON and compares with nothing."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def operand(at: int, value: int | float) -> int | float:
    """`value`, if arithmetic may work on it: an integer of any length could take any time."""
    if type(value) is int and not INTEGER_MIN <= value <= INTEGER_MAX:
        raise ValueTooLargeError(at, "an integer does not fit 64 bits")
    return value


def in_range(at: int, value: int | float) -> int | float:
    """The result of an operation, if it is a JSON number that every part of the engine can carry."""
    if type(value) is float and not math.isfinite(value):
        raise ValueTooLargeError(at, "the result is too large for a number")
    return operand(at, value)


def equal(left: Any, right: Any, spend: Callable[[int], None]) -> bool:
    """Whether two values are the same JSON; 1 and 1.0 are, 1 and true are not."""
    pending = [(left, right)]
    while pending:
        one, other = pending.pop()
        spend(1)
        if is_number(one) and is_number(other):
            if one != other:
                return False
        elif type(one) is not type(other):
            return False
        elif type(one) is str:
            if len(one) != len(other):
                return False
            spend(len(one) // CHARACTERS_A_STEP)
            if one != other:
                return False
        elif type(one) is list:
            if len(one) != len(other):
                return False
            spend(len(one))
            pending.extend(zip(one, other, strict=True))
        elif type(one) is dict:
            spend(len(one))
            if one.keys() != other.keys():
                return False
            pending.extend((one[key], other[key]) for key in one)
        elif one is not other or kind_of(one) == NO_JSON:
            return False
    return True


def less(at: int, left: Any, right: Any, spend: Callable[[int], None]) -> bool:
    """Numbers by value, strings by code points."""
    if is_number(left) and is_number(right):
        return bool(left < right)
    if type(left) is str and type(right) is str:
        spend(min(len(left), len(right)) // CHARACTERS_A_STEP)
        return left < right
    raise ExpressionTypeError(
        at, f"only two numbers or two strings can be ordered, not {kind_of(left)} and {kind_of(right)}"
    )


def contained(at: int, part: Any, whole: Any, spend: Callable[[int], None]) -> bool:
    """Whether `part` is an element of a list, a key of an object or a part of a string."""
    if type(whole) is list:
        return any(equal(element, part, spend) for element in whole)
    if type(whole) is dict and type(part) is str:
        return part in whole
    if type(whole) is str and type(part) is str:
        spend((len(whole) + len(part)) // CHARACTERS_A_STEP)
        return part in whole
    raise ExpressionTypeError(
        at, f"{kind_of(part)} cannot be in {kind_of(whole)}: a value in a list, a string in a string or an object"
    )


def check_size(at: int, value: Any) -> None:
    """Refuse a value that would be huge once it is written out: its parts may be one object held many times."""
    size = 0
    pending = [value]
    while pending:
        item = pending.pop()
        size += _SCALAR_SIZE
        if type(item) is str:
            size += len(item)
        elif type(item) is list:
            size += _SCALAR_SIZE * len(item)
            if size <= RESULT_SIZE_MAX:
                pending.extend(item)
        elif type(item) is dict:
            size += _SCALAR_SIZE * len(item)
            if size <= RESULT_SIZE_MAX:
                size += sum(len(key) for key in item if type(key) is str)
                pending.extend(item.values())
        if size > RESULT_SIZE_MAX:
            raise ValueTooLargeError(at, f"the result is larger than {RESULT_SIZE_MAX} bytes; make less of it")
