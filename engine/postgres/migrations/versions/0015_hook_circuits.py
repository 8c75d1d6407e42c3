"""Circuits of hooks that one burst of failures opens once."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0015"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0015_hook_circuits.sql")
