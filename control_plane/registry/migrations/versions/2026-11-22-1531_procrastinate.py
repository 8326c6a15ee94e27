"""The job tables of Procrastinate 3.10.0.

A copy and not the installed package's file: a revision is history, and must create the same tables after the package
was upgraded. tests/migration compares the copy with the pinned package; when that test fails, the upgrade of the
package needs a new revision with the package's own migrations since 3.10.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import op

revision = "20261122_1531"
down_revision = "20261122_1530"
branch_labels = None
depends_on = None

SCHEMA = Path(__file__).parent.parent / "sql" / "procrastinate_3_10_0.sql"


def upgrade() -> None:
    script = SCHEMA.read_text(encoding="utf-8")
    # Many statements in one string need asyncpg's simple protocol, which SQLAlchemy does not use.
    adapted: Any = op.get_bind().connection.dbapi_connection
    adapted.run_async(lambda connection: connection.execute(script))
