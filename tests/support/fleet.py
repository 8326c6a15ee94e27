"""Tenants at a given version, made by the same isolation code as provisioning."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg

from control_plane.isolation import isolation_of
from control_plane.pools.databases import Databases
from control_plane.registry import homes
from control_plane.registry.models import Cluster, Home, Tenant
from control_plane.templates import Template


@dataclass
class Fleet:
    """One cluster, one installation."""

    databases: Databases
    cluster: Cluster
    installation_id: UUID
    template: Template

    async def add(self, slug: str, isolation: str = "schema", version: int = 1) -> Home:
        """An active tenant in a home at `version`."""
        mode = isolation_of(isolation)
        home = mode.new_home(self.installation_id, self.cluster, self.template.name, self.databases.box)
        async with self.databases.registry.begin() as session:
            if isolation == "shared":
                home = await homes.add_shared(session, home)
            else:
                session.add(home)
                await session.flush()
            tenant = Tenant(
                id=uuid4(),
                slug=slug,
                name=slug,
                isolation=isolation,
                labels={},
                status="active",
                home_id=home.id,
                epoch=1,
            )
            session.add(tenant)
        reached = await mode.build(self.databases, self.cluster, home, tenant, self.template, version)
        await mode.set_state(self.databases, self.cluster, home, tenant, "active", 1)
        async with self.databases.registry.begin() as session:
            await homes.built(session, home.id, reached)
        return home

    @asynccontextmanager
    async def admin(self, home: Home | None = None) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the home's database, or to the cluster's tenants database."""
        database = home.database if home else None
        async with self.databases.admin(self.cluster, database, purpose="tests") as connection:
            yield connection

    async def version(self, home: Home) -> int | None:
        """What the home's database says."""
        async with self.admin(home) as connection:
            version: int | None = await connection.fetchval("SELECT version FROM tenancy.homes WHERE id = $1", home.id)
            return version

    async def copied_version(self, home: Home) -> int:
        """What the registry says."""
        async with self.databases.registry() as session:
            return (await session.get_one(Home, home.id)).pattern_version
