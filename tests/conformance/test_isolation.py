"""Attacks on the rows of another tenant, run as the role that requests run as. Each has a positive control."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest

from tests.conformance.test_context import count, sqlstate_of
from tests.conformance.world import World, bind

TABLES = ("tb_user", "tb_project", "tb_project_member")
BASE_VIEWS = ("v_user", "v_user_card", "v_project")
DENIED = "42501"


def relations(world: World) -> list[str]:
    api = [f'"{world.a.schema}__api_v{n}".{name}' for n in (1, 2) for name in ("users", "projects")]
    alias = [f'"{world.a.schema}__api".{name}' for name in ("users", "projects")]
    return [*TABLES, *BASE_VIEWS, *api, *alias]


# attack 9
async def test_without_a_context_nothing_is_read_and_nothing_is_written(shared_world: World) -> None:
    world = shared_world
    async with world.request(world.a) as connection:
        for relation in relations(world):
            assert await count(connection, relation) == 0, relation
        assert await sqlstate_of(connection, "INSERT INTO tb_project (name) VALUES ('x')") in (DENIED, "23502")
        insert = "INSERT INTO tb_project (tenant_id, name) VALUES ($1, 'x')"
        assert await sqlstate_of(connection, insert, world.a.id) == DENIED
    async with world.within(world.a) as connection:
        for relation in relations(world):
            assert await count(connection, relation) > 0, relation


# attack 9: in a dedicated home the login role itself is the tenant, so reads need no context; writes do.
async def test_a_dedicated_home_refuses_a_write_without_a_context(world: World) -> None:
    async with world.request(world.a) as connection:
        refused = await sqlstate_of(connection, "INSERT INTO tb_project (name) VALUES ('x')")
        assert refused in (DENIED, "23502")


# attack 10
async def test_an_empty_setting_means_no_tenant(shared_world: World) -> None:
    async with shared_world.request(shared_world.a) as connection:
        await connection.execute("SET app.current_tenant_id = ''")
        assert await count(connection) == 0


async def test_no_relation_shows_anything_of_another_tenant(world: World) -> None:
    for member, other in ((world.a, world.b), (world.b, world.a)):
        async with world.within(member) as connection:
            for relation in relations(world):
                relation = relation.replace(world.a.schema, member.schema)
                rows = await connection.fetch(f"SELECT r.tenant_id, r::text AS everything FROM {relation} AS r")
                assert rows, relation
                assert {row["tenant_id"] for row in rows} == {member.id}, relation
                assert all(f"{other.tenant.slug}-secret" not in row["everything"] for row in rows), relation


# attack 11
async def test_another_tenants_row_cannot_be_touched_by_its_id(world: World) -> None:
    foreign = world.b.projects[0]
    async with world.within(world.a) as connection:
        for statement in (
            "UPDATE tb_project SET name = 'taken' WHERE id = $1",
            "DELETE FROM tb_project WHERE id = $1",
            "UPDATE tb_project SET name = 'taken' WHERE id = $1 AND tenant_id IS NOT NULL",
        ):
            assert (await connection.execute(statement, foreign)).endswith(" 0")
    async with world.within(world.b) as connection:
        assert await connection.fetchval("SELECT name FROM tb_project WHERE id = $1", foreign) == "beta-secret-0"


# attack 12
async def test_a_row_cannot_be_planted_in_or_moved_to_another_tenant(world: World) -> None:
    expected = DENIED if world.mode == "shared" else "23514"
    async with world.within(world.a) as connection:
        insert = "INSERT INTO tb_project (tenant_id, name) VALUES ($1, 'planted')"
        assert await sqlstate_of(connection, insert, world.b.id) == expected
        update = "UPDATE tb_project SET owner_id = NULL, tenant_id = $1 WHERE id = $2"
        assert await sqlstate_of(connection, update, world.b.id, world.a.projects[0]) in (expected, "23503")
        assert await sqlstate_of(connection, insert, world.a.id) == "00000"
        await connection.execute("DELETE FROM tb_project WHERE name = 'planted'")


# attack 13
async def test_on_conflict_neither_reads_nor_changes_another_tenants_row(shared_world: World) -> None:
    world = shared_world
    upsert = (
        "INSERT INTO tb_project (tenant_id, id, name) VALUES ($1, $2, 'taken') "
        "ON CONFLICT (tenant_id, id) DO UPDATE SET name = excluded.name RETURNING name"
    )
    async with world.within(world.a) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError) as raised:
            async with connection.transaction():
                await connection.fetchval(upsert, world.b.id, world.b.projects[0])
        assert "beta-secret" not in str(raised.value) + str(raised.value.detail)
        own = world.a.projects[0]
        before = await connection.fetchval("SELECT name FROM tb_project WHERE id = $1", own)
        assert await connection.fetchval(upsert, world.a.id, own) == "taken"
        await connection.execute("UPDATE tb_project SET name = $1 WHERE id = $2", before, own)


# attack 14
async def test_a_unique_value_of_another_tenant_is_free(world: World) -> None:
    insert = "INSERT INTO tb_user (email, name) VALUES ($1, 'x')"
    async with world.within(world.a) as connection:
        assert await sqlstate_of(connection, insert, "user0@beta.example") == "00000"
        await connection.execute("DELETE FROM tb_user WHERE email = 'user0@beta.example'")
        assert await sqlstate_of(connection, insert, "USER0@acme.example") == "23505"
        same_id = "INSERT INTO tb_project (id, name) VALUES ($1, 'x')"
        assert await sqlstate_of(connection, same_id, world.b.projects[0]) == "00000"
        await connection.execute("DELETE FROM tb_project WHERE id = $1", world.b.projects[0])


# attack 15
async def test_a_foreign_key_does_not_tell_whether_another_tenants_row_exists(shared_world: World) -> None:
    world = shared_world
    insert = "INSERT INTO tb_project (name, owner_id) VALUES ('x', $1)"
    errors = []
    async with world.within(world.a) as connection:
        for owner in (world.b.users[0], uuid4()):
            with pytest.raises(asyncpg.ForeignKeyViolationError) as raised:
                async with connection.transaction():
                    await connection.execute(insert, owner)
            errors.append(str(raised.value))
        assert errors[0] == errors[1]


# attack 17
async def test_hidden_rows_are_not_evaluated_by_a_leaky_filter(shared_world: World) -> None:
    world = shared_world
    async with world.within(world.a) as connection:
        # Would divide by zero on a row of B.
        rows = await connection.fetch(
            "SELECT 1 FROM tb_project WHERE 1 / (CASE WHEN name ~ '^beta' THEN 0 ELSE 1 END) = 1"
        )
        assert len(rows) == 3


# attack 18
async def test_row_security_cannot_be_switched_off(shared_world: World) -> None:
    world = shared_world
    async with world.within(world.a) as connection:
        savepoint = connection.transaction()
        await savepoint.start()
        await connection.execute("SET LOCAL row_security = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SELECT * FROM tb_project")
        await savepoint.rollback()
        assert await count(connection) == 3


# attack 19
async def test_statistics_of_shared_tables_are_hidden(shared_world: World) -> None:
    world = shared_world
    query = "SELECT count(*) FROM pg_stats WHERE schemaname = $1"
    async with world.owner(world.a) as connection:
        await connection.execute("ANALYZE tb_project")
        await connection.execute("RESET ROLE")
    async with world.within(world.a) as connection:
        assert await connection.fetchval(query, world.a.schema) == 0
        assert await connection.fetchval("SELECT count(*) FROM pg_stats WHERE schemaname = 'pg_catalog'") > 0


# attacks 18 and 29, on what cannot stand inside a transaction or exists in shared tables only
async def test_a_login_role_makes_no_database_and_drops_no_policy(shared_world: World) -> None:
    async with shared_world.request(shared_world.a) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE DATABASE mine")
        assert await sqlstate_of(connection, "DROP POLICY tenant_only ON tb_project") == DENIED


# attack 20
@pytest.mark.parametrize("plan_cache_mode", ["auto", "force_generic_plan", "force_custom_plan"])
async def test_a_prepared_statement_follows_the_context(shared_world: World, plan_cache_mode: str) -> None:
    world = shared_world
    async with world.request(world.a) as connection:
        await connection.execute(f"SET plan_cache_mode = {plan_cache_mode}")
        prepared = await connection.prepare("WITH p AS (SELECT * FROM v_project) SELECT tenant_id FROM p")
        for _ in range(5):
            for member, rows in ((world.a, 3), (world.b, 5), (None, 0)):
                async with connection.transaction():
                    if member is not None:
                        await bind(connection, member)
                    found = await prepared.fetch()
                    assert len(found) == rows
                    assert all(row["tenant_id"] == member.id for row in found if member)


# attack 24
async def test_a_partition_has_no_grants_of_its_own(ground_partition: World) -> None:
    world = ground_partition
    async with world.within(world.a) as connection:
        await connection.execute("INSERT INTO tb_event (name) VALUES ('mine')")
        assert await count(connection, "tb_event") == 1
        assert await sqlstate_of(connection, "SELECT * FROM tb_event_0") == DENIED


# attacks 18, 25, 26, 29
@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE tb_project",
        "CREATE TABLE mine (x int)",
        "CREATE TEMP TABLE tb_project (x int)",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "CREATE TABLE public.mine (x int)",
        "CREATE TABLE extensions.mine (x int)",
        "ALTER TABLE tb_project DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE tb_project NO FORCE ROW LEVEL SECURITY",
        "DROP TABLE tb_project",
        "CREATE POLICY mine ON tb_project USING (true)",
        "CREATE INDEX ON tb_project (name)",
        "SET ROLE cp_owner",
        "SET ROLE cp_definer",
        "SET ROLE cp_tenancy",
        "SET SESSION AUTHORIZATION cp_owner",
        "CREATE ROLE mine",
        "ALTER ROLE cp_owner LOGIN",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "COPY tb_project TO PROGRAM 'true'",
        "COPY tb_project TO '/tmp/x'",
        "SELECT * FROM tenancy.homes",
        "SELECT * FROM tenancy.tenants",
        "UPDATE tenancy.tenants SET state = 'active'",
        "SELECT tenancy.put_tenant(gen_random_uuid(), gen_random_uuid(), 'mine', 'active', 1)",
        "SELECT tenancy.create_tenant_schema('mine')",
        "SELECT tenancy.protect_table('tb_project')",
        "SELECT tenancy.erase_tenant(gen_random_uuid())",
        "SELECT * FROM tenancy.posture()",
    ],
)
async def test_a_request_role_may_not(world: World, statement: str) -> None:
    async with world.within(world.a) as connection:
        state = await sqlstate_of(connection, statement)
        # 42501 is a refusal; the table's owner is told apart from the role in the same code.
        assert state == DENIED, statement
        assert await count(connection) == 3


# attack 16
async def test_no_sequence_tells_of_another_tenants_inserts(world: World) -> None:
    async with world.admin(world.a) as connection:
        sequences = await connection.fetchval(
            "SELECT count(*) FROM pg_class c JOIN tenancy.home_schemas($1) s ON s.schema_oid = c.relnamespace "
            "WHERE c.relkind = 'S'",
            world.a.home.id,
        )
        assert sequences == 0
    async with world.within(world.a) as connection:
        assert await sqlstate_of(connection, "SELECT lastval()") == "55000"


# attack 33, pattern 8.5 and 10.2
async def test_a_login_role_reaches_its_own_home_only(world: World) -> None:
    if world.mode == "database":
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with world.request(world.a, at=world.b):
                pass
        async with world.request(world.a) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        return
    async with world.within(world.a) as connection:
        if world.mode == "schema":
            foreign = f'SELECT * FROM "{world.b.schema}".tb_project'
            assert await sqlstate_of(connection, foreign) == DENIED
            assert await sqlstate_of(connection, foreign.replace(world.b.schema, world.a.schema)) == "00000"
        # A table that is missing from the home is an error, never one of `public`.
        assert await sqlstate_of(connection, "SELECT * FROM no_such_table") == "42P01"
        assert await connection.fetchval("SHOW search_path") == f"{world.a.schema}, extensions, pg_temp"


# pattern 6.4
async def test_the_policy_uses_the_index(shared_world: World) -> None:
    world = shared_world
    async with world.owner(world.a) as connection:
        await connection.execute(
            "INSERT INTO tb_project (tenant_id, name) SELECT gen_random_uuid(), 'filler' FROM generate_series(1, 20000)"
        )
        await connection.execute("ANALYZE tb_project")
        try:
            async with world.within(world.a) as request:
                plan = "\n".join(row[0] for row in await request.fetch("EXPLAIN SELECT count(*) FROM tb_project"))
        finally:
            await connection.execute("DELETE FROM tb_project WHERE name = 'filler'")
    assert "Index Cond: (tenant_id = " in plan
    assert "Seq Scan" not in plan
    assert " OR " not in plan
