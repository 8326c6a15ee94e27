"""What the cookbook of Alembic shows for many schemas: one upgrade after the other, each with a version table."""
