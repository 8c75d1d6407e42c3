"""One service's books: a SQLite file, double entry, where each booking and its cancellation stand at most once.

A booking is named by a key. Booking again under a key, or cancelling again, changes nothing. A cancellation of what was
never booked is remembered: a booking that comes after it, late, is refused. That is all that a saga asks of a service.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BUSY_SECONDS: Final = 10.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS bookings (key TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, account TEXT NOT NULL, amount INTEGER NOT NULL,
    at_ns INTEGER NOT NULL, UNIQUE (key, kind, account)
);
"""


class CancelledBeforeError(Exception):
    """The booking was cancelled before it came."""


@dataclass(frozen=True)
class Entry:
    key: str
    kind: str
    account: str
    amount: int
    at_ns: int


class Ledger:
    def __init__(self, file: Path) -> None:
        self._file = file

    def open_account(self, account: str, amount: int) -> None:
        """With what it holds in the beginning; the counterpart is the account `opening`."""
        with self._transaction() as books:
            self._write(books, f"open {account}", "open", "opening", account, amount)

    def book(self, key: str, source: str, target: str, amount: int) -> bool:
        """Move an amount; whether this was the first time. Raises CancelledBeforeError."""
        with self._transaction() as books:
            state = self._state(books, key)
            if state == "cancelled":
                raise CancelledBeforeError(key)
            if state == "booked":
                return False
            books.execute("INSERT INTO bookings VALUES (?, 'booked')", (key,))
            self._write(books, key, "book", source, target, amount)
            return True

    def cancel(self, key: str) -> bool:
        """Move it back; whether there was anything to move."""
        with self._transaction() as books:
            state = self._state(books, key)
            books.execute("INSERT OR REPLACE INTO bookings VALUES (?, 'cancelled')", (key,))
            if state != "booked":
                return False
            rows = books.execute("SELECT account, amount FROM entries WHERE key = ? AND kind = 'book'", (key,))
            for account, amount in rows.fetchall():
                self._insert(books, key, "cancel", account, -amount)
            return True

    def balances(self) -> dict[str, int]:
        with self._transaction() as books:
            rows = books.execute("SELECT account, sum(amount) FROM entries GROUP BY account ORDER BY account")
            return dict(rows.fetchall())

    def entries(self) -> list[Entry]:
        with self._transaction() as books:
            rows = books.execute("SELECT key, kind, account, amount, at_ns FROM entries ORDER BY number")
            return [Entry(*row) for row in rows.fetchall()]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Exclusive, so that what is read in it still holds when it is written."""
        with closing(sqlite3.connect(self._file, timeout=BUSY_SECONDS, isolation_level=None)) as books:
            books.executescript(_SCHEMA)
            books.execute("BEGIN IMMEDIATE")
            try:
                yield books
            except BaseException:
                books.execute("ROLLBACK")
                raise
            books.execute("COMMIT")

    @staticmethod
    def _state(books: sqlite3.Connection, key: str) -> str | None:
        row = books.execute("SELECT state FROM bookings WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _write(self, books: sqlite3.Connection, key: str, kind: str, source: str, target: str, amount: int) -> None:
        self._insert(books, key, kind, source, -amount)
        self._insert(books, key, kind, target, amount)

    @staticmethod
    def _insert(books: sqlite3.Connection, key: str, kind: str, account: str, amount: int) -> None:
        books.execute(
            "INSERT OR IGNORE INTO entries (key, kind, account, amount, at_ns) VALUES (?, ?, ?, ?, ?)",
            (key, kind, account, amount, time.time_ns()),
        )
