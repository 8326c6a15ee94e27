"""The migration environment as `alembic init` and the cookbook's page on schema-level tenancy have it."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

config = context.config
tenant = context.get_x_argument(as_dictionary=True)["tenant"]
connectable = create_engine(config.attributes["url"], poolclass=pool.NullPool)
with connectable.connect() as connection:
    connection.execute(text(f'SET search_path = "{tenant}", extensions, pg_temp'))
    connection.execute(text("SET ROLE cp_owner"))
    connection.commit()
    connection.dialect.default_schema_name = str(tenant)
    context.configure(connection=connection, version_table=str(tenant), version_table_schema="alembic")
    with context.begin_transaction():
        context.run_migrations()
