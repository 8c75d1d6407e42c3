"""The review as a Markdown document."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from examples.code_review.ranking import WEIGHTS, FileFacts, gather, rank

RANKED_SHOWN_MAX: Final = 15
DETAILED_MAX: Final = 5
FUNCTIONS_SHOWN_MAX: Final = 10
FINDINGS_SHOWN_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """What is reviewed."""

    name: str
    head: str
    files: int


def write_report(subject: Subject, results: Mapping[str, Mapping[str, Any]]) -> tuple[str, list[str]]:
    """The document, and the ranked paths."""
    files = rank(gather(results))
    history = next((result for result in results.values() if "trends" in result), {})
    churn = next((result for result in results.values() if "churn" in result), {})
    parts = [
        f"# Review of {subject.name}",
        "",
        f"At commit {subject.head}: {subject.files} files, {len(files)} of them Python with "
        f"{sum(file.lines for file in files):,} lines; {churn.get('commits', 0)} commits and "
        f"{history.get('revisions', 0)} revisions of Python files were read.",
        "",
        "## What to look at first",
        "",
        *_ranking(files),
        "",
        "The score puts " + ", ".join(f"{name} ({weight:.0%})" for name, weight in WEIGHTS.items())
        + " together, each on a logarithmic scale from the repository's least to its most.",
        "",
        *_details(files),
        "## The most complex functions",
        "",
        *_functions(files),
        "",
        "## Findings by rule",
        "",
        *_rules(files),
    ]  # fmt: skip
    return "\n".join(parts) + "\n", [file.path for file in files]


def _ranking(files: Sequence[FileFacts]) -> list[str]:
    if not files:
        return ["There is no Python code to rank."]
    rows = ["| | score | file | why |", "|---:|---:|---|---|"]
    for place, file in enumerate(files[:RANKED_SHOWN_MAX], 1):
        rows.append(f"| {place} | {file.score:.0f} | {file.path} | {'; '.join(file.reasons) or 'nothing stands out'} |")
    return rows


def _details(files: Sequence[FileFacts]) -> list[str]:
    lines: list[str] = []
    for file in files[:DETAILED_MAX]:
        lines += [
            f"### {file.path}",
            "",
            f"{file.lines} lines, complexity {file.complexity}, changed in {file.commits} commits "
            f"({file.changed_lines} lines added and deleted).",
            "",
        ]
        for item in sorted(file.findings, key=lambda item: (item["line"], item["rule"]))[:FINDINGS_SHOWN_MAX]:
            lines.append(f"- line {item['line']}: {item['rule']} {item['message']}")
        if len(file.findings) > FINDINGS_SHOWN_MAX:
            lines.append(f"- and {len(file.findings) - FINDINGS_SHOWN_MAX} more findings")
        if file.findings:
            lines.append("")
    return lines


def _functions(files: Sequence[FileFacts]) -> list[str]:
    functions = [(function, file.path) for file in files for function in file.functions]
    functions.sort(key=lambda item: (-item[0]["complexity"], item[1], item[0]["line"]))
    rows = ["| complexity | function | where |", "|---:|---|---|"]
    return rows + [
        f"| {function['complexity']} | `{function['name']}` | {path}:{function['line']} |"
        for function, path in functions[:FUNCTIONS_SHOWN_MAX]
    ]


def _rules(files: Sequence[FileFacts]) -> list[str]:
    counts = Counter(item["rule"] for file in files for item in file.findings)
    if not counts:
        return ["Ruff found nothing."]
    return ["| findings | rule |", "|---:|---|", *(f"| {count} | {rule} |" for rule, count in counts.most_common())]
