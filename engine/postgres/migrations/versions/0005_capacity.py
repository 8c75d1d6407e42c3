"""What open executions hold of the engine's capacity, and which of them wait for it."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0005"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0005_capacity.sql")
