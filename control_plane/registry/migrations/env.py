"""Run by Alembic, on the connection (and in the transaction) that `registry.upgrade` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from control_plane.registry.models import Base


def include_name(name: str | None, type_: str, parent_names: object) -> bool:
    """Procrastinate's tables are not ours to compare."""
    return type_ != "table" or not (name or "").startswith("procrastinate_")


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    include_name=include_name,
    compare_server_default=True,
)
# A migration that waits for a lock makes everybody behind it wait too: rather fail and be started again.
connection.execute(text("SET LOCAL lock_timeout = '5s'"))
with context.begin_transaction():
    context.run_migrations()
