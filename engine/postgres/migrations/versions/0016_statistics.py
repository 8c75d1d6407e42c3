"""Statistics of executions, counted ahead."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0016"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0016_statistics.sql")
