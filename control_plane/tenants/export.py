"""A tenant's rows in one file, whatever the isolation: what is handed over before a tenant is deleted.

A zip with `manifest.json` and one `<table>.ndjson` per table, a row a line, all as of one moment. A suspended tenant
can be exported, and its rows no longer change.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg

from control_plane.errors import InvalidInput
from control_plane.pools.databases import Databases
from control_plane.registry import audit, tenants
from control_plane.registry.models import Tenant
from control_plane.templates.script import quote

# What is lost without harm, unlogged tables, is not worth handing over; partitions come with their parents.
_TABLES = """
SELECT c.relname
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
ORDER BY c.relname"""

# No JSON text holds these two, so that COPY's csv writes each row as it is.
_QUOTE, _DELIMITER = "\x01", "\x02"


@dataclass(frozen=True)
class Export:
    """What was written: `rows` per table."""

    path: Path
    tenant: str
    template: str
    pattern_version: int
    rows: dict[str, int]


async def export_tenant(
    databases: Databases, ref: str | UUID, path: Path, *, actor: str, progress: Callable[[str, int], None]
) -> Export:
    """Write the file at `path`, which must not exist; `progress(table, rows)` is called as each table is done.

    Raises `TenantNotFound`, `InvalidInput`, `ClusterUnavailable`. Nothing is left at `path` unless it is complete.
    """
    _require_new(path)
    async with databases.registry() as session:
        tenant, home, cluster = await tenants.get(session, ref)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    rows: dict[str, int] = {}
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            async with (
                databases.admin(cluster, home.database, purpose="export") as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                version = await connection.fetchval("SELECT version FROM tenancy.homes WHERE id = $1", home.id)
                # As the owner, whose policy sees all rows of common tables; and times in one zone for every reader.
                await connection.execute("SET LOCAL ROLE cp_owner; SET LOCAL timezone = 'UTC'")
                for table in [row["relname"] for row in await connection.fetch(_TABLES, home.schema_name)]:
                    rows[table] = await _copy(connection, archive, home.schema_name, table, tenant)
                    progress(table, rows[table])
            export = Export(path, tenant.slug, home.template, version, rows)
            archive.writestr("manifest.json", _manifest(export, tenant))
        os.replace(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
    async with databases.registry.begin() as session:
        audit.record(session, actor, "tenant.export", tenant.id, rows=sum(rows.values()))
    return export


def _require_new(path: Path) -> None:
    if path.exists():
        raise InvalidInput(f"{path} exists.", hint="Name another file, or remove it.")
    if not path.parent.is_dir():
        raise InvalidInput(f"{path.parent} is no directory.")


async def _copy(
    connection: asyncpg.Connection, archive: zipfile.ZipFile, schema: str, table: str, tenant: Tenant
) -> int:
    with archive.open(f"{table}.ndjson", "w", force_zip64=True) as file:

        async def write(data: bytes) -> None:
            file.write(data)

        status = await connection.copy_from_query(
            f"SELECT to_jsonb(t) FROM {quote(schema)}.{quote(table)} AS t WHERE tenant_id = $1",  # noqa: S608 - both are quoted
            tenant.id,
            output=write,
            format="csv",
            quote=_QUOTE,
            delimiter=_DELIMITER,
        )
    return int(status.split()[-1])


def _manifest(export: Export, tenant: Tenant) -> str:
    facts = {
        "tenant": {"id": str(tenant.id), "slug": tenant.slug, "name": tenant.name, "isolation": tenant.isolation},
        "template": export.template,
        "pattern_version": export.pattern_version,
        "exported_at": datetime.now(UTC).isoformat(),
        "rows": export.rows,
    }
    return json.dumps(facts, indent=2) + "\n"
