"""What a host understands beyond the basic protocol."""

from engine.postgres.migrations.script import previous_revision, run_script

revision = "0006"
down_revision = previous_revision(revision)


def upgrade() -> None:
    run_script("0006_host_features.sql")
