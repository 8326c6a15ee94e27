"""Existing databases: views and projections beside their tables, and the way of their entities from an ORM to us."""
