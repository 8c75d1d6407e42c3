"""Hosts that serve one agent of one execution only."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0011"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0011_dedicated_hosts.sql")
