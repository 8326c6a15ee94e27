"""The change that is measured."""

from alembic import context, op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(context.config.attributes["sql"])
