"""PostgreSQL reads the arrays that are written as text, whatever their elements hold."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus, TaskState
from engine.postgres.cluster import ClusterUrls
from engine.postgres.documents import raw_document, reported_document, storable_text
from engine.postgres.literals import documents, numbers, plain, texts

Read = Callable[[str, str], list[Any]]

AWKWARD = [
    "",
    " ",
    "null",
    "NULL",
    "{",
    "}",
    "{}",
    ",",
    '"',
    '""',
    "\\",
    '\\"',
    "\\\\",
    "\t\r\n",
    "'",
    "a b",
    "ä€😀",
    "\x7f",
]
TEXTS = st.text().map(storable_text) | st.sampled_from(AWKWARD) | st.text(alphabet='\\"{},nulNUL \n')
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def read(migrated_database: ClusterUrls) -> Iterator[Read]:
    """The array of that type, as the server read it, back as a list."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(migrated_database.app, timeout=30))

        async def fetched(call: Awaitable[Any]) -> Any:
            return await call

        def ask(literal: str, element: str) -> list[Any]:
            shown = "::text[]" if element.startswith("json") else ""
            query = f"SELECT $1::text::{element}[]{shown}"
            answer: list[Any] = runner.run(fetched(connection.fetchval(query, literal, timeout=30)))
            return answer

        yield ask
        runner.run(connection.close())


def through(examine: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    run: Callable[[], None] = settings(max_examples=150, deadline=None)(given(*strategies)(examine))
    run()


def test_texts(read: Read) -> None:
    @example([*AWKWARD, None, *AWKWARD])
    def come_back(values: Sequence[str | None]) -> None:
        assert read(texts(values), "text") == list(values)

    through(come_back, st.lists(TEXTS | st.none(), max_size=20))


def test_numbers(read: Read) -> None:
    @example([-(2**63), 2**63 - 1, 0, None])
    def come_back(values: Sequence[int | None]) -> None:
        assert read(numbers(values), "bigint") == list(values)

    through(come_back, st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), max_size=20))


def test_documents_of_both_kinds(read: Read) -> None:
    def come_back(values: Sequence[Any]) -> None:
        written = [None if value is ... else raw_document(value) for value in values]
        expected = [None if document is None else document.decode() for document in written]
        assert read(documents(written), "json") == expected, "to the letter"
        stored = [None if value is ... else reported_document(value) for value in values]
        found = read(documents(stored), "jsonb")
        assert [item is None for item in found] == [value is ... for value in values], "JSON's null is no NULL"
        for document, item in zip(stored, found, strict=True):
            if document is not None:
                assert same(json.loads(document), json.loads(item))

    through(come_back, st.lists(VALUES | st.just(...), max_size=6))


def same(written: Any, stored: Any) -> bool:
    """jsonb writes numbers its own way: what is the same number is the same."""
    if isinstance(written, dict):
        return written.keys() == stored.keys() and all(same(written[key], stored[key]) for key in written)
    if isinstance(written, list):
        return len(written) == len(stored) and all(map(same, written, stored))
    if isinstance(written, float) or isinstance(stored, float):
        return float(written) == float(stored)
    return bool(written == stored)


def test_every_name_that_is_written_plain(read: Read) -> None:
    names = [*(s.value for s in TaskState), *(s.value for s in ExecutionStatus), *(t.value for t in AuditEventType)]
    assert read(plain(names), "text") == names
    assert "null" not in [name.lower() for name in names]
    assert read(plain(["t", "f"]), "boolean") == [True, False]


def test_empty_arrays_and_those_of_nulls(read: Read) -> None:
    for element in ("text", "bigint", "boolean", "json", "jsonb", "integer"):
        assert read(texts([]), element) == []
        assert read(texts([None, None]), element) == [None, None]
        assert read(numbers([None]), element) == [None]


def test_a_large_document_among_small_ones(read: Read) -> None:
    large = orjson.dumps({"text": '\\"' * 200_000})
    assert read(documents([b"1", large, None]), "json") == ["1", large.decode(), None]
