"""Runs that workers carry out, one of each template at a time, with outcomes in the order of their commits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126_0130"
down_revision = "20261125_2220"
branch_labels = None
depends_on = None

_STATUSES = "('queued', 'running', 'paused', 'done', 'failed', 'halted', 'aborted')"
_OPEN = "status IN ('queued', 'running', 'paused')"

# Until now several runs of a template could be open. A runner that is left hears of it with its next heartbeat.
_CLOSE_OLDER = """
    UPDATE runs SET status = 'halted', reason = 'a later run was open, too', finished_at = now()
    WHERE status IN ('running', 'paused') AND EXISTS (
        SELECT FROM runs AS later
        WHERE later.template = runs.template AND later.status IN ('running', 'paused')
          AND (later.started_at, later.id) > (runs.started_at, runs.id)
    )
"""


def upgrade() -> None:
    op.add_column("runs", sa.Column("durable", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("runs", sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint(op.f("ck_runs_status"), "runs")
    op.create_check_constraint(op.f("ck_runs_status"), "runs", f"status IN {_STATUSES}")
    op.execute(_CLOSE_OLDER)
    op.create_index("uq_runs_open", "runs", ["template"], unique=True, postgresql_where=sa.text(_OPEN))
    op.add_column("run_homes", sa.Column("number", sa.BigInteger(), sa.Identity(), nullable=False))
    op.create_index(
        "ix_run_homes_failed", "run_homes", ["run_id", "number"], postgresql_where=sa.text("status = 'failed'")
    )

    op.add_column("idempotency_keys", sa.Column("run_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_idempotency_keys_run_id"), "idempotency_keys", "runs", ["run_id"], ["id"], ondelete="CASCADE"
    )
    op.create_index(op.f("ix_idempotency_keys_run_id"), "idempotency_keys", ["run_id"])
    op.alter_column("idempotency_keys", "operation_id", nullable=True)
    op.create_check_constraint(
        op.f("ck_idempotency_keys_leads_to_one"), "idempotency_keys", "num_nonnulls(operation_id, run_id) = 1"
    )
