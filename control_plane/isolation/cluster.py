"""A PostgreSQL server before and while tenants live on it: preparation and posture."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import select

from control_plane.errors import ControlPlaneError, UnsafePosture
from control_plane.isolation.finding import Finding
from control_plane.isolation.names import tenants_database
from control_plane.isolation.pooler import pooler_findings
from control_plane.isolation.tenancy_schema import cluster_sql, latest_version, tenancy_version, upgrade_tenancy
from control_plane.pools.connect import connect
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home

__all__ = ["Finding", "check_cluster", "prepare_cluster", "upgrade_tenancy"]

_OLDEST_SERVER = 15  # security_invoker views
# The minor releases that close known ways past row-level security (CVE-2026-2005, -2006 and before).
_SAFE_MINORS = {15: 16, 16: 12, 17: 8, 18: 2}


async def prepare_cluster(databases: Databases, dsn: str, installation_id: UUID) -> str:
    """Make a server ready for tenants and return the name of its tenants' database; safe to repeat.

    Raises `UnsafePosture` when it cannot isolate tenants, `ClusterUnavailable` when it cannot be reached.
    """
    name = tenants_database(installation_id)
    connection = await connect(dsn, application_name="control-plane prepare")
    try:
        await _require_administrator(connection)
        await connection.execute(cluster_sql("roles.sql"))
        await ensure_group(connection, name)
        await create_database(connection, name)
        await connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{name}", cp_support, cp_pooler')
    except asyncpg.InsufficientPrivilegeError as error:
        raise UnsafePosture(
            "The administrative role lacks a right that it needs.",
            details=str(error),
            hint="ALTER ROLE … CREATEROLE CREATEDB; cp_owner, cp_definer and cp_tenancy must be its own.",
        ) from error
    finally:
        await connection.close()

    connection = await connect(dsn, application_name="control-plane prepare", database=name)
    try:
        await upgrade_tenancy(connection)
    finally:
        await connection.close()
    return name


async def server_identity(databases: Databases, cluster: Cluster) -> int:
    """The same for every address of one server; raises `ClusterUnavailable`."""
    async with databases.admin(cluster, purpose="check") as connection:
        return int(await connection.fetchval("SELECT system_identifier FROM pg_control_system()"))


async def check_cluster(databases: Databases, cluster: Cluster, *, every_home: bool = True) -> list[Finding]:
    """What is wrong with the cluster, database by database; raises `ClusterUnavailable`.

    Homes of one tenant each are audited with `every_home` only.
    """
    async with databases.registry() as session:
        own = await session.scalars(
            select(Home.database).where(Home.cluster_id == cluster.id, Home.isolation == "database", Home.ready)
        )
    findings: list[Finding] = []
    for database in (cluster.database, *own):
        try:
            async with databases.admin(cluster, database, purpose="check") as connection:
                if database == cluster.database:
                    findings += await _server_findings(connection)
                findings += await _database_findings(connection, database, every_home)
        except asyncpg.InvalidCatalogNameError:
            findings.append(Finding("database", database, "does not exist", "restore it from a backup"))
    return findings + await pooler_findings(databases, cluster)


async def require_safe(databases: Databases, cluster: Cluster) -> None:
    """Raise `UnsafePosture` that names every fatal finding and its fix."""
    fatal = [finding for finding in await check_cluster(databases, cluster, every_home=False) if finding.fatal]
    if fatal:
        raise UnsafePosture(
            f"The cluster '{cluster.name}' cannot isolate tenants.",
            details="\n".join(f"{f.object} {f.problem}" for f in fatal),
            hint="; ".join(dict.fromkeys(f.fix for f in fatal)),
        )


async def ensure_group(connection: asyncpg.Connection, role: str) -> None:
    """A role that cannot log in, for others to be members of."""
    with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        await connection.execute(f'CREATE ROLE "{role}" NOLOGIN')


async def create_database(connection: asyncpg.Connection, name: str, template: str = "template0") -> None:
    """Create a database that nobody but its owner can connect to; does nothing when it exists.

    A copy does not inherit the privileges of its source, so connections stay closed until PUBLIC has none.
    """
    state = await connection.fetchval("SELECT datallowconn FROM pg_database WHERE datname = $1", name)
    if state is None:
        # Somebody else may be at the same step.
        with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            await connection.execute(
                f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER cp_owner ALLOW_CONNECTIONS false'
            )
    if not state:
        await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        await connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO cp_pooler')
        await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


async def drop_database(connection: asyncpg.Connection, name: str) -> None:
    """Close a database to everybody, end its sessions and drop it; nothing to drop is no error.

    Not WITH (FORCE): before PostgreSQL 16 that fails for others than superusers while an autovacuum worker is in there,
    where the plain form sends the worker away.
    """
    if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
        return
    await connection.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE false')
    await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pg_has_role(usesysid, 'USAGE')",
        name,
    )
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}"')  # waits some seconds for the sessions to end


async def _require_administrator(connection: asyncpg.Connection) -> None:
    version = await _server_version(connection)
    if version.major < _OLDEST_SERVER:
        raise UnsafePosture(
            f"The server is PostgreSQL {version}; views cannot run with their caller's rights before {_OLDEST_SERVER}.",
            hint=f"Upgrade the server to PostgreSQL {_OLDEST_SERVER} or later.",
        )
    able = await connection.fetchval(
        "SELECT rolsuper OR rolcreaterole AND rolcreatedb FROM pg_roles WHERE rolname = current_user"
    )
    if not able:
        raise UnsafePosture(
            "The administrative role lacks CREATEROLE or CREATEDB.",
            hint="ALTER ROLE … CREATEROLE CREATEDB; it need not be a superuser.",
        )


class _ServerVersion(NamedTuple):
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


async def _server_version(connection: asyncpg.Connection) -> _ServerVersion:
    return _ServerVersion(*divmod(int(await connection.fetchval("SHOW server_version_num")), 10000))


async def _server_findings(connection: asyncpg.Connection) -> list[Finding]:
    version = await _server_version(connection)
    safe = _SAFE_MINORS.get(version.major, 0)
    if version.minor >= safe:
        return []
    problem, fix = "has known ways past row-level security", f"upgrade to {version.major}.{safe} or later"
    return [Finding("server_minor", f"PostgreSQL {version}", problem, fix, fatal=False)]


async def _database_findings(connection: asyncpg.Connection, database: str, every_home: bool) -> list[Finding]:
    present = await tenancy_version(connection)
    if present < latest_version():
        return [
            Finding(
                "tenancy_version",
                database,
                f"has version {present} of the schema tenancy, this release needs {latest_version()}",
                "run: cp migrate-all",
            )
        ]
    rows = await connection.fetch("SELECT code, object, problem, fix FROM tenancy.posture($1)", every_home)
    try:
        if not await connection.fetchval("SELECT tenancy.ready()"):
            raise ControlPlaneError
    except asyncpg.PostgresError as error:
        return [Finding("library", database, f"cannot load PL/pgSQL or an extension: {error}", "restart the server")]
    return [Finding(**dict(row)) for row in rows]
