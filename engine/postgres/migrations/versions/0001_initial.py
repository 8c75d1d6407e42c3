"""The first schema: tables, row-level security, the functions behind a tick and the status."""

from engine.postgres.migrations.script import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_script("0001_tables.sql")
    run_script("0001_security.sql")
    run_script("0001_functions.sql")
