"""Runs that can be paused, stopped and taken over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261125_2220"
down_revision = "20261125_2210"
branch_labels = None
depends_on = None

_STATUSES = "('running', 'paused', 'done', 'failed', 'halted', 'aborted')"


def upgrade() -> None:
    op.add_column("runs", sa.Column("options", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False))
    op.add_column("runs", sa.Column("actor", sa.Text(), server_default="library", nullable=False))
    for name in ("wave", "wish", "reason"):
        op.add_column("runs", sa.Column(name, sa.Text(), nullable=True))
    op.add_column(
        "runs", sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    )
    op.drop_constraint(op.f("ck_runs_status"), "runs")
    op.create_check_constraint(op.f("ck_runs_status"), "runs", f"status IN {_STATUSES}")
    op.create_check_constraint(op.f("ck_runs_wish"), "runs", "wish IN ('pause', 'abort')")
