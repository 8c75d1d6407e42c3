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
    columns = ("", "n", "p50 ms", "p95 ms", "raw Temporal p50", "ratio", "target", "")
    shown = Table(*columns, caption="ratio: our median over raw Temporal's in the same run; below 1 is faster")
    for column in shown.columns[1:6]:
        column.justify = "right"
    for row in rows:
        verdict = row.verdict
        style = {"reached": "green", "missed": "bold red", None: ""}[verdict]
        shown.add_row(
            row.name,
            str(len(row.samples_ms)),
            _figure(row.p50_ms),
            _figure(row.p95_ms),
            _figure(row.baseline_p50_ms),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.target is None else str(row.target),
            f"[{style}]{verdict}[/{style}]" if verdict and style else "",
        )
    return shown


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


def _figure(value_ms: float | None) -> str:
    if value_ms is None:
        return ""
    return f"{value_ms:,.2f}" if value_ms < 100 else f"{value_ms:,.0f}"
