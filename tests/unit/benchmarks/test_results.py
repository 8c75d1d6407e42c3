import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report import footnotes
from benchmarks.results import Row, Target, percentile

SAMPLES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50)


@given(SAMPLES, st.floats(0, 100))
def test_a_percentile_lies_between_the_extremes_and_does_not_depend_on_the_order(
    samples: list[float], percent: float
) -> None:
    value = percentile(samples, percent)
    assert min(samples) <= value <= max(samples) * (1 + 1e-12)
    assert percentile(samples[::-1], percent) == value


@given(SAMPLES)
def test_the_ends_are_the_extremes_and_the_middle_is_the_median(samples: list[float]) -> None:
    assert percentile(samples, 0) == min(samples)
    assert percentile(samples, 100) == max(samples)
    assert percentile(samples, 50) == pytest.approx(statistics.median(samples))


def test_between_two_samples_a_percentile_is_linear() -> None:
    assert percentile([10, 20], 95) == pytest.approx(19.5)
    assert percentile([0, 10, 20, 30, 40], 95) == pytest.approx(38)


@pytest.mark.parametrize(("samples", "percent"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_what_has_no_percentile_is_refused(samples: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match=r"percentile|samples"):
        percentile(samples, percent)


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        (Target("p95", 10.1), "reached"),
        (Target("p95", 10.0), "missed"),
        (Target("p50", 10.1), "reached"),
        (Target("ratio", 2.1), "reached"),
        (Target("ratio", 2.0), "missed"),
        (Target("p50", 10.0, at_least=True), "reached"),
        (Target("p50", 10.1, at_least=True), "missed"),
        (Target("ratio", 2.0, at_least=True), "reached"),
        (None, None),
    ],
)
def test_a_target_is_reached_below_its_limit_or_from_it_on(target: Target | None, verdict: str | None) -> None:
    assert Row("row", (10.0,) * 5, (5.0,) * 3, target).verdict == verdict


def test_one_outlier_spoils_the_p95_of_few_samples_and_not_the_median() -> None:
    samples = (1.0,) * 9 + (1000.0,)
    assert Row("row", samples, target=Target("p95", 100)).verdict == "missed"
    assert Row("row", samples, target=Target("p50", 100)).verdict == "reached"


def test_a_ratio_compares_medians() -> None:
    assert Row("row", (3.0, 1.0, 2.0), (4.0, 4.0, 400.0)).ratio == 0.5
    assert Row("row", (3.0,)).ratio is None


def test_a_target_for_a_ratio_needs_a_baseline() -> None:
    with pytest.raises(ValueError, match="baseline"):
        _ = Row("row", (3.0,), target=Target("ratio", 1)).verdict


def test_a_rows_document_is_json_with_all_that_the_table_shows() -> None:
    row = Row(
        "step", (2.0, 4.0), (2.0, 2.0), Target("ratio", 1.6), "a note", "tasks/s", {"worker": 0.1234}, "CPU seconds"
    )
    document = json.loads(json.dumps(row.document()))
    assert document == {
        "name": "step", "unit": "tasks/s", "samples": 2, "p50": 3.0, "p95": 3.9, "min": 2.0, "max": 4.0,
        "baseline_p50": 2.0, "baseline_p95": 2.0, "ratio": 1.5,
        "target": {"statistic": "ratio", "below": 1.6}, "verdict": "reached", "note": "a note",
        "details_of": "CPU seconds", "details": {"worker": 0.123},
    }  # fmt: skip
    assert Row("alone", (1.0,)).document()["ratio"] is None
    rate = Row("rate", (1.0,), target=Target("p50", 1, at_least=True))
    assert rate.document()["target"] == {"statistic": "p50", "at_least": 1}


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (Target("p95", 100), "p95 < 100 ms"),
        (Target("p50", 6_000, at_least=True), "p50 ≥ 6,000 ms"),
        (Target("ratio", 0.6, at_least=True), "ratio ≥ 0.6"),
    ],
)
def test_a_target_is_shown_with_its_unit_and_direction(target: Target, shown: str) -> None:
    assert target.shown("ms") == shown


def test_what_was_measured_beside_a_row_stands_under_the_table() -> None:
    rows = [Row("a", (1.0,)), Row("b", (1.0,), details={"worker": 1.5, "valkey": 0.25}, details_of="CPU seconds")]
    assert footnotes(rows) == ["b: CPU seconds: worker 1.5, valkey 0.25"]
