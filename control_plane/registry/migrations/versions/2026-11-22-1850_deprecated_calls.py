"""Who still calls what is deprecated, and how many rows an upgrade touched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261122_1850"
down_revision = "20261122_1530"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deprecated_calls",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("api", sa.Integer(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "tenant_id", "template", "api", "resource", name=op.f("pk_deprecated_calls")),
    )
    op.add_column("run_homes", sa.Column("rows_touched", sa.BigInteger(), nullable=True))
