"""The audit sees each way of breaking isolation: break it, see the finding, mend it."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest

from control_plane.errors import UnsafePosture
from control_plane.isolation.cluster import check_cluster, require_safe
from control_plane.pools.databases import Databases
from tests.conformance.conftest import Ground
from tests.conformance.world import World


async def findings(connection: asyncpg.Connection) -> set[tuple[str, str]]:
    rows = await connection.fetch("SELECT code, object, problem, fix FROM tenancy.posture()")
    assert all(row["fix"] for row in rows)
    return {(row["code"], row["object"].split(".")[-1]) for row in rows}


async def test_a_home_as_built_has_no_finding(world: World) -> None:
    async with world.admin(world.a) as connection:
        assert await findings(connection) == set()


# attacks 2, 3, 4, 5, 6, 14, 15: as cp_owner, in the base schema
HOME_BREAKAGES = [
    ("ALTER TABLE tb_project DISABLE ROW LEVEL SECURITY", "protection", "tb_project"),
    ("ALTER TABLE tb_project NO FORCE ROW LEVEL SECURITY", "protection", "tb_project"),
    ("DROP POLICY tenant_only ON tb_project", "protection", "tb_project"),
    ("ALTER POLICY tenant_only ON tb_project USING (true)", "protection", "tb_project"),
    ("ALTER POLICY tenant_only ON tb_project WITH CHECK (true)", "protection", "tb_project"),
    ("ALTER POLICY tenant_only ON tb_project TO cp_definer", "protection", "tb_project"),
    ("CREATE POLICY everybody ON tb_project TO PUBLIC USING (true)", "protection", "tb_project"),
    ("CREATE POLICY second ON tb_project AS RESTRICTIVE USING (true)", "protection", "tb_project"),
    ("CREATE TABLE tb_new (tenant_id uuid NOT NULL, id uuid, PRIMARY KEY (tenant_id, id))", "protection", "tb_new"),
    ("CREATE TABLE tb_new (id uuid PRIMARY KEY)", "tenant_id", "tb_new"),
]
ANY_HOME_BREAKAGES = [
    ("CREATE OR REPLACE VIEW v_user_card AS {v_user_card}", "view", "v_user_card"),
    ("CREATE VIEW v_new WITH (security_invoker = true) AS SELECT id FROM tb_user", "view", "v_new"),
    (
        "CREATE VIEW users WITH (security_invoker = true) AS SELECT tenant_id, id FROM tb_user",
        "name",
        "users",
    ),
    ("CREATE UNIQUE INDEX tb_user_bio ON tb_user (id, bio)", "index", "tb_user_bio"),
    ("CREATE UNIQUE INDEX tb_user_bio ON tb_user (lower(name))", "index", "tb_user_bio"),
    ("CREATE INDEX tb_user_bio ON tb_user (bio)", "index", "tb_user_bio"),
    ("CREATE MATERIALIZED VIEW m AS SELECT * FROM tb_user", "kind", "m"),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'", "function", "f()"),
    ("GRANT EXECUTE ON FUNCTION fn_create_user(jsonb) TO PUBLIC", "function", "fn_create_user(jsonb)"),
    (  # it would run as cp_owner, which sees all tenants
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog "
        "AS 'BEGIN RETURN 1; END'",
        "function",
        "f()",
    ),
    ("GRANT TRUNCATE ON tb_project TO {role}", "grant", "tb_project"),
    ("GRANT REFERENCES ON tb_project TO {role}", "grant", "tb_project"),
    ("GRANT SELECT ON tb_project TO PUBLIC", "grant", "tb_project"),
    ("GRANT SELECT ON tb_project TO cp_request", "grant", "tb_project"),
    (
        "CREATE TABLE tb_new (tenant_id uuid NOT NULL, id uuid, project_id uuid, PRIMARY KEY (tenant_id, id));"
        "CREATE UNIQUE INDEX ON tb_project (id);"
        "ALTER TABLE tb_new ADD FOREIGN KEY (project_id) REFERENCES tb_project (id)",
        "foreign_key",
        "tb_new",
    ),
]


async def assert_found(world: World, breakage: str, code: str, thing: str) -> None:
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        body = await connection.fetchval("SELECT pg_get_viewdef('v_user_card'::regclass)")
        await connection.execute(breakage.format(role=f'"{world.a.home.role_name}"', v_user_card=body))
        await connection.execute("RESET ROLE")
        found = await findings(connection)
        await transaction.rollback()
        await connection.execute("RESET ROLE")
        assert any(c == code and thing in o for c, o in found), found
        assert await findings(connection) == set()


@pytest.mark.parametrize(("breakage", "code", "thing"), HOME_BREAKAGES)
async def test_a_broken_shared_table_is_found(shared_world: World, breakage: str, code: str, thing: str) -> None:
    await assert_found(shared_world, breakage, code, thing)


@pytest.mark.parametrize(("breakage", "code", "thing"), ANY_HOME_BREAKAGES)
async def test_a_broken_home_is_found_in_every_mode(world: World, breakage: str, code: str, thing: str) -> None:
    await assert_found(world, breakage, code, thing)


async def test_a_dedicated_table_without_its_check_is_found(dedicated_world: World) -> None:
    await assert_found(
        dedicated_world, "ALTER TABLE tb_project DROP CONSTRAINT tb_project_tenant", "protection", "tb_project"
    )


# attacks 1, 5, 6, 7: as the administrative role
DATABASE_BREAKAGES = [
    ("GRANT cp_owner TO {role}", "request_role", "REVOKE cp_owner FROM {role}"),
    ("GRANT cp_definer TO {role}", "request_role", "REVOKE cp_definer FROM {role}"),
    ("GRANT cp_definer TO cp_owner", "group_role", "REVOKE cp_definer FROM cp_owner"),
    ("ALTER ROLE {role} CREATEROLE", "request_role", "ALTER ROLE {role} NOCREATEROLE"),
    ("GRANT CONNECT ON DATABASE {database} TO PUBLIC", "database", "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"),
    ("GRANT TEMP ON DATABASE {database} TO PUBLIC", "database", "REVOKE TEMP ON DATABASE {database} FROM PUBLIC"),
    ("GRANT CREATE ON SCHEMA extensions TO PUBLIC", "schema", "REVOKE CREATE ON SCHEMA extensions FROM PUBLIC"),
    (
        "ALTER FUNCTION tenancy.current_tenant_id() IMMUTABLE",
        "tenancy",
        "ALTER FUNCTION tenancy.current_tenant_id() STABLE",
    ),
    (
        "ALTER FUNCTION tenancy.set_tenant_context(uuid, uuid, bigint, boolean, text[]) SECURITY INVOKER",
        "tenancy",
        "ALTER FUNCTION tenancy.set_tenant_context(uuid, uuid, bigint, boolean, text[]) SECURITY DEFINER",
    ),
    (
        "GRANT EXECUTE ON FUNCTION tenancy.ready() TO PUBLIC",
        "tenancy",
        "REVOKE EXECUTE ON FUNCTION tenancy.ready() FROM PUBLIC",
    ),
]


@pytest.mark.parametrize(("breakage", "code", "mending"), DATABASE_BREAKAGES)
async def test_a_broken_database_is_found(shared_world: World, breakage: str, code: str, mending: str) -> None:
    names = {"role": f'"{shared_world.a.home.role_name}"', "database": f'"{shared_world.a.home.database}"'}
    async with shared_world.admin(shared_world.a) as connection:
        await connection.execute(breakage.format(**names))
        try:
            found = await findings(connection)
        finally:
            await connection.execute(mending.format(**names))
        assert code in {c for c, _ in found}
        assert await findings(connection) == set()


async def test_a_role_that_is_reached_through_others_is_found(world: World) -> None:
    between, role = f"between_{uuid4().hex[:12]}", world.a.home.role_name
    problems = "SELECT object, problem FROM tenancy.posture()"
    async with world.admin(world.a) as connection:
        await connection.execute(f'CREATE ROLE {between}; GRANT cp_owner TO {between}; GRANT {between} TO "{role}"')
        try:
            found = [tuple(row) for row in await connection.fetch(problems)]
        finally:
            await connection.execute(f"DROP ROLE {between}")
        assert found == [(role, "can act as cp_owner")]
        assert await connection.fetch(problems) == []


async def test_a_login_role_that_can_act_as_another_tenants_is_found(ground: Ground) -> None:
    world = await ground.kept("schema")
    a, b = world.a.home.role_name, world.b.home.role_name
    async with world.admin(world.a) as connection:
        await connection.execute(f'GRANT "{b}" TO "{a}"')
        try:
            found = await connection.fetch("SELECT object, problem, fix FROM tenancy.posture()")
        finally:
            await connection.execute(f'REVOKE "{b}" FROM "{a}"')
    assert [tuple(row) for row in found] == [(a, f"can act as {b}", f"REVOKE {b} FROM {a}")]


async def test_a_start_asks_about_shared_homes_and_the_doctor_about_all(databases: Databases, ground: Ground) -> None:
    """Ten thousand homes take minutes, and nobody is served meanwhile."""
    for mode in ("shared", "schema"):
        world = await ground.world(mode)
        world.cluster.dsn = databases.box.seal(world.dsn)
        async with world.owner(world.a) as connection:
            await connection.execute("GRANT TRUNCATE ON tb_user TO cp_definer")
        all_homes, shared = [await check_cluster(databases, world.cluster, every_home=every) for every in (True, False)]
        assert [finding.code for finding in all_homes] == ["grant"]
        assert shared == (all_homes if mode == "shared" else [])
        assert await check_cluster(databases, world.cluster) == all_homes
        if mode == "schema":
            await require_safe(databases, world.cluster)


async def test_a_broken_cluster_is_refused_and_the_fix_is_named(databases: Databases, ground: Ground) -> None:
    world = await ground.world("shared")
    world.cluster.dsn = databases.box.seal(world.dsn)
    await require_safe(databases, world.cluster)
    async with world.owner(world.a) as connection:
        await connection.execute("ALTER TABLE tb_user NO FORCE ROW LEVEL SECURITY")
    with pytest.raises(UnsafePosture) as raised:
        await require_safe(databases, world.cluster)
    assert "tb_user is not protected" in str(raised.value.details)
    assert "protect_table" in str(raised.value.hint)


async def test_readiness_loads_what_the_templates_use(world: World) -> None:
    """PL/pgSQL by being called, and the library of each extension in `extensions`; as a request too, which may ask."""
    for opened in (world.admin(world.a), world.request(world.a)):
        async with opened as connection:
            assert await connection.fetchval("SELECT tenancy.ready()")
            if connection.get_server_version() < (18,):
                continue  # there is no way to ask what a session has loaded
            loaded = await connection.fetch("SELECT file_name FROM pg_get_loaded_modules()")
            names = {row["file_name"].rpartition("/")[2].partition(".")[0] for row in loaded}
            assert {"plpgsql", *world.template.manifest.extensions} <= names
