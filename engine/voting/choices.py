"""What is voted for, as a text that is the same for equal values, and an order in which ties are broken."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from engine.contracts.voting import CHOICE_LENGTH_MAX, TieBreak

CHOICE_BYTES_MAX: Final = 4 * CHOICE_LENGTH_MAX + 2
RANKS_MAX: Final = 100
"""Choices in one ranking."""

_NUMBER_MAX: Final = 2**63


class InvalidBallotError(ValueError):
    """It is no vote; the message says why."""


def key_of(value: Any) -> str:
    """The choice as canonical JSON: 1 and 1.0 are the same choice, 1 and true are not. Raises InvalidBallotError."""
    if value is None or isinstance(value, list | dict):
        raise InvalidBallotError("a choice is a text, a number, true or false")
    if isinstance(value, str):
        if not 0 < len(value) <= CHOICE_LENGTH_MAX:
            raise InvalidBallotError(f"a choice has 1 to {CHOICE_LENGTH_MAX} characters")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidBallotError("a choice is not proper Unicode") from error
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, bool | int | float):
        raise InvalidBallotError("a choice is a text, a number, true or false")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, bool) and not abs(value) < _NUMBER_MAX:  # also what is not a number
        raise InvalidBallotError("a number is finite and below 2**63")
    return json.dumps(value)


def value_of(key: str) -> Any:
    return json.loads(key)


def number_of(key: str) -> float | int | None:
    """The choice's value if it is a number."""
    value = json.loads(key)
    return None if isinstance(value, bool | str) else value


def ranking_of(values: Any) -> tuple[str, ...]:
    """A ranking, best first. Raises InvalidBallotError."""
    if not isinstance(values, list | tuple):
        raise InvalidBallotError("a ranking is a list of choices, best first")
    if len(values) > RANKS_MAX:
        raise InvalidBallotError(f"a ranking has at most {RANKS_MAX} choices")
    keys = tuple(key_of(value) for value in values)
    if len(set(keys)) < len(keys):
        raise InvalidBallotError("a ranking names each choice once")
    return keys


def natural(key: str) -> tuple[int, float | int, str]:
    """For sorting: numbers by size and before texts."""
    number = number_of(key)
    return (1, 0, key) if number is None else (0, number, key)


def preference(tie_break: TieBreak, candidates: Sequence[str], seed: str) -> Callable[[str], Any]:
    """The order among equals, as a sort key: the smallest wins. It never depends on when a vote came."""
    if tie_break == "seeded":
        return lambda key: hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    if tie_break == "lowest":
        return natural
    places = {key: n for n, key in enumerate(candidates)}
    behind = len(places)
    return lambda key: (places.get(key, behind), natural(key))


def first_of(keys: Iterable[str], order: Callable[[str], Any]) -> str:
    return min(keys, key=order)
