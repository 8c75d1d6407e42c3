"""Close numbers stand together."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.voting.choices import key_of, value_of
from engine.voting.merging import merge_numbers


def merged(numbers: dict[float, int], tolerance: float) -> dict[float, float]:
    weights = {key_of(number): Fraction(weight) for number, weight in numbers.items()}
    return {value_of(key): value_of(stands) for key, stands in merge_numbers(weights, tolerance).items()}


def test_the_heaviest_range_is_taken_first() -> None:
    assert merged({1: 1, 2: 1, 3: 5}, 1) == {2: 3, 3: 3, 1: 1}


def test_of_equal_ranges_the_lowest_is_taken() -> None:
    assert merged({1: 1, 2: 1, 3: 1}, 1) == {1: 1, 2: 1, 3: 3}


def test_without_tolerance_nothing_is_merged() -> None:
    assert merged({1: 1, 1.1: 1}, 0) == {1: 1, 1.1: 1.1}


def test_a_tenth_is_a_tenth() -> None:
    assert merged({0.1: 1, 0.2: 1, 0.3: 1}, 0.2) == {0.1: 0.2, 0.2: 0.2, 0.3: 0.2}


@given(
    numbers=st.dictionaries(st.floats(-1e6, 1e6, allow_subnormal=False), st.integers(0, 9), max_size=12),
    tolerance=st.floats(0, 100, allow_subnormal=False),
)
def test_every_number_is_stood_for_by_one_that_was_voted_for_no_further_away(
    numbers: dict[float, int], tolerance: float
) -> None:
    found = merged(numbers, tolerance)
    assert set(found) == set(numbers)
    groups: dict[float, list[float]] = {}
    for number, stands in found.items():
        assert stands in numbers
        groups.setdefault(stands, []).append(number)
    for group in groups.values():
        assert Fraction(str(max(group))) - Fraction(str(min(group))) <= Fraction(str(tolerance))


def test_a_thousand_different_numbers_are_merged_in_bounded_time() -> None:
    assert len(merged({float(n): 1 for n in range(1_000)}, 0)) == 1_000
