"""The audit log in partitions by time."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0014"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0014_event_partitions.sql")
