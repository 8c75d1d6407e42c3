"""Numbers that lie close together count as one vote for their median."""

from collections.abc import Mapping
from fractions import Fraction
from math import lcm

from engine.voting.choices import number_of

Point = tuple[int, int, str]
"""(number, weight, choice), the first two in whole units."""


def merge_numbers(weights: Mapping[str, Fraction], tolerance: float) -> dict[str, str]:
    """For each numeric choice, the choice that stands for it.

    The range of this width that holds the most weight is taken first (the lowest of equals), then the next among what
    is left. What stands for a range is its weighted lower median, which is one of the votes.
    """
    numbers = {key: Fraction(str(number)) for key in sorted(weights) if (number := number_of(key)) is not None}
    width = Fraction(str(tolerance))
    unit = lcm(width.denominator, *(number.denominator for number in numbers.values()))
    share = lcm(*(weights[key].denominator for key in numbers))
    points = sorted((int(number * unit), int(weights[key] * share), key) for key, number in numbers.items())
    found: dict[str, str] = {}
    while points:
        low, high = _heaviest(points, int(width * unit))
        middle = _median(points[low:high])
        found.update((key, middle) for _, _, key in points[low:high])
        del points[low:high]
    return found


def _heaviest(points: list[Point], width: int) -> tuple[int, int]:
    """Bounds of the range that weighs most: it begins at a number, and ends at most `width` above it."""
    best, best_weight = (0, 1), -1
    weight, high = 0, 0
    for low, (number, own, _) in enumerate(points):
        while high < len(points) and points[high][0] <= number + width:
            weight += points[high][1]
            high += 1
        if weight > best_weight:
            best, best_weight = (low, high), weight
        weight -= own
    return best


def _median(points: list[Point]) -> str:
    whole = sum(weight for _, weight, _ in points)
    below = 0
    for _, weight, key in points:
        below += weight
        if 2 * below >= whole:
            return key
    raise AssertionError("half of a sum is reached at its end at the latest")
