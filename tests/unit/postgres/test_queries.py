"""The SQL files and the names by which the stores know them."""

import re
from pathlib import Path

import pytest

from engine import postgres
from engine.errors import ConfigurationError
from engine.postgres.queries import load_queries

PACKAGE = Path(postgres.__path__[0])


def test_every_statement_is_used_and_every_name_used_is_there() -> None:
    used: set[str] = set()
    for path in PACKAGE.glob("*.py"):
        used |= set(re.findall(r'"([a-z_]+\.[a-z_]+)"', path.read_text(encoding="utf-8")))
    queries = load_queries()
    files = {name.split(".")[0] for name in queries}
    assert {name for name in used if name.split(".")[0] in files} == set(queries)
    assert all(text for text in queries.values())


def test_a_name_given_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "things.sql").write_text("-- name: one\nSELECT 1\n-- name: one\nSELECT 2\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="one"):
        load_queries(tmp_path)
