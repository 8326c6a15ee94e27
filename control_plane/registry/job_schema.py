"""The job tables are Procrastinate's: its own files create and upgrade them, and the registry records which ran."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from control_plane.registry.models import JobMigration


def shipped_migrations() -> dict[str, Path]:
    """The migrations of the installed Procrastinate by name; their names sort in the order in which they apply.

    Every command asks whether one is missing, and few need the package, which takes a tenth of a second to import.
    """
    found = find_spec("procrastinate")
    assert found is not None
    assert found.origin is not None
    return {path.name: path for path in sorted((Path(found.origin).parent / "sql" / "migrations").glob("*.sql"))}


def missing_migrations(connection: Connection) -> list[str]:
    applied = set(connection.scalars(select(JobMigration.name)))
    return [name for name in shipped_migrations() if name not in applied]


def upgrade_job_schema(connection: Connection) -> bool:
    """Create the job tables as the installed package has them, or apply the next of its migrations; False: none left.

    One migration per transaction: a value that one adds to an enum can be used only after its commit.
    """
    shipped, missing = shipped_migrations(), missing_migrations(connection)
    if not missing:
        return False
    if len(missing) == len(shipped):
        from procrastinate.schema import SchemaManager

        execute_script(connection, SchemaManager.get_schema())  # what all migrations lead to
        applied = missing
    else:
        applied = missing[:1]
        execute_script(connection, shipped[applied[0]].read_text("utf-8"))
    connection.execute(insert(JobMigration), [{"name": name} for name in applied])
    return True


def execute_script(connection: Connection, script: str) -> None:
    # Many statements in one string need asyncpg's simple protocol, which SQLAlchemy does not use.
    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(lambda driver: driver.execute(script))
