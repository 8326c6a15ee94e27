"""Pattern 9, routing: a named operation in exactly one tenant. More of it is in test_routing.py."""

from __future__ import annotations

import json

import asyncpg
import pytest

from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World

ROUTE = "SELECT tenancy.route_to_tenant($1, $2, $3)"


async def test_an_operation_is_named_and_its_parameters_are_data(world: World) -> None:
    """Requirement 1 and check 9.3: no parameter takes SQL text; hostile text comes back as text."""
    hostile = f"'; SELECT * FROM {world.b.schema}.tb_project; --"
    async with world.request(world.a) as connection:
        for operation in ("SELECT 1", "pg_sleep", "tb_project", "fn_create_project", hostile):
            assert await sqlstate_of(connection, ROUTE, "acme", operation, "{}") == "42883"
        transaction = connection.transaction()
        await transaction.start()
        answer = json.loads(await connection.fetchval(ROUTE, "acme", "create_project", json.dumps({"name": hostile})))
        await transaction.rollback()
    assert answer["data"]["project"]["name"] == hostile
    assert "beta-secret" not in json.dumps(answer)


async def test_an_unknown_or_closed_tenant_is_an_error_before_anything_runs(world: World) -> None:
    """Requirement 2 and check 9.1: never another schema that happens to have such a table."""
    async with world.admin(world.a) as admin:
        await admin.execute("SET ROLE cp_owner; CREATE TABLE extensions.tb_project AS SELECT 'of nobody' AS name")
    try:
        async with world.request(world.a) as connection:
            for slug in ("no-such-tenant", "", "beta; --"):
                assert await sqlstate_of(connection, ROUTE, slug, "create_project", '{"name": "x"}') == "TN404"
            for state, code in (("suspended", "TN403"), ("provisioning", "TN503"), ("moving", "TN503")):
                await world.set_state(world.a, state)
                assert await sqlstate_of(connection, ROUTE, "acme", "create_project", '{"name": "x"}') == code
        async with world.admin(world.a) as admin:
            await admin.execute("SET ROLE cp_owner")
            assert await admin.fetchval("SELECT count(*) FROM extensions.tb_project") == 1
    finally:
        await world.set_state(world.a, "active")
        async with world.admin(world.a) as admin:
            await admin.execute("DROP TABLE extensions.tb_project")


async def test_the_caller_is_left_as_he_was(world: World) -> None:
    """Requirement 3 and check 9.2: role and path are the caller's again, after success and after failure."""
    async with world.request(world.a) as connection:
        await connection.execute("SET search_path = pg_catalog, pg_temp")
        before = await connection.fetchrow("SELECT current_user, current_setting('search_path')")
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(ROUTE, "acme", "create_project", '{"name": "gone"}')
        assert await connection.fetchrow("SELECT current_user, current_setting('search_path')") == before
        with pytest.raises(asyncpg.PostgresError):
            async with connection.transaction():
                await connection.execute(ROUTE, "acme", "no_such", "{}")
        assert await connection.fetchrow("SELECT current_user, current_setting('search_path')") == before
        await transaction.rollback()


async def test_no_temporary_table_stands_in_the_way(world: World) -> None:
    """Requirement 3 and check 9.4: a request role cannot make one, and the path asks pg_temp last."""
    async with world.request(world.a) as connection:
        assert await sqlstate_of(connection, "CREATE TEMP TABLE tb_project (name text)") == "42501"
        assert (await connection.fetchval("SHOW search_path")).endswith(", pg_temp")


async def test_a_routed_call_ends_in_time(world: World) -> None:
    """Requirement 4: one JSON document, under the statement timeout of the home's login role."""
    async with world.request(world.a) as connection:
        assert await connection.fetchval("SHOW statement_timeout") not in ("0", None)
        kind = "SELECT prorettype::regtype::text FROM pg_proc WHERE oid = 'tenancy.route_to_tenant'::regproc"
        assert await connection.fetchval(kind) == "jsonb"


async def test_the_answer_does_not_tell_the_mode(world: World) -> None:
    """Requirement 5: the same call has the same answer in every mode, apart from ids and times."""
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        answer = json.loads(await connection.fetchval(ROUTE, "acme", "create_project", '{"name": "same"}'))
        refusal = json.loads(await connection.fetchval(ROUTE, "acme", "create_project", '{"title": "same"}'))
        await transaction.rollback()
    project = answer["data"]["project"] | {"id": 0, "created_at": 0}
    assert project == {
        "__typename": "Project", "id": 0, "name": "same", "owner": None, "member_count": 0, "description": "",
        "created_at": 0,
    }  # fmt: skip
    assert {problem["path"] for problem in refusal["errors"]} == {"name", "title"}
