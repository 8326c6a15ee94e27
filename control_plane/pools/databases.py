"""The registry and the administrative connections to every cluster, in one handle that the verbs take."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.pools.connect import BROKEN, connect, registry_engine
from control_plane.registry.models import Cluster
from control_plane.registry.secrets import SecretBox
from control_plane.settings import Settings

# Gives a session back as it was. Also tells whether the server is still there.
RESET = "RESET ROLE; RESET ALL; SELECT pg_advisory_unlock_all()"

# A backend never shrinks its caches of relations, which grow by megabytes with each home that it makes, and searches
# all of them at the end of each transaction that makes many.
_USES = 50


class Databases:
    """`async with databases.registry.begin() as session` for the registry, `databases.admin(cluster)` for the rest.

    `keep` is the number of idle administrative connections per cluster that wait for the next short piece of work. A
    new session costs a login and then plans every function anew: about as much as building a small home.
    """

    def __init__(self, registry_dsn: str, box: SecretBox, settings: Settings, *, keep: int = 4) -> None:
        self.registry_dsn = registry_dsn
        self.box = box
        self.settings = settings
        self.engine = registry_engine(registry_dsn)
        self.registry: async_sessionmaker[AsyncSession] = async_sessionmaker(self.engine, expire_on_commit=False)
        self._keep = keep
        self._idle: dict[tuple[UUID, bytes], list[tuple[asyncpg.Connection, int]]] = {}

    @asynccontextmanager
    async def admin(
        self, cluster: Cluster, database: str | None = None, *, purpose: str = "admin"
    ) -> AsyncIterator[asyncpg.Connection]:
        """One new connection as the cluster's administrative role, to `database` or to its tenants' database."""
        connection = await self._connect(cluster, database, purpose)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def kept_admin(self, cluster: Cluster, database: str) -> AsyncIterator[asyncpg.Connection]:
        """As `admin`, for short work: one that is kept, if `database` is the tenants' database."""
        shared = database == cluster.database
        kept = await self._take(cluster) if shared else None
        connection, uses = kept or (await self._connect(cluster, database, "verbs"), 0)
        fit = False
        try:
            yield connection
            fit = shared and uses + 1 < _USES and not connection.is_in_transaction()
        finally:
            idle = self._idle.setdefault(_key(cluster), [])
            if fit and len(idle) < self._keep and not connection.is_closed():
                idle.append((connection, uses + 1))
            else:
                await connection.close()

    async def aclose(self) -> None:
        for idle in self._idle.values():
            while idle:
                await idle.pop()[0].close()
        await self.engine.dispose()

    async def _take(self, cluster: Cluster) -> tuple[asyncpg.Connection, int] | None:
        """With how often it has been used."""
        idle = self._idle.get(_key(cluster), [])
        while idle:
            connection, uses = idle.pop()
            try:
                await connection.execute(RESET)
            except BROKEN:
                connection.terminate()
            else:
                return connection, uses
        return None

    async def _connect(self, cluster: Cluster, database: str | None, purpose: str) -> asyncpg.Connection:
        return await connect(
            self.box.open(cluster.dsn),
            application_name=f"control-plane {purpose}",
            database=database or cluster.database,
            server_settings={"jit": "off"},
        )


def _key(cluster: Cluster) -> tuple[UUID, bytes]:
    """With the sealed connection string, so that a changed one is used at once."""
    return cluster.id, cluster.dsn
