"""What the demo shows: progress while it runs, and what came of it."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli.board import Board
from cli.live import REFRESH_PER_SECOND, render_board
from cli.output import printable
from cli.tables import plain
from cli.watch import Update
from examples.code_review.chronicle import Takeover, Timings

HEAD_LINES: Final = 18
WIDTH_MIN: Final = 100

CRITICAL: Final = {
    (True, True): "both",
    (True, False): "planned",
    (False, True): "actual",
    (False, False): "",
}

Notice = Callable[[Board], str | None]
"""Looks at the board after each update; what it says is shown."""


def make_console() -> Console:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal and console.width < WIDTH_MIN:
        console.width = WIDTH_MIN  # a file or a pipe has no width of its own
    return console


def follow(console: Console, updates: Iterable[Update], board: Board, notice: Notice) -> dict[str, Any]:
    """Show an execution until it ends; returns the last snapshot."""
    if not console.is_terminal:
        return _follow(console, updates, board, notice, lambda: None, lines=True)
    with Live(console=console, refresh_per_second=REFRESH_PER_SECOND) as live:
        return _follow(
            console, updates, board, notice, lambda: live.update(render_board(board, datetime.now(UTC))), lines=False
        )


def _follow(
    console: Console,
    updates: Iterable[Update],
    board: Board,
    notice: Notice,
    draw: Callable[[], None],
    *,
    lines: bool,
) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for kind, content in updates:
        line = None
        if kind == "snapshot":
            board.take_snapshot(content)
            last = content
        elif kind == "message":
            line = board.take_message(content)
        if lines and line is not None:
            say(console, line)
        draw()
        noticed = notice(board)
        if noticed is not None:
            say(console, noticed, style="bold red")
    return last


def say(console: Console, text: str, style: str = "") -> None:
    console.print(f"{datetime.now().astimezone():%H:%M:%S}  {printable(text)}", markup=False, style=style)


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
