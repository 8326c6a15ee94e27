"""A tenant's state in the database that holds its data: the part that is alike in all modes."""

from __future__ import annotations

import asyncio

import asyncpg

from control_plane.errors import ClusterUnavailable
from control_plane.isolation.extensions import install_extensions
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.templates import Template

_FENCE_WAIT = 5  # seconds that a writing transaction may take to end by itself
_FENCE_ATTEMPTS = 5
_CANCEL = "SELECT pg_cancel_backend(pid) FROM tenancy.fence_holders($1) AS pid"
_TERMINATE = "SELECT pg_terminate_backend(pid) FROM tenancy.fence_holders($1) AS pid"


class TenantState:
    """`upgrade`, `set_state` and `fence`, in the database that `home` names."""

    async def upgrade(
        self, databases: Databases, cluster: Cluster, home: Home, template: Template, from_version: int, version: int
    ) -> int:
        message = template.script(from_version, version, empty=True).message(
            home.id, home.schema_name, databases.settings.lock_timeout
        )
        async with databases.kept_admin(cluster, home.database) as connection:
            await install_extensions(connection, template)
            try:
                await connection.execute(message)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in ("CP001", "CP002"):  # a run of migrate-all has found the home too
                    raise
            return await home_version(connection, home) or from_version

    async def set_state(
        self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant, state: str, epoch: int
    ) -> None:
        async with databases.kept_admin(cluster, home.database) as connection:
            await put_tenant(connection, home, tenant, state, epoch)

    async def fence(self, databases: Databases, cluster: Cluster, home: Home, tenant: Tenant) -> None:
        async with databases.admin(cluster, home.database, purpose="fence") as connection:
            for attempt in range(_FENCE_ATTEMPTS):
                wait = _FENCE_WAIT if attempt == 0 else 1
                try:
                    await connection.execute(
                        f"SET lock_timeout = '{wait}s'; "
                        f"SELECT pg_advisory_xact_lock(tenancy.tenant_lock('{tenant.id}'))"
                    )
                    return
                except asyncpg.LockNotAvailableError:
                    # First ask, then insist: a session that idles in its transaction has nothing to cancel.
                    end = _CANCEL if attempt == 0 else _TERMINATE
                    await connection.execute(end, tenant.id)
                    await asyncio.sleep(0.1)
        raise ClusterUnavailable("A transaction of the tenant does not end.", retry_after=5)


async def put_tenant(connection: asyncpg.Connection, home: Home, tenant: Tenant, state: str, epoch: int) -> None:
    await connection.execute(
        "SELECT tenancy.put_tenant($1, $2, $3, $4, $5)", tenant.id, home.id, tenant.slug, state, epoch
    )


async def home_version(connection: asyncpg.Connection, home: Home) -> int | None:
    """The version that the home has, None when there is no such home in this database."""
    version: int | None = await connection.fetchval("SELECT version FROM tenancy.homes WHERE id = $1", home.id)
    return version
