"""Installs and upgrades the schema `tenancy` of one database from `sql/`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import asyncpg

from control_plane.errors import ConfigurationError
from control_plane.settings import shipped


@dataclass(frozen=True, slots=True)
class TenancyVersion:
    number: int
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def shipped_versions() -> tuple[TenancyVersion, ...]:
    """The versions of `tenancy` that this release brings, oldest first."""
    directories = sorted(path for path in (shipped("sql") / "tenancy").iterdir() if path.is_dir())
    return tuple(
        TenancyVersion(
            int(directory.name[:4]), "\n".join(file.read_text("utf-8") for file in sorted(directory.glob("*.sql")))
        )
        for directory in directories
    )


def latest_version() -> int:
    return shipped_versions()[-1].number


def cluster_sql(name: str) -> str:
    return (shipped("sql") / "cluster" / name).read_text("utf-8")


async def tenancy_version(connection: asyncpg.Connection) -> int:
    """The version that stands in this database; 0 when there is none."""
    if not await connection.fetchval("SELECT to_regclass('tenancy.versions') IS NOT NULL"):
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM tenancy.versions"))


async def upgrade_tenancy(connection: asyncpg.Connection) -> bool:
    """Bring `tenancy` to this release's version; whether anything had to be done.

    Raises `ConfigurationError` when an applied version differs from the shipped one.
    """
    if await tenancy_version(connection) >= latest_version():
        return False  # the common case costs no lock; a newer one serves this release too
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('tenancy.upgrade', 0))")
        await connection.execute(cluster_sql("roles.sql"))  # a later version may grant to a group role that is new
        await connection.execute(cluster_sql("database.sql"))
        await connection.execute("SET LOCAL ROLE cp_tenancy; SET LOCAL search_path = tenancy, pg_temp")
        applied: dict[int, str] = {}
        if await tenancy_version(connection):
            rows = await connection.fetch("SELECT version, checksum FROM tenancy.versions")
            applied = {row["version"]: row["checksum"] for row in rows}
        for version in shipped_versions():
            if version.number in applied:
                if applied[version.number] != version.checksum:
                    raise ConfigurationError(
                        f"Version {version.number} of sql/tenancy was changed after it had been applied.",
                        hint="Restore the released files and put the change into a new version.",
                    )
                continue
            await connection.execute(version.sql)
            await connection.execute(
                "INSERT INTO tenancy.versions (version, checksum) VALUES ($1, $2)", version.number, version.checksum
            )
    return True
