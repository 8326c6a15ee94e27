"""A worker's connection: kept while the homes are in the same database, and from wave to wave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from uuid import UUID

import asyncpg

from control_plane.pools.connect import UNREACHABLE
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster

# A backend never shrinks its relation caches, and searches all of them at the end of each DDL transaction.
_HOMES_PER_CONNECTION = 500


class Link:
    """At most one open connection as the cluster's administrative role; `prepare` runs on each new one."""

    def __init__(
        self, databases: Databases, cluster: Cluster, prepare: Callable[[asyncpg.Connection], Awaitable[None]]
    ) -> None:
        self._databases = databases
        self._cluster = cluster
        self._prepare = prepare
        self._stack = AsyncExitStack()
        self._connection: asyncpg.Connection | None = None
        self._database = ""
        self._uses = 0

    async def to(self, database: str) -> asyncpg.Connection:
        """The connection to `database`; raises `ClusterUnavailable` or what the server says."""
        current = self._connection
        if current is not None and database == self._database and self._uses < _HOMES_PER_CONNECTION:
            self._uses += 1
            return current
        await self.close()
        opened = self._databases.admin(self._cluster, database, purpose="migrate")
        connection = await self._stack.enter_async_context(opened)
        await self._prepare(connection)
        self._connection, self._database, self._uses = connection, database, 1
        return connection

    async def close(self) -> None:
        """Close what is open; the next `to` opens anew."""
        self._connection = None
        with suppress(*UNREACHABLE):
            await self._stack.aclose()


class Links:
    """The links of a run. The next wave goes on with those of the one before: a new session plans everything anew."""

    def __init__(self, databases: Databases, prepare: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        self._databases = databases
        self._prepare = prepare
        self._idle: dict[UUID, list[Link]] = {}

    @asynccontextmanager
    async def borrow(self, cluster: Cluster) -> AsyncIterator[Link]:
        """One for as long as the block runs; what fails in there closes it."""
        idle = self._idle.setdefault(cluster.id, [])
        link = idle.pop() if idle else Link(self._databases, cluster, self._prepare)
        try:
            yield link
        except BaseException:
            await link.close()
            raise
        idle.append(link)

    async def close(self) -> None:
        """Close what nobody has borrowed."""
        for idle in self._idle.values():
            while idle:
                await idle.pop().close()
