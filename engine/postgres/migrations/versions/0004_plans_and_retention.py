"""Plans once a tenant and content, and what deleting old data by age needs."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0004"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0004_plans_and_retention.sql")
