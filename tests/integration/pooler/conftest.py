"""The same homes, whose requests go through PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from tests.support.pooler import Pooler, open_pooler
from tests.support.servers import Server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pooler(server: Server) -> AsyncIterator[Pooler]:
    async with open_pooler(server) as opened:
        yield opened


@pytest_asyncio.fixture
async def cluster(cluster: Cluster, databases: Databases, pooler: Pooler) -> Cluster:
    return await put_before(cluster, databases, pooler)


async def put_before(cluster: Cluster, databases: Databases, pooler: Pooler) -> Cluster:
    async with databases.registry.begin() as session:
        (await session.get_one(Cluster, cluster.id)).pooler = pooler.address
    cluster.pooler = pooler.address
    return cluster
