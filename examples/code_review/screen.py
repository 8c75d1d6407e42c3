"""What the demo shows of the review that came of it."""

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from cli.output import printable
from cli.tables import plain
from examples.code_review.chronicle import Takeover, Timings

HEAD_LINES: Final = 18

CRITICAL: Final = {
    (True, True): "both",
    (True, False): "planned",
    (False, True): "actual",
    (False, False): "",
}


def show_head(console: Console, report: Path) -> None:
    """The first lines of the report."""
    lines = report.read_text("utf-8").splitlines()
    for line in lines[:HEAD_LINES]:
        console.print(printable(line), markup=False)
    if len(lines) > HEAD_LINES:
        console.print(f"... and {len(lines) - HEAD_LINES} more lines in {report}", markup=False, style="dim")


def show_timings(console: Console, timings: Timings, takeover: Takeover | None) -> None:
    table = Table(box=None, pad_edge=False, title="Planned against actual, in seconds", title_justify="left")
    table.add_column("task", no_wrap=True)
    table.add_column("by", no_wrap=True)
    for heading in ("tries", "planned start", "planned", "actual start", "actual"):
        table.add_column(heading, justify="right")
    table.add_column("critical")
    for row in timings.tasks:
        figures = (row.planned_start, row.planned_seconds, row.actual_start, row.actual_seconds)
        table.add_row(
            plain(row.task_id),
            plain(row.agent_id),
            plain(row.attempts),
            *(plain(f"{value:.2f}") for value in figures),
            plain(CRITICAL[row.planned_critical, row.actual_critical]),
        )  # fmt: skip
    console.print(table)
    console.print()
    for name, path, seconds in (
        ("planned", timings.planned_path, timings.planned_seconds),
        ("actual", timings.actual_path, timings.actual_seconds),
    ):
        console.print(f"Critical path, {name:<8} {seconds:6.2f} s   {' -> '.join(path)}", markup=False)
    if takeover is not None and takeover.lost.task_id in timings.actual_path:
        lost_seconds = takeover.lost.seconds + takeover.seconds
        console.print(f"Of the actual one, {lost_seconds:.2f} s went with the killed process and the takeover.")
