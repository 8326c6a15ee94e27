"""A database that lives for one rehearsal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from control_plane.isolation.cluster import create_database, drop_database
from control_plane.isolation.tenancy_schema import upgrade_tenancy
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster

_LOCK = "hashtextextended('tenancy.scratch', 0)"


@asynccontextmanager
async def scratch_database(databases: Databases, cluster: Cluster) -> AsyncIterator[str]:
    """The name of a database with this release's `tenancy`, and nothing else in it; dropped at the end.

    What a rehearsal that was killed has left behind is dropped first. Raises `ClusterUnavailable`.
    """
    prefix = f"{cluster.database.removesuffix('_tenants')}_scratch_"
    name = f"{prefix}{uuid4().hex[:8]}"
    async with databases.admin(cluster, purpose="rehearsal") as connection:
        # Held by the session, as long as it uses its database: whoever gets it alone sees leftovers only.
        if await connection.fetchval(f"SELECT pg_try_advisory_lock({_LOCK})"):
            left = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)"
            for row in await connection.fetch(left, prefix):
                await drop_database(connection, row["datname"])
            await connection.execute(f"SELECT pg_advisory_unlock({_LOCK})")
        await connection.execute(f"SELECT pg_advisory_lock_shared({_LOCK})")
        try:
            await create_database(connection, name)
            async with databases.admin(cluster, name, purpose="rehearsal") as scratch:
                await upgrade_tenancy(scratch)
            yield name
        finally:
            await drop_database(connection, name)
