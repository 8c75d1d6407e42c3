"""Which executions have had all their facts published."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0010"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0010_published_events.sql")
