"""Alembic's entry. The connection comes from `engine.postgres.migrate`, which also holds the lock."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], target_metadata=None, transaction_per_migration=False
)
with context.begin_transaction():
    context.run_migrations()
