"""PostgreSQL: schema, row-level security, journal and read model. Nothing else imports asyncpg."""
