"""Pattern 8, a schema per tenant. The grammar of slugs and races are in test_homes.py, provisioning as users do it in
tests/integration/test_platform_api.py."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from control_plane.isolation import isolation_of
from control_plane.pools.connect import connect
from tests.conformance.conftest import Ground
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World

CREATE = "SELECT tenancy.create_tenant_schema($1)"


@pytest.mark.parametrize(
    "slug", ["", "Acme", "a_b", 'a"; DROP SCHEMA public; --', "pg_temp", "a" * 41, "é", "api", "admin", "public", None]
)
async def test_the_grammar_of_slugs_is_the_databases_too(shared_world: World, slug: str | None) -> None:
    """Requirement 1 and check 8.2: refused with a code of its own, and no schema is created."""
    async with shared_world.admin(shared_world.a) as connection:
        before = await connection.fetchval("SELECT count(*) FROM pg_namespace")
        assert await sqlstate_of(connection, CREATE, slug) == "22023"
        assert await connection.fetchval("SELECT count(*) FROM pg_namespace") == before


async def test_names_never_collide_and_always_fit(world: World) -> None:
    """Requirement 1: names come from ids, not from slugs, so two long slugs cannot meet; the longest fits 63 bytes."""
    async with world.admin(world.a) as connection:
        longest = "SELECT max(octet_length(nspname || '__api_v9999')) FROM pg_namespace WHERE nspname ~ '^t_[0-9a-f]+$'"
        assert await connection.fetchval(longest) <= 63
        twins = [f"{'a' * 38}-{end}" for end in "bc"]
        assert all(len(slug) == 40 for slug in twins)
        if world.mode == "schema":
            first, second = [await connection.fetchval(CREATE, slug) for slug in twins]
            assert first != second
            for slug in twins:
                await connection.execute("SELECT tenancy.drop_tenant_schema($1)", slug)


async def test_a_failure_leaves_nothing(ground: Ground) -> None:
    """Requirement 2: registration, schema, role, objects and version are one transaction."""
    world = await ground.world("schema", version=1)
    isolation = isolation_of("schema")
    home = isolation.new_home(world.installation_id, world.cluster, world.template.name, world.databases.box)
    async with world.admin(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT tenancy.create_tenant_schema('broken', $1, $2)", uuid4(), home.id)
        message = world.template.script(0, 1).message(home.id, home.schema_name, 2)
        broken = message.replace("SET LOCAL ROLE NONE;", "SELECT 1 / 0; SET LOCAL ROLE NONE;")
        assert await sqlstate_of(connection, broken) == "22012"
        await transaction.rollback()
        left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE $1"
        assert await connection.fetchval(left, f"{home.schema_name}%") == 0
        assert await connection.fetchval("SELECT count(*) FROM tenancy.homes WHERE id = $1", home.id) == 0
        assert await connection.fetchval("SELECT count(*) FROM tenancy.tenants WHERE slug = 'broken'") == 0


async def test_provisioning_is_repeatable_and_serialised(shared_world: World) -> None:
    """Requirement 3, checks 8.1 and 8.3: the same again answers the same; racing calls make one schema."""
    world = shared_world
    connections = [await connect(world.dsn, application_name="race", database=world.a.home.database) for _ in range(4)]
    try:
        names = await asyncio.gather(*(connection.fetchval(CREATE, "race") for connection in connections))
        assert len(set(names)) == 1
        assert await connections[0].fetchval(CREATE, "race") == names[0]
        present = "SELECT count(*) FROM pg_namespace WHERE nspname = $1"
        assert await connections[0].fetchval(present, names[0]) == 1
        other = "SELECT tenancy.create_tenant_schema('race', $1, $2, 'reference', 'somebody')"
        assert await sqlstate_of(connections[0], other, uuid4(), uuid4()) == "23505"
    finally:
        await connections[0].execute("SELECT tenancy.drop_tenant_schema('race')")
        for connection in connections:
            await connection.close()


async def test_a_served_tenant_is_not_dropped_and_its_slug_not_reused(ground: Ground) -> None:
    """Requirement 4: suspended first, then dropped; until then the slug is taken, afterwards it is free."""
    world = await ground.world("schema", version=1)
    async with world.admin(world.a) as connection:
        drop = "SELECT tenancy.drop_tenant_schema('acme')"
        assert await sqlstate_of(connection, drop) == "55000"
        await world.set_state(world.a, "suspended")
        taken = "SELECT tenancy.create_tenant_schema('acme', $1, $2, 'reference', 'somebody')"
        assert await sqlstate_of(connection, taken, uuid4(), uuid4()) == "23505"
        assert await sqlstate_of(connection, drop) == "00000"
        assert await connection.fetchval("SELECT to_regnamespace($1)", world.a.schema) is None
        assert await sqlstate_of(connection, taken, uuid4(), uuid4()) == "00000"


async def test_a_tenants_role_reaches_its_own_schema_only(ground: Ground, world: World) -> None:
    """Requirement 5 and check 8.5: nothing of another schema, no object of its own, in its own schema or elsewhere."""
    if world.mode == "database":
        pytest.skip("pattern 10 has the same for databases")
    async with world.within(world.a) as connection:
        if world.mode == "schema":
            assert await sqlstate_of(connection, f'SELECT * FROM "{world.b.schema}".tb_project') == "42501"
        for create in ("CREATE TABLE x ()", "CREATE TEMP TABLE x ()", "CREATE SCHEMA x", "CREATE TABLE public.x ()"):
            assert await sqlstate_of(connection, create) == "42501", create
