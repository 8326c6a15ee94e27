"""The control plane for SaaS companies on PostgreSQL."""

__version__ = "0.1.0"
