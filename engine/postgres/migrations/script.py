"""Runs a migration's SQL file as it stands.

SQLAlchemy prepares each statement, and PostgreSQL prepares only one at a time; a script of many goes to the driver's
connection directly, inside the transaction that alembic has begun.
"""

from pathlib import Path

from alembic import op

SCRIPTS = Path(__file__).parent / "sql"


def run_script(name: str) -> None:
    text = (SCRIPTS / name).read_text(encoding="utf-8")
    # The driver begins its transaction with the first statement that comes through SQLAlchemy.
    op.execute("SELECT 1")
    adapted = op.get_bind().connection.dbapi_connection
    adapted.run_async(lambda driver: driver.execute(text))  # type: ignore[union-attr]  # asyncpg's adapter has it


def previous_revision(revision: str) -> str:
    """The newest one before it: revisions are numbered files, and form one line."""
    numbers = (path.stem.partition("_")[0] for path in (Path(__file__).parent / "versions").glob("[0-9]*.py"))
    return max(number for number in numbers if number < revision)
