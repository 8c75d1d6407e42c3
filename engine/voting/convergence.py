"""Whether another round would still change anything."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from engine.voting.choices import number_of


def stable_share(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> Fraction:
    """The share of the members that voted in either round whose vote is the same in both."""
    names = before.keys() | now.keys()
    if not names:
        return Fraction(1)
    same = sum(name in before and name in now and tuple(before[name]) == tuple(now[name]) for name in names)
    return Fraction(same, len(names))


def spread(choices: Iterable[str]) -> float | int | None:
    """The distance between the lowest and the highest number that was voted for; None without numbers."""
    numbers = [number for key in choices if (number := number_of(key)) is not None]
    return max(numbers) - min(numbers) if numbers else None
