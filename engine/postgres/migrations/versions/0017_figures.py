"""What monitoring may count over all tenants."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0017"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0017_figures.sql")
