"""route_to_tenant() runs a catalogued operation for one tenant and nothing else."""

from __future__ import annotations

import json

import asyncpg
import pytest

from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World

ROUTE = "SELECT tenancy.route_to_tenant($1, $2, $3)"


async def test_an_operation_runs_in_the_tenant_that_was_named(world: World) -> None:
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        result = json.loads(await connection.fetchval(ROUTE, "acme", "create_project", '{"name": "routed"}'))
        assert result["success"]
        assert result["data"]["project"]["name"] == "routed"
        assert await connection.fetchval("SELECT tenant_id FROM tb_project WHERE name = 'routed'") == world.a.id
        await transaction.rollback()


# pattern 9.1
async def test_an_unknown_tenant_is_an_error_and_never_public(world: World) -> None:
    async with world.request(world.a) as connection:
        assert await sqlstate_of(connection, ROUTE, "no-such-tenant", "create_project", "{}") == "TN404"


async def test_a_tenant_of_another_home_is_not_found(dedicated_world: World) -> None:
    async with dedicated_world.request(dedicated_world.a) as connection:
        assert await sqlstate_of(connection, ROUTE, "beta", "create_project", "{}") == "TN404"


async def test_the_states_hold_here_too(world: World) -> None:
    await world.set_state(world.a, "suspended")
    try:
        async with world.request(world.a) as connection:
            assert await sqlstate_of(connection, ROUTE, "acme", "create_project", '{"name": "x"}') == "TN403"
    finally:
        await world.set_state(world.a, "active")


@pytest.mark.parametrize(
    "operation", ["no_such", "fn_create_project", "tb_project", "pg_sleep", "create_project(1); SELECT 1; --", ""]
)
async def test_only_catalogued_operations_exist(world: World, operation: str) -> None:
    async with world.request(world.a) as connection:
        assert await sqlstate_of(connection, ROUTE, "acme", operation, "{}") == "42883"


# pattern 9.2
async def test_the_callers_path_and_role_come_back(world: World) -> None:
    async with world.request(world.a) as connection:
        await connection.execute("SET search_path = pg_catalog, pg_temp")
        role = await connection.fetchval("SELECT current_user")
        async with connection.transaction():
            assert "created" in await connection.fetchval(ROUTE, "acme", "create_project", '{"name": "gone"}')
            assert await connection.fetchval("SHOW search_path") == "pg_catalog, pg_temp"
            with pytest.raises(asyncpg.PostgresError):
                async with connection.transaction():
                    await connection.execute(ROUTE, "acme", "no_such", "{}")
            assert await connection.fetchval("SHOW search_path") == "pg_catalog, pg_temp"
        assert await connection.fetchval("SHOW search_path") == "pg_catalog, pg_temp"
        assert await connection.fetchval("SELECT current_user") == role
    async with world.within(world.a) as connection:
        assert await connection.execute("DELETE FROM tb_project WHERE name = 'gone'") == "DELETE 1"


# pattern 9.3
async def test_parameters_are_data(world: World) -> None:
    hostile = f"'; SELECT * FROM {world.b.schema}.tb_project; --"
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        result = await connection.fetchval(ROUTE, "acme", "create_project", json.dumps({"name": hostile}))
        assert json.loads(result)["data"]["project"]["name"] == hostile
        assert "beta-secret" not in result
        await transaction.rollback()


async def test_there_is_no_parameter_for_sql_text(world: World) -> None:
    """Only functions that take SQL text could run it: none that a request role may call does."""
    async with world.request(world.a) as connection:
        callable_ = await connection.fetch(
            """
            SELECT p.proname
            FROM pg_proc p
            WHERE p.pronamespace = 'tenancy'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE')
            """
        )
    # One per line: each is here because somebody has read it.
    assert {row["proname"] for row in callable_} == {
        "call_once",
        "column_type",
        "current_arrival",
        "current_roles",
        "current_tenant_id",
        "current_user_id",
        "declared",
        "deprecations",
        "filter_conditions",
        "filter_value",
        "find_collection",
        "find_route",
        "input_problems",
        "installed_version",
        "is_valid",
        "mutation_result",
        "open_cursor",
        "page_statement",
        "read_changes",
        "read_page",
        "ready",
        "route_to_tenant",
        "seal_cursor",
        "set_tenant_context",
        "value_problems",
        "with_document",
    }
