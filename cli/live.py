"""Following an execution on the terminal: a live table, or plain lines where stderr is no terminal."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.board import ENDED, Board, TaskRow
from cli.output import print_message
from cli.tables import describe_error, plain, state_text
from cli.watch import Update

ROWS_MAX = 24
REFRESH_PER_SECOND = 8


def follow_updates(updates: Iterable[Update], board: Board, *, live: bool | None = None) -> dict[str, Any]:
    """Show updates on stderr until they end; returns the last snapshot."""
    console = Console(stderr=True)
    if live is None:
        live = console.is_terminal
    if live:
        return _follow_live(updates, board, console)
    return _follow_lines(updates, board)


def _follow_lines(updates: Iterable[Update], board: Board) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for kind, content in updates:
        line = None
        if kind == "snapshot":
            previous = board.status
            board.take_snapshot(content)
            last = content
            if board.status != previous:
                line = f"{previous} -> {board.status}"
        elif kind == "message":
            line = board.take_message(content)
        if line is not None:
            print_message(f"{datetime.now().astimezone():%H:%M:%S}  {line}")
    return last


def _follow_live(updates: Iterable[Update], board: Board, console: Console) -> dict[str, Any]:
    last: dict[str, Any] = {}
    with Live(console=console, refresh_per_second=REFRESH_PER_SECOND, transient=False) as display:
        for kind, content in updates:
            if kind == "snapshot":
                board.take_snapshot(content)
                last = content
            elif kind == "message":
                board.take_message(content)
            display.update(render_board(board, datetime.now(UTC)))
    return last


def render_board(board: Board, now: datetime) -> RenderableType:
    """Status, a bar, and the tasks that matter most: what runs, what failed, what ended last, what waits."""
    counts = board.counts()
    total = len(board.tasks)
    done = sum(counts.get(state, 0) for state in ENDED)
    head = Table.grid(padding=(0, 2))
    summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    head.add_row(
        plain(board.execution_id), state_text(board.status), ProgressBar(max(total, 1), done, width=30), plain(summary)
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("task", "state", "agent", "attempt", "seconds", "progress"):
        table.add_column(heading, justify="right" if heading in ("attempt", "seconds", "progress") else "left")
    shown = _rows_to_show(board.tasks.values())
    for row in shown:
        seconds = row.seconds(now)
        table.add_row(
            plain(row.task_id),
            state_text(row.state),
            plain(row.agent_id),
            plain(row.attempts or ""),
            plain(f"{seconds:.1f}" if seconds is not None else ""),
            plain(f"{row.progress:.0%}" if 0 < row.progress < 1 else ""),
        )
    parts: list[RenderableType] = [head, table]
    if total > len(shown):
        parts.append(Text(f"... {total - len(shown)} more tasks", style="dim"))
    if board.error:
        parts.append(Text(describe_error(board.error), style="red"))
    return Group(*parts)


def _rows_to_show(rows: Iterable[TaskRow]) -> list[TaskRow]:
    ranks = {"running": 0, "compensating": 0, "failed": 1, "completed": 2, "pending": 3}
    earliest = datetime.min.replace(tzinfo=UTC)

    def key(row: TaskRow) -> tuple[int, float]:
        moment = row.ended or row.started
        recency = -(moment - earliest).total_seconds() if moment is not None else 0.0
        return ranks.get(row.state, 4), recency

    return sorted(rows, key=key)[:ROWS_MAX]
