"""Adoptions of existing databases, and the entities that are moved from an ORM."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261122_1930"
down_revision = "20261122_1850"
branch_labels = None
depends_on = None

_STAGES = "('orm', 'shadow', 'views', 'functions', 'done')"


def upgrade() -> None:
    op.create_table(
        "adoptions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dsn", sa.LargeBinary(), nullable=False),
        sa.Column("schema_name", sa.Text(), nullable=False),
        sa.Column("reader_role", sa.Text(), nullable=False),
        sa.Column("writer_role", sa.Text(), nullable=False),
        sa.Column("readers", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("state", sa.Text(), server_default="planned", nullable=False),
        *_timestamps(),
        sa.CheckConstraint("state IN ('planned', 'applying', 'active', 'removing')", name=op.f("ck_adoptions_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adoptions")),
        sa.UniqueConstraint("name", name=op.f("uq_adoptions_name")),
    )
    op.create_table(
        "adopted_tables",
        sa.Column("adoption_id", sa.Uuid(), nullable=False),
        sa.Column("schema_name", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("mapping", _jsonb(), nullable=False),
        sa.Column("confirmed", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("state", sa.Text(), server_default="planned", nullable=False),
        sa.Column("cursor", _jsonb(), nullable=True),
        sa.Column("rows", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_sync_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_sync", _jsonb(), nullable=True),
        *_timestamps(),
        sa.CheckConstraint(
            "state IN ('planned', 'building', 'filling', 'active', 'suspending', 'suspended')",
            name=op.f("ck_adopted_tables_state"),
        ),
        sa.ForeignKeyConstraint(
            ["adoption_id"], ["adoptions.id"], name=op.f("fk_adopted_tables_adoption_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("adoption_id", "schema_name", "table_name", name=op.f("pk_adopted_tables")),
    )
    op.create_table(
        "adopted_entities",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("adoption_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("schema_name", sa.Text(), nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("orm_role", sa.Text(), nullable=False),
        sa.Column("app_role", sa.Text(), nullable=False),
        sa.Column("orm_query", sa.Text(), nullable=True),
        sa.Column("orm_keys", _jsonb(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("stage", sa.Text(), server_default="orm", nullable=False),
        sa.Column("moving_to", sa.Text(), nullable=True),
        sa.Column("grants", _jsonb(), nullable=True),
        *_timestamps(),
        sa.CheckConstraint(f"stage IN {_STAGES}", name=op.f("ck_adopted_entities_stage")),
        sa.CheckConstraint(f"moving_to IN {_STAGES}", name=op.f("ck_adopted_entities_moving_to")),
        sa.ForeignKeyConstraint(
            ["adoption_id", "schema_name", "table_name"],
            ["adopted_tables.adoption_id", "adopted_tables.schema_name", "adopted_tables.table_name"],
            name=op.f("fk_adopted_entities_adoption_id_schema_name_table_name"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adopted_entities")),
        sa.UniqueConstraint("adoption_id", "name", name=op.f("uq_adopted_entities_adoption_id_name")),
        sa.UniqueConstraint(
            "adoption_id",
            "schema_name",
            "table_name",
            name=op.f("uq_adopted_entities_adoption_id_schema_name_table_name"),
        ),
    )
    op.create_table(
        "adopted_entity_moves",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("from_stage", sa.Text(), nullable=False),
        sa.Column("to_stage", sa.Text(), nullable=False),
        sa.Column("report", _jsonb(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entity_id"],
            ["adopted_entities.id"],
            name=op.f("fk_adopted_entity_moves_entity_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adopted_entity_moves")),
    )
    op.create_index(op.f("ix_adopted_entity_moves_entity_id"), "adopted_entity_moves", ["entity_id"], unique=False)


def _jsonb() -> postgresql.JSONB:
    return postgresql.JSONB(astext_type=sa.Text())


def _timestamps() -> list[sa.Column[object]]:
    return [
        sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
        for name in ("created_at", "updated_at")
    ]
