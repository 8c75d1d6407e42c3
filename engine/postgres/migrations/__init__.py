"""Migrations of the schema: alembic revisions whose SQL stands in `sql/`."""
