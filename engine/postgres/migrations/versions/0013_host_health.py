"""How hosts are, and their history."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0013"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0013_host_health.sql")
