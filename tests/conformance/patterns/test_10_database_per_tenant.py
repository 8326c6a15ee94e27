"""Pattern 10, a database per tenant. Crashes of the service are in tests/acceptance/test_kill.py, its connection
budget in tests/integration/test_request_pools.py, orphans in tests/integration/test_diagnosis.py."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from control_plane.isolation import isolation_of
from control_plane.isolation.cluster import create_database
from control_plane.isolation.template_database import ensure_template_database
from control_plane.registry.models import Home, Tenant
from tests.conformance.conftest import Ground
from tests.conformance.world import World, bind


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database_world(ground: Ground) -> World:
    return await ground.world("database")


def newcomer(world: World) -> tuple[Home, Tenant]:
    isolation = isolation_of("database")
    home = isolation.new_home(world.installation_id, world.cluster, world.template.name, world.databases.box)
    slug = f"new-{uuid4().hex[:8]}"
    return home, Tenant(id=uuid4(), slug=slug, name=slug, isolation="database", epoch=1)


async def build(world: World, home: Home, tenant: Tenant) -> None:
    isolation = isolation_of("database")
    await isolation.build(world.databases, world.cluster, home, tenant, world.template, world.template.latest)
    await isolation.set_state(world.databases, world.cluster, home, tenant, "active", 1)


async def databases_named(world: World, name: str) -> int:
    async with world.databases.admin(world.cluster) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", name))


async def test_a_build_goes_on_where_a_crash_left_it(database_world: World) -> None:
    """Requirement 1 and check 10.1: after CREATE DATABASE, and after the whole, another call ends in one database."""
    world = database_world
    home, tenant = newcomer(world)
    source = await ensure_template_database(world.databases, world.cluster, world.template, world.template.latest)
    async with world.databases.admin(world.cluster) as connection:
        await create_database(connection, home.database, template=source)  # and here it was killed
    for _ in range(2):
        await build(world, home, tenant)
        assert await databases_named(world, home.database) == 1
    async with world.databases.admin(world.cluster, home.database) as connection:
        assert await connection.fetchval("SELECT state FROM tenancy.tenants WHERE id = $1", tenant.id) == "active"


async def test_a_copy_lets_nobody_in_but_its_own(database_world: World) -> None:
    """Requirement 2 and check 10.2: PUBLIC has nothing on any copy, and B's login is refused by A's database."""
    world = database_world
    async with world.admin(world.a) as connection:
        public = await connection.fetch(
            "SELECT d.datname, g.privilege_type FROM pg_database d, "
            "aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) g "
            "WHERE g.grantee = 0 AND d.datname = ANY ($1)",
            [world.a.home.database, world.b.home.database],
        )
        assert public == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
        async with world.request(world.b, at=world.a):
            pass
    async with world.request(world.a) as connection:  # what a copy does not inherit is set for its login role
        assert await connection.fetchval("SHOW TimeZone") == "UTC"
        assert await connection.fetchval("SHOW statement_timeout") != "0"


async def test_template_databases_are_closed(database_world: World) -> None:
    """Requirement 3: one per version, marked as a template, and nobody can connect to it."""
    world = database_world
    names = {
        await ensure_template_database(world.databases, world.cluster, world.template, version)
        for version in (1, world.template.latest)
    }
    assert len(names) == 2
    async with world.databases.admin(world.cluster) as connection:
        flags = await connection.fetch(
            "SELECT datistemplate, datallowconn FROM pg_database WHERE datname = ANY ($1)", list(names)
        )
    assert [tuple(flag) for flag in flags] == [(True, False)] * 2
    with pytest.raises(asyncpg.PostgresError, match="not currently accepting connections"):
        async with world.databases.admin(world.cluster, names.pop()):
            pass


async def test_databases_of_different_versions_live_side_by_side(ground: Ground, database_world: World) -> None:
    """Requirement 4: a tenant that stays behind is served at its version, and does not hold up another."""
    world = await ground.world("database", version=1)
    script = world.template.script(1, world.template.latest)
    async with world.admin(world.a) as connection:
        await connection.execute(script.message(world.a.home.id, world.a.schema, 2))
    for member, version in ((world.a, world.template.latest), (world.b, 1)):
        async with world.admin(member) as connection:
            assert await connection.fetchval("SELECT version FROM tenancy.homes") == version
        async with world.request(member) as connection, connection.transaction():
            await bind(connection, member, read_only=True)
            rows = await connection.fetchval(f'SELECT count(*) FROM "{member.schema}__api_v1".projects')
            assert rows == len(member.projects)


async def test_onboarding_many_at_once_copies_one_source(database_world: World) -> None:
    """Requirement 5: copies of one template database at the same time wait for each other, and none fails."""
    world = database_world
    newcomers = [newcomer(world) for _ in range(4)]
    await asyncio.gather(*(build(world, home, tenant) for home, tenant in newcomers))
    for home, _ in newcomers:
        assert await databases_named(world, home.database) == 1


async def test_onboarding_waits_for_whoever_reads_the_template_database(database_world: World) -> None:
    """Check 10.4: somebody who got in to the template database delays a copy and does not fail it."""
    world = database_world
    source = await ensure_template_database(world.databases, world.cluster, world.template, world.template.latest)
    home, tenant = newcomer(world)
    async with world.databases.admin(world.cluster) as admin:
        await admin.execute(f'ALTER DATABASE "{source}" ALLOW_CONNECTIONS true')
        async with world.databases.admin(world.cluster, source) as visitor:
            await admin.execute(f'ALTER DATABASE "{source}" ALLOW_CONNECTIONS false')
            building = asyncio.create_task(build(world, home, tenant))
            done, _ = await asyncio.wait([building], timeout=1)
            assert not done
            assert await visitor.fetchval("SELECT 1") == 1
        await building
    assert await databases_named(world, home.database) == 1
