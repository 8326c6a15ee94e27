"""The change that is measured."""

from alembic import context, op

revision = "next"
down_revision = "base"


def upgrade() -> None:
    op.execute(context.config.attributes["sql"])
