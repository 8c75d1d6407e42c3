from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from cli.board import Board
from cli.live import ROWS_MAX, follow_updates, render_board
from tests.unit.cli.fake_engine import EXECUTION_ID, status_of
from tests.unit.cli.test_board import assigned, completed

NOW = datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC)


def text_of(board: Board) -> str:
    console = Console(width=160, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(render_board(board, NOW))
    return capture.get()


def test_lines_tell_changes_once_and_the_last_snapshot_is_returned(capsys: pytest.CaptureFixture[str]) -> None:
    updates: list[Any] = [
        ("snapshot", status_of("executing", a="pending")),
        ("message", assigned("a")),
        ("idle", {}),
        ("message", completed("a")),
        ("snapshot", status_of("completed", a="completed")),
    ]
    last = follow_updates(updates, Board(EXECUTION_ID), live=False)
    assert last["status"] == "completed"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split("  ", 1)[1] for line in captured.err.splitlines()] == [
        "planning -> executing",
        "a assigned to worker-1",
        "a completed in 2.50 s by worker-1",
        "executing -> completed",
    ]


def test_the_live_table_ends_with_the_last_state(capsys: pytest.CaptureFixture[str]) -> None:
    updates: list[Any] = [
        ("snapshot", status_of("executing", a="pending")),
        ("message", assigned("a")),
        ("snapshot", status_of("completed", a="completed")),
    ]
    assert follow_updates(updates, Board(EXECUTION_ID), live=True)["status"] == "completed"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 completed" in captured.err


def test_what_runs_comes_first_and_the_rest_is_counted() -> None:
    board = Board(EXECUTION_ID)
    board.take_snapshot(status_of("executing", **{f"t{number}": "pending" for number in range(ROWS_MAX + 10)}))
    board.take_message(assigned("t33"))
    text = text_of(board)
    rows = [line.split()[0] for line in text.splitlines() if line.startswith("t")]
    assert rows[1] == "t33"
    assert "9.0" in text
    assert "... 10 more tasks" in text


def test_names_from_others_neither_drive_the_terminal_nor_are_markup() -> None:
    board = Board(EXECUTION_ID)
    board.take_message(assigned("\x1b[2J[red]a"))
    board.error = {"error_code": "X", "error_message": "[bold]no\x07"}
    text = text_of(board)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]a" in text
    assert "[bold]no" in text
