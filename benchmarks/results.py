"""What a benchmark hands in: samples, a row of the table with its target, and whether that was reached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

NANOSECONDS_PER_MS: Final = 1_000_000
CPU_SECONDS: Final = "CPU seconds"

Statistic = Literal["p50", "p95", "ratio"]
Verdict = Literal["reached", "missed"]


def percentile(samples: Sequence[float], percent: float) -> float:
    """Linear between the two nearest samples, as spreadsheets and NumPy do by default."""
    if not samples:
        raise ValueError("there are no samples")
    if not 0 <= percent <= 100:
        raise ValueError("a percentile lies between 0 and 100")
    ordered = sorted(samples)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True, slots=True)
class Target:
    """What a statistic must stay below or, `at_least`, must come up to: in the row's unit, or for the ratio times the
    baseline."""

    statistic: Statistic
    limit: float
    at_least: bool = False

    def reached_by(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value < self.limit

    def shown(self, unit: str) -> str:
        comparison = "≥" if self.at_least else "<"
        return f"{self.statistic} {comparison} {self.limit:,g}{f' {unit}' if self.statistic != 'ratio' else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `baseline` are the samples of raw Temporal, taken between ours."""

    name: str
    samples: tuple[float, ...]
    baseline: tuple[float, ...] = ()
    target: Target | None = None
    note: str = ""
    unit: str = "ms"
    details: Mapping[str, float] = field(default_factory=dict)
    details_of: str = ""
    """What else was measured beside it, by name, and what that is; for the document, and one line under the table."""

    @property
    def p50(self) -> float:
        return percentile(self.samples, 50)

    @property
    def p95(self) -> float:
        return percentile(self.samples, 95)

    @property
    def baseline_p50(self) -> float | None:
        return percentile(self.baseline, 50) if self.baseline else None

    @property
    def ratio(self) -> float | None:
        """Our median over the baseline's: below 1 is better where the unit is a time, above 1 where it is a rate."""
        baseline = self.baseline_p50
        return self.p50 / baseline if baseline else None

    @property
    def verdict(self) -> Verdict | None:
        if self.target is None:
            return None
        value = {"p50": self.p50, "p95": self.p95, "ratio": self.ratio}[self.target.statistic]
        if value is None:
            raise ValueError(f"{self.name} has a target for a ratio, and no baseline")
        return "reached" if self.target.reached_by(value) else "missed"

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "samples": len(self.samples),
            "p50": round(self.p50, 3),
            "p95": round(self.p95, 3),
            "min": round(min(self.samples), 3),
            "max": round(max(self.samples), 3),
            "baseline_p50": _rounded(self.baseline_p50),
            "baseline_p95": _rounded(percentile(self.baseline, 95) if self.baseline else None),
            "ratio": _rounded(self.ratio),
            "target": None if self.target is None else _target(self.target),
            "verdict": self.verdict,
            "note": self.note,
            "details_of": self.details_of,
            "details": {name: round(value, 3) for name, value in self.details.items()},
        }


def _target(target: Target) -> dict[str, Any]:
    return {"statistic": target.statistic, "at_least" if target.at_least else "below": target.limit}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
