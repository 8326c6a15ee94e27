"""Names of what a home consists of. They come from ids, are recorded, and never change."""

from __future__ import annotations

from uuid import UUID


def installation_prefix(installation_id: UUID) -> str:
    """Roles and databases are server-wide, so their names tell one installation from another."""
    return f"cp_{installation_id.hex[:8]}"


def tenants_database(installation_id: UUID) -> str:
    """Of shared and schema homes; the role of the same name may connect to it."""
    return f"{installation_prefix(installation_id)}_tenants"


def schema_name(home_id: UUID) -> str:
    return f"t_{home_id.hex[:12]}"


def request_role(installation_id: UUID, home_id: UUID) -> str:
    return f"{installation_prefix(installation_id)}_{schema_name(home_id)}"


def home_database(home_id: UUID) -> str:
    return schema_name(home_id)


def template_database(prefix: str, template: str, version: int, checksum: str) -> str:
    """`checksum` covers all that is in it, so that a name never stands for two contents; at most 63 bytes."""
    return f"{prefix}_{template[:24]}_{version:04}_{checksum[:8]}"
