"""Compensations that were left to operators."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0009"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0009_compensation.sql")
