"""The migration environment: the connection and the schema are those of the loop."""

from __future__ import annotations

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table=given["schema"], version_table_schema="alembic")
with context.begin_transaction():
    context.run_migrations()
