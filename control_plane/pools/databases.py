"""The registry and the administrative connections to every cluster, in one handle that the verbs take."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.pools.connect import connect, registry_engine
from control_plane.registry.models import Cluster
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings


class Databases:
    """`async with databases.registry.begin() as session` for the registry, `databases.admin(cluster)` for the rest."""

    def __init__(self, registry_dsn: str, box: SecretBox, settings: Settings) -> None:
        self.registry_dsn = registry_dsn
        self.box = box
        self.settings = settings
        self.engine = registry_engine(registry_dsn)
        self.registry: async_sessionmaker[AsyncSession] = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def admin(
        self, cluster: Cluster, database: str | None = None, *, purpose: str = "admin"
    ) -> AsyncIterator[asyncpg.Connection]:
        """One connection as the cluster's administrative role, to `database` or to its tenants' database."""
        connection = await connect(
            self.box.open(cluster.dsn),
            application_name=f"control-plane {purpose}",
            database=database or cluster.database,
            server_settings={"jit": "off"},
        )
        try:
            yield connection
        finally:
            await connection.close()

    async def aclose(self) -> None:
        await self.engine.dispose()
