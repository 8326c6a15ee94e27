"""Template databases: one per template version, closed to everybody, copied by `CREATE DATABASE … TEMPLATE`."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from uuid import UUID, uuid5

import asyncpg

from control_plane.isolation.cluster import create_database, drop_database
from control_plane.isolation.extensions import install_extensions
from control_plane.isolation.names import schema_name, template_database
from control_plane.isolation.tenancy_schema import shipped_versions, upgrade_tenancy
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates import Template

_NAMESPACE = UUID("6f0d4c2e-57d5-4f5b-9a0e-8c1f5f0f7a11")
_NOBODY = UUID(int=0)  # the tenant of a home that is still to be claimed


def template_home_id(template: str) -> UUID:
    """The same in every cluster and version, so that all copies of a template name their schema alike."""
    return uuid5(_NAMESPACE, template)


def template_home_schema(template: str) -> str:
    return schema_name(template_home_id(template))


def template_database_name(cluster: Cluster, template: Template, version: int) -> str:
    """The checksum covers `tenancy` and the whole script up to this version: a changed source is another database."""
    digest = hashlib.sha256()
    for checksum in (
        *(v.checksum for v in shipped_versions()),
        template.script(0, version).digest,
        *template.manifest.extensions,
    ):
        digest.update(checksum.encode())
    installation = cluster.database.removesuffix("_tenants")
    return template_database(installation, template.name, version, digest.hexdigest())


async def ensure_template_database(databases: Databases, cluster: Cluster, template: Template, version: int) -> str:
    """Build the template database of a version unless it stands; returns its name."""
    name = template_database_name(cluster, template, version)
    async with databases.admin(cluster, purpose="template database") as connection:
        if await _is_finished(connection, name):
            return name
        # Held by the session: CREATE DATABASE cannot run inside a transaction.
        await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", name)
        if not await _is_finished(connection, name):
            # A leftover of a crash is not worth reading: it has no tenant and no connection.
            await drop_database(connection, name)
            await create_database(connection, name)
            await _fill(databases, cluster, name, template, version)
            await connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            await connection.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE true')
    return name


async def drop_stale_template_databases(databases: Databases, cluster: Cluster, template: Template) -> list[str]:
    """Drop the template's databases that neither its files nor this release's `tenancy` account for; their names."""
    current = {template_database_name(cluster, template, version.number) for version in template.versions}
    of_template = template_database_name(cluster, template, 1).rsplit("_", 2)[0] + "_"
    async with databases.admin(cluster, purpose="template database") as connection:
        rows = await connection.fetch(
            "SELECT datname FROM pg_database WHERE datistemplate AND starts_with(datname, $1)", of_template
        )
        stale = [row["datname"] for row in rows if row["datname"] not in current]
        for name in stale:
            with suppress(asyncpg.ObjectInUseError):  # being copied, by a service of another release
                await drop_database(connection, name)
    return stale


async def _is_finished(connection: asyncpg.Connection, name: str) -> bool:
    return bool(
        await connection.fetchval("SELECT datistemplate AND NOT datallowconn FROM pg_database WHERE datname = $1", name)
    )


async def _fill(databases: Databases, cluster: Cluster, name: str, template: Template, version: int) -> None:
    home_id = template_home_id(template.name)
    register = f"SELECT tenancy.register_home('{home_id}', 'database', '{template.name}', tenant => '{_NOBODY}');"
    script = template.script(0, version).message(
        home_id, template_home_schema(template.name), databases.settings.lock_timeout
    )
    async with databases.admin(cluster, name, purpose="template database") as connection:
        await upgrade_tenancy(connection)
        await install_extensions(connection, template)
        await connection.execute(f"{register}\n{script}")
