"""The stamp: what a migration may leave behind, and who may then do what."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from control_plane.templates.script import Part, Script
from tests.conformance.conftest import Ground
from tests.conformance.test_context import count, sqlstate_of
from tests.conformance.world import World, bind


def with_ddl(world: World, ddl: str, *, version: int = 3) -> str:
    """The message from version 2 to 3 with more DDL in its base schema."""
    script = world.template.script(version - 1, version).message(world.a.home.id, world.a.schema, 2)
    path = f'SET LOCAL search_path = "{world.a.schema}", extensions, pg_temp;'
    return script.replace("SET LOCAL ROLE NONE;", f"{path}\n{ddl};\nSET LOCAL ROLE NONE;", 1)


@pytest_asyncio.fixture
async def behind(ground: Ground, mode: str) -> World:
    return await ground.world(mode, version=2)


async def version(connection: asyncpg.Connection, world: World) -> int:
    return int(await connection.fetchval("SELECT version FROM tenancy.homes WHERE id = $1", world.a.home.id))


TABLE = "CREATE TABLE tb_note (tenant_id uuid NOT NULL, id uuid, PRIMARY KEY (tenant_id, id))"


@pytest.mark.parametrize(
    ("ddl", "named"),
    [
        (TABLE, "tb_note is not protected"),
        ("CREATE TABLE tb_note (id uuid PRIMARY KEY)", "tb_note has no column tenant_id"),
        ("CREATE VIEW v_note AS SELECT tenant_id FROM tb_user", "v_note does not run with the rights of its caller"),
        ("CREATE INDEX tb_user_name ON tb_user (name)", "tb_user_name is not led by tenant_id"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'", "does not pin its search_path"),
        ("GRANT TRUNCATE ON tb_user TO cp_definer", "TRUNCATE is granted to cp_definer"),
        ("ALTER TABLE tb_user ADD UNIQUE (id)", "tb_user_id_key is not led by tenant_id"),
        # In a subtransaction, whose rows bear a number of their own.
        (
            "DO $$ BEGIN GRANT TRUNCATE ON tb_user TO cp_definer; EXCEPTION WHEN division_by_zero THEN NULL; END $$",
            "TRUNCATE is granted to cp_definer",
        ),
        (
            "DO $$ BEGIN CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'; "
            "EXCEPTION WHEN division_by_zero THEN NULL; END $$",
            "does not pin its search_path",
        ),
        ("ALTER VIEW v_user RESET (security_invoker)", "v_user does not run with the rights of its caller"),
        (
            'CREATE VIEW "{schema}__api_v1".tb_user WITH (security_invoker) AS SELECT tenant_id FROM tb_user',
            "tb_user bears the name of a relation of the base schema",
        ),
        (
            "CREATE VIEW users WITH (security_invoker) AS SELECT tenant_id FROM tb_user",
            "__api_v1.users bears the name of a relation of the base schema",
        ),
    ],
)
async def test_a_version_that_breaks_isolation_is_undone_whole(behind: World, ddl: str, named: str) -> None:
    async with behind.admin(behind.a) as connection:
        with pytest.raises(asyncpg.PostgresError) as raised:
            await connection.execute(with_ddl(behind, ddl.replace("{schema}", behind.a.schema)))
        assert raised.value.sqlstate == "CP003"
        assert named in str(raised.value)
        assert await version(connection, behind) == 2
        assert await connection.fetchval("SELECT to_regclass($1)", f"{behind.a.schema}.tb_note") is None
        await connection.execute(with_ddl(behind, "SELECT 1"))
        assert await version(connection, behind) == 3


async def test_a_table_may_not_lose_what_protects_it(behind: World) -> None:
    thing = "POLICY tenant_only ON tb_user" if behind.mode == "shared" else ""
    async with behind.admin(behind.a) as connection:
        with pytest.raises(asyncpg.PostgresError, match="tb_user is not protected"):
            await connection.execute(
                with_ddl(behind, f"DROP {thing}" if thing else "ALTER TABLE tb_user DROP CONSTRAINT tb_user_tenant")
            )


async def test_what_a_version_has_not_touched_is_the_doctors(behind: World) -> None:
    async with behind.admin(behind.a) as connection:
        await connection.execute(f'SET ROLE cp_owner; GRANT TRUNCATE ON "{behind.a.schema}".tb_user TO cp_definer')
        await connection.execute("RESET ROLE")
        await connection.execute(with_ddl(behind, "SELECT 1"))
        assert await version(connection, behind) == 3
        problems = "SELECT problem FROM tenancy.isolation_faults($1)"
        assert await connection.fetchval(problems, behind.a.home.id) == "TRUNCATE is granted to cp_definer"


async def test_a_replaced_view_must_restate_its_option(behind: World) -> None:
    """CREATE OR REPLACE VIEW silently drops what is not restated."""
    ddl = "CREATE OR REPLACE VIEW v_user_card AS SELECT tenant_id, id, '{}'::jsonb AS data FROM tb_user"
    async with behind.admin(behind.a) as connection:
        assert await sqlstate_of(connection, with_ddl(behind, ddl)) in ("CP003", "42601")
        with pytest.raises(asyncpg.PostgresError, match="v_user_card does not run with the rights of its caller"):
            await connection.execute(with_ddl(behind, ddl))


async def test_a_new_table_can_be_used_and_only_as_it_should(behind: World) -> None:
    ddl = f"{TABLE}; SELECT tenancy.protect_table('tb_note')"
    async with behind.admin(behind.a) as connection:
        await connection.execute(with_ddl(behind, ddl))
    async with behind.within(behind.a) as connection:
        await connection.execute("INSERT INTO tb_note VALUES ($1, gen_random_uuid())", behind.a.id)
        assert await count(connection, "tb_note") == 1
        assert await sqlstate_of(connection, "TRUNCATE tb_note") == "42501"


DEFINER = """
CREATE OR REPLACE FUNCTION fn_create_user(input jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $$ BEGIN RETURN (SELECT jsonb_agg(jsonb_build_object('as', current_user, 'tenant', tenant_id)) FROM tb_user); END $$
"""


async def test_a_definer_function_is_handed_over_and_obeys_the_policies(behind: World) -> None:
    """As cp_owner it would see the rows of all tenants; as cp_definer it sees the caller's."""
    async with behind.admin(behind.a) as connection:
        await connection.execute(with_ddl(behind, DEFINER))
        owner = """
            SELECT proowner::regrole::text FROM pg_proc
            WHERE proname = 'fn_create_user' AND pronamespace = $1::text::regnamespace
        """
        assert await connection.fetchval(owner, behind.a.schema) == "cp_definer"
        assert await connection.fetch("SELECT * FROM tenancy.posture()") == []
        # The next version may replace it: the hand-over is taken back while its DDL runs.
        await connection.execute("UPDATE tenancy.homes SET version = 2 WHERE id = $1", behind.a.home.id)
        api = f'DROP SCHEMA "{behind.a.schema}__api_v2" CASCADE'
        await connection.execute(api)
        await connection.execute(with_ddl(behind, DEFINER))
        assert await connection.fetchval(owner, behind.a.schema) == "cp_definer"
    async with behind.within(behind.a) as connection:
        seen = await connection.fetchval("SELECT fn_create_user('{}')")
        assert str(behind.a.id) in seen
        assert str(behind.b.id) not in seen
        assert '"cp_definer"' in seen


async def test_definer_functions_change_hands_only_where_functions_are_replaced(behind: World) -> None:
    """Each change of hands costs a rewritten row and, through the schema's grants, the plans of the session."""
    numbers = """
        SELECT p.oid, p.xmin, p.proowner::regrole::text AS owner
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = $1 AND p.prosecdef ORDER BY 1
    """
    ways: list[Script] = []
    other = DEFINER.replace("fn_create_user", "fn_create_other")
    for number, sql in enumerate((DEFINER + ";" + other, "COMMENT ON TABLE tb_user IS 'A person'", DEFINER)):
        ways.append(replace(behind.template.script(2, 3), from_version=2 + number, to_version=3 + number))
        ways[-1] = replace(ways[-1], parts=(Part("x", sql, api=None),))
    seen = []
    async with behind.admin(behind.a) as connection:
        for way in ways:
            await connection.execute(way.message(behind.a.home.id, behind.a.schema, 2))
            seen.append(await connection.fetch(numbers, behind.a.schema))
    assert seen[0] == seen[1] != seen[2]
    assert [[row["owner"] for row in rows] for rows in seen] == [["cp_definer"] * 2] * 3


async def test_a_function_that_is_listed_later_is_granted_then(behind: World) -> None:
    made = "CREATE FUNCTION fn_late() RETURNS integer LANGUAGE sql STABLE SET search_path FROM CURRENT AS 'SELECT 7'"
    first = replace(behind.template.script(2, 3), parts=(Part("x", made, api=None),))
    late = {"api": None, "name": "fn_late"}
    listed = {**first.manifest, "functions": [*first.manifest["functions"], late]}  # type: ignore[misc]
    then = replace(first, from_version=3, to_version=4, parts=(), manifest=listed)
    async with behind.admin(behind.a) as connection:
        await connection.execute(first.message(behind.a.home.id, behind.a.schema, 2))
        async with behind.within(behind.a) as within:
            assert await sqlstate_of(within, "SELECT fn_late()") == "42501"
        await connection.execute(then.message(behind.a.home.id, behind.a.schema, 2))
    async with behind.within(behind.a) as within:
        assert await within.fetchval("SELECT fn_late()") == 7


async def test_an_index_is_named_among_what_was_touched(behind: World) -> None:
    said: list[str] = []
    async with behind.admin(behind.a) as connection:
        connection.add_log_listener(lambda _, message: said.append(str(message.message)))
        await connection.execute(with_ddl(behind, "CREATE INDEX tb_user_named ON tb_user (tenant_id, name)"))
        await asyncio.sleep(0)  # listeners are called in the next turn
    (touched,) = (json.loads(each) for each in said if '"indexes"' in each)
    assert touched["indexes"] == ["tb_user_named"]
    assert "tb_user" not in touched["tables"]


async def test_cp_owner_has_no_right_on_cp_definer(world: World) -> None:
    async with world.owner(world.a) as connection:
        assert await connection.fetchval("SELECT pg_has_role('cp_owner', 'cp_definer', 'MEMBER')") is False


async def test_functions_are_born_without_public_execute(world: World) -> None:
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        public = await connection.fetchval("SELECT has_function_privilege('cp_request', 'f()', 'EXECUTE')")
        await transaction.rollback()
    assert public is False


async def test_a_backfill_as_cp_owner_touches_every_row(world: World) -> None:
    """FORCE binds the owner too: without a policy of its own the update would report success and change nothing."""
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        expected = 8 if world.mode == "shared" else 3
        assert await connection.execute("UPDATE tb_project SET description = 'x'") == f"UPDATE {expected}"
        await transaction.rollback()


async def test_a_foreign_id_cannot_be_smuggled_into_a_dedicated_home(dedicated_world: World) -> None:
    world = dedicated_world
    async with world.owner(world.a) as connection:
        refused = await sqlstate_of(
            connection, "INSERT INTO tb_project (tenant_id, name) VALUES ($1, 'smuggled')", world.b.id
        )
        assert refused == "23514"


async def test_a_message_for_another_version_changes_nothing(behind: World) -> None:
    message = behind.template.script(1, 2).message(behind.a.home.id, behind.a.schema, 2)
    async with behind.admin(behind.a) as connection:
        assert await sqlstate_of(connection, message) in ("CP001", "42601")
        with pytest.raises(asyncpg.PostgresError) as raised:
            await connection.execute(message)
        assert raised.value.sqlstate == "CP001"
        assert await version(connection, behind) == 2


async def test_two_migrations_of_one_home_do_not_wait_for_each_other(behind: World) -> None:
    async with behind.admin(behind.a) as first, behind.admin(behind.a) as second:
        transaction = first.transaction()
        await transaction.start()
        await first.execute("SELECT tenancy.begin_migration($1, 2, 3, '{1,2}')", behind.a.home.id)
        with pytest.raises(asyncpg.PostgresError) as raised:
            await second.execute(behind.template.script(2, 3).message(behind.a.home.id, behind.a.schema, 2))
        assert raised.value.sqlstate == "CP002"
        await transaction.rollback()
        await second.execute(behind.template.script(2, 3).message(behind.a.home.id, behind.a.schema, 2))


async def test_the_default_alias_follows_the_version_that_the_template_names(ground: Ground, mode: str) -> None:
    world = await ground.world(mode, version=1)
    alias = f'SELECT data FROM "{world.a.schema}__api".users LIMIT 1'
    for target, key in ((1, "fullName"), (2, "fullName"), (3, "profile")):
        if target > 1:
            async with world.admin(world.a) as connection:
                await connection.execute(
                    world.template.script(target - 1, target).message(world.a.home.id, world.a.schema, 2)
                )
        async with world.request(world.a) as connection, connection.transaction():
            await bind(connection, world.a)
            assert key in await connection.fetchval(alias)
    back = replace(world.template.script(2, 3), from_version=3, to_version=4, parts=())
    back = replace(back, manifest={**back.manifest, "default_api": 1})
    async with world.admin(world.a) as connection:
        await connection.execute(back.message(world.a.home.id, world.a.schema, 2))
    async with world.request(world.a) as connection, connection.transaction():
        await bind(connection, world.a)
        assert "fullName" in await connection.fetchval(alias)


async def test_a_script_that_built_a_sound_home_is_audited_once_and_any_other_too(ground: Ground, mode: str) -> None:
    world = await ground.world(mode)
    audited = "SELECT count(*) FROM tenancy.audited_scripts"
    async with world.admin(world.a) as connection:
        assert await connection.fetchval(audited) == 1  # by two homes, or by the template database
        home = uuid4()
        await connection.execute("SELECT tenancy.register_home($1, 'schema', 'reference', $2)", home, uuid4())
        schema = await connection.fetchval("SELECT schema_name FROM tenancy.homes WHERE id = $1", home)
        script = world.template.script(0, world.template.latest)
        unprotected = replace(script, parts=(*script.parts, Part("x", TABLE, api=None)))
        for _ in range(2):
            with pytest.raises(asyncpg.PostgresError, match="tb_note is not protected"):
                await connection.execute(unprotected.message(home, schema, 2))
        assert await connection.fetchval(audited) == 1
        await connection.execute("SELECT tenancy.drop_home($1)", home)
