"""The table for people and the document for programs."""

import os
import platform
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from benchmarks.results import Row


def machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def table(rows: Sequence[Row]) -> Table:
    columns = ("", "n", "unit", "p50", "p95", "raw Temporal p50", "ratio", "target", "")
    shown = Table(*columns, caption="ratio: our median over raw Temporal's in the same run")
    for column in (shown.columns[1], *shown.columns[3:7]):
        column.justify = "right"
    for row in rows:
        verdict = row.verdict
        style = {"reached": "green", "missed": "bold red", None: ""}[verdict]
        shown.add_row(
            row.name,
            str(len(row.samples)),
            row.unit,
            _figure(row.p50),
            _figure(row.p95),
            _figure(row.baseline_p50),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.target is None else row.target.shown(row.unit),
            f"[{style}]{verdict}[/{style}]" if verdict and style else "",
        )
    return shown


def footnotes(rows: Sequence[Row]) -> list[str]:
    """What stands beside the figures of a row."""
    lines = []
    for row in rows:
        parts = [f"{name} {value:,.4g}" for name, value in row.details.items()]
        if parts:
            lines.append(f"{row.name}: {row.details_of}: {', '.join(parts)}")
    return lines


def document(
    rows: Sequence[Row], *, started_at: str, seconds: float, quick: bool, machine_before: dict[str, Any]
) -> dict[str, Any]:
    return {
        "started_at": started_at,
        "seconds": round(seconds, 1),
        "quick": quick,
        "machine": machine_before,
        "rows": [row.document() for row in rows],
    }


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
