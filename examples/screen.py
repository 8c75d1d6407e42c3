"""What every example shows while its execution runs: a live table, or lines where nobody looks at a terminal."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from cli.board import Board
from cli.client import EngineClient
from cli.live import REFRESH_PER_SECOND, render_board
from cli.output import printable
from cli.watch import Update
from engine.errors import InvalidTransitionError

WIDTH_MIN: Final = 100
PAGE_SIZE: Final = 1_000

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


def stop_leftovers(client: EngineClient, console: Console) -> None:
    """Executions of a demo that was interrupted would go on now, beside the new one."""
    for status in ("planning", "executing", "paused"):
        for item in client.get("/api/v1/executions", status=status, limit=PAGE_SIZE)["items"]:
            say(console, f"cancelling execution {item['execution_id']}, which an earlier demo left behind")
            with suppress(InvalidTransitionError):  # it has ended meanwhile
                client.call("workflow.cancel", {"execution_id": item["execution_id"]})
