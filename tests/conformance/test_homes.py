"""create_tenant_schema(), drop_tenant_schema() and what protects their names."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from control_plane.pools.connect import connect
from tests.conformance.conftest import Ground
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World

CREATE = "SELECT tenancy.create_tenant_schema($1)"


async def schemas(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM pg_namespace"))


# pattern 8.1
async def test_creating_a_tenant_schema_twice_gives_one(shared_world: World) -> None:
    async with shared_world.admin(shared_world.a) as connection:
        name = await connection.fetchval(CREATE, "twice")
        before = await schemas(connection)
        assert name.startswith("t_")
        assert await connection.fetchval(CREATE, "twice") == name
        assert await schemas(connection) == before
        homes = await connection.fetch("SELECT isolation, version FROM tenancy.homes WHERE schema_name = $1", name)
        assert [tuple(home) for home in homes] == [("schema", 0)]
        assert await connection.fetchval("SELECT state FROM tenancy.tenants WHERE slug = 'twice'") == "provisioning"
        comment = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1"
        assert await connection.fetchval(comment, name) == "twice"
        await connection.execute("SELECT tenancy.drop_tenant_schema('twice')")


# pattern 8.2 and attack 32
@pytest.mark.parametrize(
    "slug",
    [
        "", "a", "Acme", "a_b", 'a"; DROP SCHEMA public; --', "pg_temp", "a" * 41, "é", "-a", "a-", "a--b", "1a",
        "../x", "public", "tenancy", "shared", "a b", "аcme", "123e4567-e89b-12d3-a456-426614174000",
        "abcdef01-e89b-12d3-a456-426614174000", "acme\n", None,
    ],
)  # fmt: skip
async def test_a_slug_outside_the_grammar_creates_nothing(shared_world: World, slug: str | None) -> None:
    async with shared_world.admin(shared_world.a) as connection:
        before = await schemas(connection)
        assert await sqlstate_of(connection, CREATE, slug) == "22023"
        assert await schemas(connection) == before


async def test_a_slug_of_another_tenant_is_refused(shared_world: World) -> None:
    async with shared_world.admin(shared_world.a) as connection:
        await connection.fetchval(CREATE, "taken")
        other = "SELECT tenancy.create_tenant_schema('taken', $1, $2, 'reference', $3)"
        assert await sqlstate_of(connection, other, uuid4(), uuid4(), "nobody") == "23505"
        assert await sqlstate_of(connection, CREATE, "acme") == "23505"  # a shared tenant's
        await connection.execute("SELECT tenancy.drop_tenant_schema('taken')")


# pattern 8.3
async def test_concurrent_calls_for_one_slug_create_one_schema(shared_world: World) -> None:
    world = shared_world
    connections = [await connect(world.dsn, application_name="race", database=world.cluster.database) for _ in range(4)]
    try:
        for round_number in range(5):
            slug = f"race-{round_number}"
            names = await asyncio.gather(*(connection.fetchval(CREATE, slug) for connection in connections))
            assert len(set(names)) == 1
            await connections[0].execute("SELECT tenancy.drop_tenant_schema($1)", slug)
    finally:
        for connection in connections:
            await connection.close()


# pattern 8.4
async def test_a_served_tenant_is_not_dropped(ground: Ground) -> None:
    world = await ground.world("schema")
    drop = "SELECT tenancy.drop_tenant_schema($1)"
    async with world.admin(world.a) as connection:
        assert await sqlstate_of(connection, drop, "acme") == "55000"
        await world.set_state(world.a, "suspended")
        await connection.execute(drop, "acme")
        left = await connection.fetchval(
            "SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, $1)", world.a.schema
        )
        assert left == 0
        assert await connection.fetchval("SELECT count(*) FROM tenancy.tenants WHERE slug = 'acme'") == 0
        assert await sqlstate_of(connection, drop, "acme") == "P0002"
    async with world.within(world.b) as connection:
        assert await connection.fetchval("SELECT count(*) FROM tb_project") == 5


async def test_names_come_from_ids_and_fit(shared_world: World) -> None:
    """The longest slug: neither it nor two slugs with a common beginning reach the schema's name."""
    async with shared_world.admin(shared_world.a) as connection:
        slugs = ["a" * 39 + "b", "a" * 40]
        names = [await connection.fetchval(CREATE, slug) for slug in slugs]
        assert len(set(names)) == 2
        assert all(len(f"{name}__api_v9999") <= 63 for name in names)
        for slug in slugs:
            await connection.execute("SELECT tenancy.drop_tenant_schema($1)", slug)


async def test_erasing_a_shared_tenant_leaves_the_others(ground: Ground) -> None:
    world = await ground.world("shared")
    async with world.admin(world.a) as connection:
        await connection.execute("SELECT tenancy.erase_tenant($1)", world.a.id)
        await connection.execute("SELECT tenancy.erase_tenant($1)", world.a.id)  # nothing to erase is no error
    async with world.within(world.b) as connection:
        assert await connection.fetchval("SELECT count(*) FROM tb_project") == 5
    async with world.owner(world.b) as connection:
        left = await connection.fetchval("SELECT count(*) FROM tb_project WHERE tenant_id = $1", world.a.id)
        assert left == 0
