"""The game: seven columns of six; four of one's own in a row, in any direction, win."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

COLUMNS: Final = 7
ROWS: Final = 6
CENTRE_FIRST: Final = (3, 2, 4, 1, 5, 0, 6)

Board = tuple[tuple[int, ...], ...]
"""By column, from the bottom: 1 is the piece of who began, 2 the other's."""

Strategy = Callable[[Board, int], int]
"""(board, own piece) to a column that is not full."""

EMPTY: Final[Board] = ((),) * COLUMNS


def open_columns(board: Board) -> list[int]:
    return [column for column in CENTRE_FIRST if len(board[column]) < ROWS]


def dropped(board: Board, column: int, piece: int) -> Board:
    return (*board[:column], (*board[column], piece), *board[column + 1 :])


def has_won(board: Board, column: int) -> bool:
    """Whether the piece on top of this column completes four."""
    row = len(board[column]) - 1
    piece = board[column][row]
    for step_column, step_row in ((1, 0), (0, 1), (1, 1), (1, -1)):
        length = 1
        for sign in (1, -1):
            c, r = column + sign * step_column, row + sign * step_row
            while 0 <= c < COLUMNS and 0 <= r < len(board[c]) and board[c][r] == piece:
                length += 1
                c, r = c + sign * step_column, r + sign * step_row
        if length >= 4:
            return True
    return False


def lines() -> Iterator[tuple[tuple[int, int], ...]]:
    """Every four places in a row."""
    for column in range(COLUMNS):
        for row in range(ROWS):
            for step_column, step_row in ((1, 0), (0, 1), (1, 1), (1, -1)):
                places = tuple((column + n * step_column, row + n * step_row) for n in range(4))
                if all(0 <= c < COLUMNS and 0 <= r < ROWS for c, r in places):
                    yield places


LINES: Final = tuple(lines())


def play(first: Strategy, second: Strategy) -> tuple[int, list[int]]:
    """(1 or 2 for who won, 0 for a draw; the columns that were played)."""
    board, moves = EMPTY, list[int]()
    strategies: Sequence[Strategy] = (first, second)
    while len(moves) < COLUMNS * ROWS:
        piece = len(moves) % 2 + 1
        column = strategies[piece - 1](board, piece)
        if column not in open_columns(board):
            return 3 - piece, moves  # who cannot play by the rules has lost
        board = dropped(board, column, piece)
        moves.append(column)
        if has_won(board, column):
            return piece, moves
    return 0, moves
