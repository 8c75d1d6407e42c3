"""What to look at first: findings, complexity, churn and trend of each file as one score."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

WEIGHTS: Final = {"complexity": 0.35, "churn": 0.35, "findings": 0.20, "growth": 0.10}
"""Complex code that changes often comes first: that is where defects are made, and where clearing up pays."""


@dataclass(slots=True)
class FileFacts:
    """All that the reviewers found out about one file."""

    path: str
    lines: int = 0
    complexity: int = 0
    functions: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    commits: int = 0
    changed_lines: int = 0
    growth: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    score: float = 0.0

    @property
    def worst(self) -> dict[str, Any] | None:
        """The most complex function."""
        return max(self.functions, key=lambda function: int(function["complexity"]), default=None)

    @property
    def reasons(self) -> list[str]:
        """Why one should look, in words."""
        reasons = []
        if self.worst is not None and self.worst["complexity"] > 1:
            reasons.append(f"`{self.worst['name']}` has complexity {self.worst['complexity']}")
        if self.commits > 1:
            reasons.append(f"changed in {self.commits} commits")
        if self.findings:
            rules = ", ".join(rule for rule, _ in Counter(item["rule"] for item in self.findings).most_common(3))
            reasons.append(f"{len(self.findings)} finding{'s' * (len(self.findings) > 1)} ({rules})")
        if self.growth > 0:
            reasons.append(f"complexity grew by {self.growth}")
        often = [f"`{name}` {count} times" for name, count in self.changes.items() if count > 1]
        if often:
            reasons.append("rewritten most: " + ", ".join(often[:2]))
        return reasons


def gather(results: Mapping[str, Mapping[str, Any]]) -> list[FileFacts]:
    """One `FileFacts` for each Python file, from the results of the tasks that have a `kind`."""
    facts: dict[str, FileFacts] = {}

    def of(path: str) -> FileFacts:
        return facts.setdefault(path, FileFacts(path))

    for result in results.values():
        for item in result.get("findings", ()):
            of(item["path"]).findings.append(item)
        for path, item in result.get("measures", {}).items():
            file = of(path)
            file.lines, file.complexity, file.functions = item["lines"], item["complexity"], item["functions"]
    for result in results.values():
        for path, (commits, changed_lines) in result.get("churn", {}).items():
            if path in facts:
                facts[path].commits, facts[path].changed_lines = commits, changed_lines
        for path, trend in result.get("trends", {}).items():
            if path in facts:
                facts[path].growth = max(0, trend["last"] - trend["first"])
                facts[path].changes = trend["changes"]
    return list(facts.values())


def rank(files: Iterable[FileFacts]) -> list[FileFacts]:
    """With their scores, 0 to 100, the highest first."""
    files = list(files)
    measures: dict[str, list[float]] = {
        "complexity": [float(file.complexity) for file in files],
        "churn": [float(file.commits) for file in files],
        "findings": [float(len(file.findings)) for file in files],
        "growth": [float(file.growth) for file in files],
    }
    scaled = {name: _scaled(values) for name, values in measures.items()}
    for n, file in enumerate(files):
        file.score = round(100 * sum(weight * scaled[name][n] for name, weight in WEIGHTS.items()), 1)
    return sorted(files, key=lambda file: (-file.score, file.path))


def _scaled(values: list[float]) -> list[float]:
    """From 0 to 1, by the logarithm: the tenth finding says less than the first."""
    top = math.log1p(max(values, default=0.0))
    return [math.log1p(value) / top if top else 0.0 for value in values]
