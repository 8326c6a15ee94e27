"""Tokens that were taken back, and notices to the processes that serve requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_2210"
down_revision = "20261125_2200"
branch_labels = None
depends_on = None

# Triggers, so that whoever changes a placement tells of it, and nobody else: a transaction with a notice takes a lock
# of the whole server when it commits.
_NOTIFY = """
    CREATE FUNCTION control_plane_notify() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify(TG_ARGV[0], NEW.id::text);
        RETURN NULL;
    END
    $$
"""
_TENANTS = """
    CREATE TRIGGER tr_tenants_notify AFTER UPDATE OF status, epoch, home_id ON tenants FOR EACH ROW
    WHEN ((OLD.status, OLD.epoch, OLD.home_id) IS DISTINCT FROM (NEW.status, NEW.epoch, NEW.home_id))
    EXECUTE FUNCTION control_plane_notify('control_plane_tenant')
"""
_HOMES = """
    CREATE TRIGGER tr_homes_notify AFTER UPDATE OF pattern_version, ready ON homes FOR EACH ROW
    WHEN ((OLD.pattern_version, OLD.ready) IS DISTINCT FROM (NEW.pattern_version, NEW.ready))
    EXECUTE FUNCTION control_plane_notify('control_plane_home')
"""
_REVOCATIONS = """
    CREATE TRIGGER tr_revocations_notify AFTER INSERT ON revocations FOR EACH ROW
    EXECUTE FUNCTION control_plane_notify('control_plane_revocation')
"""


def upgrade() -> None:
    op.create_table(
        "revocations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("token_id", sa.Text(), nullable=True),
        sa.Column("issued_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('token', 'user', 'tenant', 'subject')", name=op.f("ck_revocations_kind")),
        sa.CheckConstraint(
            "(kind IN ('user', 'tenant')) = (tenant_id IS NOT NULL)"
            " AND (kind IN ('user', 'subject')) = (subject IS NOT NULL)"
            " AND (kind = 'token') = (token_id IS NOT NULL)"
            " AND (kind = 'token') = (issued_before IS NULL)",
            name=op.f("ck_revocations_target"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revocations")),
    )
    for statement in (_NOTIFY, _TENANTS, _HOMES, _REVOCATIONS):
        op.execute(statement)
