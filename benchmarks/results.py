"""What a benchmark hands in: samples, a row of the table with its target, and whether that was reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

NANOSECONDS_PER_MS: Final = 1_000_000

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
    """What a statistic must stay below: milliseconds, or for the ratio times the baseline."""

    statistic: Statistic
    limit: float

    def __str__(self) -> str:
        return f"{self.statistic} < {self.limit:g}{' ms' if self.statistic != 'ratio' else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `baseline_ms` are the samples of raw Temporal, taken between ours."""

    name: str
    samples_ms: tuple[float, ...]
    baseline_ms: tuple[float, ...] = ()
    target: Target | None = None
    note: str = ""

    @property
    def p50_ms(self) -> float:
        return percentile(self.samples_ms, 50)

    @property
    def p95_ms(self) -> float:
        return percentile(self.samples_ms, 95)

    @property
    def baseline_p50_ms(self) -> float | None:
        return percentile(self.baseline_ms, 50) if self.baseline_ms else None

    @property
    def ratio(self) -> float | None:
        """Our median over the baseline's; below 1 is faster."""
        baseline = self.baseline_p50_ms
        return self.p50_ms / baseline if baseline else None

    @property
    def verdict(self) -> Verdict | None:
        if self.target is None:
            return None
        value = {"p50": self.p50_ms, "p95": self.p95_ms, "ratio": self.ratio}[self.target.statistic]
        if value is None:
            raise ValueError(f"{self.name} has a target for a ratio, and no baseline")
        return "reached" if value < self.target.limit else "missed"

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "samples": len(self.samples_ms),
            "p50_ms": round(self.p50_ms, 3),
            "p95_ms": round(self.p95_ms, 3),
            "min_ms": round(min(self.samples_ms), 3),
            "max_ms": round(max(self.samples_ms), 3),
            "baseline_p50_ms": _rounded(self.baseline_p50_ms),
            "baseline_p95_ms": _rounded(percentile(self.baseline_ms, 95) if self.baseline_ms else None),
            "ratio": _rounded(self.ratio),
            "target": None if self.target is None else {"statistic": self.target.statistic, "below": self.target.limit},
            "verdict": self.verdict,
            "note": self.note,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
