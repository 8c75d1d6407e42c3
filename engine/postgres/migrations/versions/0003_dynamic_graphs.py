"""Tasks that executions add while they run, external events, and results that equal tasks may take."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0003"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0003_dynamic_graphs.sql")
