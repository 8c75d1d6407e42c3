"""Hooks: modes, statistics, circuits, and the entries that wait for hook workers."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0007"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0007_hooks.sql")
