"""Where the fleet stands."""

revision = "base"
down_revision = None


def upgrade() -> None:
    pass
