"""The players: from one that takes the first free column to searches of several depths. All are deterministic."""

from collections.abc import Mapping
from functools import partial
from typing import Final
from zlib import crc32

from examples.tournament.connect_four import LINES, Board, Strategy, dropped, has_won, open_columns

WON: Final = 10_000


def _leftmost(board: Board, _piece: int) -> int:
    return min(open_columns(board))


def _centre(board: Board, _piece: int) -> int:
    return open_columns(board)[0]


def _dice(seed: str, board: Board, _piece: int) -> int:
    """Looks random, and is the same each time."""
    free = sorted(open_columns(board))
    return free[crc32(f"{seed}{board}".encode()) % len(free)]


def _watchful(board: Board, piece: int) -> int:
    """Wins where it can, stops the other where it must."""
    for who in (piece, 3 - piece):
        for column in open_columns(board):
            if has_won(dropped(board, column, who), column):
                return column
    return _centre(board, piece)


def _search(depth: int, board: Board, piece: int) -> int:
    best, chosen = -WON * 2, open_columns(board)[0]
    for column in open_columns(board):
        after = dropped(board, column, piece)
        value = WON + depth if has_won(after, column) else -_value(after, 3 - piece, depth - 1, -WON * 2, -best)
        if value > best:
            best, chosen = value, column
    return chosen


def _value(board: Board, piece: int, depth: int, low: int, high: int) -> int:
    """For who is to play: alpha-beta."""
    free = open_columns(board)
    if not free:
        return 0
    if depth <= 0:
        return _judgement(board, piece)
    for column in free:
        after = dropped(board, column, piece)
        value = WON + depth if has_won(after, column) else -_value(after, 3 - piece, depth - 1, -high, -low)
        if value >= high:
            return value
        low = max(low, value)
    return low


def _judgement(board: Board, piece: int) -> int:
    """Lines that only one side holds pieces of count for that side."""
    value = 0
    for places in LINES:
        held = [board[column][row] for column, row in places if row < len(board[column])]
        if held and len(set(held)) == 1:
            value += (1 if held[0] == piece else -1) * len(held) ** 2
    return value


PLAYERS: Final[Mapping[str, Strategy]] = {
    "leftmost": _leftmost,
    "centre": _centre,
    "dice": partial(_dice, "a"),
    "other-dice": partial(_dice, "b"),
    "watchful": _watchful,
    "one-ahead": partial(_search, 1),
    "two-ahead": partial(_search, 2),
    "three-ahead": partial(_search, 3),
    "four-ahead": partial(_search, 4),
}
