"""The pooler that a cluster's requests go through."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_2200"
down_revision = "20261122_1930"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clusters", sa.Column("pooler", sa.Text(), nullable=True))
