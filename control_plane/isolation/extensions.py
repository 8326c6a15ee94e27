"""Extensions that a template lists; they exist once per database, in the schema `extensions`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import asyncpg

from control_plane.errors import ExtensionUnavailable
from control_plane.isolation.tenancy_schema import cluster_sql
from control_plane.templates import Template

SCHEMA = "extensions"  # on the path of every home; cp_owner owns it, requests may use it
_INSTALLED = """
SELECT e.extname, n.nspname
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = ANY ($1)
"""


@dataclass(frozen=True, slots=True)
class ExtensionFault:
    """Why an extension cannot be used in a database, and what the operator does about it."""

    extension: str
    problem: str
    fix: str


async def install_extensions(connection: asyncpg.Connection, template: Template) -> None:
    """Install what the database lacks; as the administrative role, outside a transaction.

    Trusted extensions need no superuser, only CREATE on the database. Raises `ExtensionUnavailable`.
    """
    wanted = template.manifest.extensions
    installed = {row["extname"]: row["nspname"] for row in await connection.fetch(_INSTALLED, wanted)}
    missing = [name for name in wanted if installed.get(name) != SCHEMA]
    if not missing:
        return
    if faults := await extension_faults(connection, missing):
        raise ExtensionUnavailable(
            f"The extension '{faults[0].extension}', which the template '{template.name}' needs, {faults[0].problem}.",
            hint="; ".join(fault.fix for fault in faults),
        )
    create = ";".join(f'CREATE EXTENSION IF NOT EXISTS "{name}" SCHEMA {SCHEMA}' for name in missing)
    # Without the lock the second of two at once fails: IF NOT EXISTS looks before the first has committed.
    await connection.execute(f"SELECT pg_advisory_xact_lock(hashtextextended('tenancy.extensions', 0)); {create}")


async def extension_faults(connection: asyncpg.Connection, names: Collection[str]) -> list[ExtensionFault]:
    """Which of `names` neither stand in the schema `extensions` of this database nor can be installed there."""
    rows = await connection.fetch(cluster_sql("extensions.sql"), sorted(names))
    return [ExtensionFault(row["name"], row["problem"], row["fix"]) for row in rows]
