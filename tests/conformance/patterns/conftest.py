"""Fixtures of the modules that migrate a fleet, of those whose tests commit, and of adopted databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio

from control_plane.adoption import applying, planning
from control_plane.adoption.planning import PlanRequest
from control_plane.pools.databases import Databases
from control_plane.registry.models import Cluster
from control_plane.templates import Templates
from tests.conformance.conftest import Ground
from tests.conformance.patterns.orms import ACTOR, SCHEMA, Orm
from tests.conformance.patterns.posts import new_author
from tests.conformance.world import World
from tests.support.fleet import Fleet
from tests.support.legacy import Legacy, create_legacy
from tests.support.members import Members
from tests.support.originals import Originals
from tests.support.servers import Server
from tests.support.tenant_calls import TenantCalls, tenant_calls


@pytest.fixture
def fleet(databases: Databases, cluster: Cluster, installation_id: UUID) -> Fleet:
    """An installation without tenants, on the shipped template."""
    template = Templates.load(databases.settings.templates)["reference"]
    return Fleet(databases, cluster, installation_id, template)


@pytest.fixture
def members(databases: Databases, cluster: Cluster, installation_id: UUID, originals: Originals) -> Members:
    """An installation without tenants, to be called over HTTP."""
    return Members(databases, cluster, installation_id, originals)


@pytest_asyncio.fixture
async def calls(members: Members) -> AsyncIterator[TenantCalls]:
    async with tenant_calls(members) as opened:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crowd(ground: Ground) -> World:
    """Two tenants of a shared home, each with a user, in which tests commit: count only what you have made yourself."""
    world = await ground.world("shared")
    await new_author(world, world.a)
    await new_author(world, world.b)
    return world


@pytest_asyncio.fixture
async def legacy(server: Server, installation_id: UUID) -> Legacy:
    """A database that was there before us."""
    return await create_legacy(server, installation_id)


@pytest_asyncio.fixture
async def orm(server: Server, databases: Databases, installation_id: UUID) -> Orm:
    """A database of 1 000 users that has been adopted, and which an ORM still writes."""
    legacy = await create_legacy(server, installation_id, SCHEMA)
    await legacy.execute(f"GRANT TRUNCATE ON users TO {legacy.orm_role}")
    await planning.plan(databases, PlanRequest("shop", legacy.dsn), actor=ACTOR)
    return Orm(databases, legacy, await applying.apply(databases, "shop", actor=ACTOR))
