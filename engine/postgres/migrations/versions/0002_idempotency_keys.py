"""Idempotency keys of requests that have no id of their own."""

from engine.postgres.migrations.script import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_script("0002_idempotency_keys.sql")
