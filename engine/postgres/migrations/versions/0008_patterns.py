"""Registered coordination patterns."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0008"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0008_patterns.sql")
