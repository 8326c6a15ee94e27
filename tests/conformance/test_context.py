"""set_tenant_context() decides who is served, in every mode and at once."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest

from tests.conformance.world import NOBODY, World, bind

REFUSALS = {"suspended": "TN403", "moving": "TN503", "provisioning": "TN503", "deleting": "TN404"}


async def sqlstate_of(connection: asyncpg.Connection, sql: str, *arguments: object) -> str:
    try:
        async with connection.transaction():
            await connection.execute(sql, *arguments)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    return "00000"


async def count(connection: asyncpg.Connection, relation: str = "tb_project") -> int:
    return int(await connection.fetchval(f"SELECT count(*) FROM {relation}"))


async def test_a_tenant_reads_its_own_rows(world: World) -> None:
    for member in (world.a, world.b):
        async with world.within(member) as connection:
            assert await count(connection) == len(member.projects)
            assert await connection.fetchval("SELECT tenancy.current_tenant_id()") == member.id
            assert await connection.fetchval("SELECT tenancy.current_user_id()") == member.user_id


async def test_roles_come_back_as_they_were_given(world: World) -> None:
    roles = ["admin", 'a "quoted", {one}']
    async with world.request(world.a) as connection, connection.transaction():
        await connection.execute(
            "SELECT tenancy.set_tenant_context($1, $2, roles => $3)", world.a.id, world.a.user_id, roles
        )
        assert await connection.fetchval("SELECT tenancy.current_roles()") == roles
    async with world.request(world.a) as connection:
        assert await connection.fetchval("SELECT tenancy.current_roles()") == []


# attack 22
@pytest.mark.parametrize(("tenant", "user"), [(None, NOBODY), (NOBODY, None), (None, None)])
async def test_null_arguments_are_refused(world: World, tenant: object, user: object) -> None:
    async with world.request(world.a) as connection:
        assert await sqlstate_of(connection, "SELECT tenancy.set_tenant_context($1, $2)", tenant, user) == "TN400"


# attack 22
async def test_an_unknown_tenant_is_not_here(world: World) -> None:
    async with world.request(world.a) as connection:
        assert await sqlstate_of(connection, "SELECT tenancy.set_tenant_context($1, $2)", uuid4(), NOBODY) == "TN404"


# attack 22
@pytest.mark.parametrize("state", REFUSALS)
async def test_a_state_takes_effect_at_once(world: World, state: str) -> None:
    async with world.request(world.a) as connection:
        async with connection.transaction():
            await bind(connection, world.a)
        await world.set_state(world.a, state)
        try:
            refused = await sqlstate_of(
                connection, "SELECT tenancy.set_tenant_context($1, $2)", world.a.id, world.a.user_id
            )
        finally:
            await world.set_state(world.a, "active")
        assert refused == REFUSALS[state]
        async with connection.transaction():
            await bind(connection, world.a)
            assert await count(connection) == 3


# attack 22
async def test_an_old_epoch_is_told_from_a_current_one(world: World) -> None:
    async with world.request(world.a) as connection:
        epoch = world.a.tenant.epoch
        gate = "SELECT tenancy.set_tenant_context($1, $2, $3)"
        assert await sqlstate_of(connection, gate, world.a.id, world.a.user_id, epoch) == "00000"
        assert await sqlstate_of(connection, gate, world.a.id, world.a.user_id, epoch + 1) == "TN409"
        assert await sqlstate_of(connection, gate, world.a.id, world.a.user_id, epoch - 1) == "TN409"


async def test_the_epoch_never_goes_back(world: World) -> None:
    async with world.admin(world.a) as connection:
        put = "SELECT tenancy.put_tenant($1, $2, $3, 'active', $4)"
        arguments = (world.a.id, world.a.home.id, world.a.tenant.slug)
        assert await sqlstate_of(connection, put, *arguments, world.a.tenant.epoch - 1) == "TN409"


async def test_a_transaction_serves_one_tenant_only(shared_world: World) -> None:
    world = shared_world
    async with world.within(world.a) as connection:
        await bind(connection, world.a)  # the same one again is fine
        second = await sqlstate_of(connection, "SELECT tenancy.set_tenant_context($1, $2)", world.b.id, world.b.user_id)
        assert second == "TN400"
        assert await count(connection) == 3


# attack 30
async def test_a_savepoint_cannot_change_the_tenant(shared_world: World) -> None:
    world = shared_world
    async with world.within(world.a) as connection:
        savepoint = connection.transaction()
        await savepoint.start()
        with pytest.raises(asyncpg.PostgresError) as raised:
            await bind(connection, world.b)
        assert raised.value.sqlstate == "TN400"
        await savepoint.rollback()
        assert await count(connection) == 3


# attack 10
@pytest.mark.parametrize("ending", ["commit", "rollback", "error"])
async def test_nothing_of_the_context_outlives_its_transaction(world: World, ending: str) -> None:
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await bind(connection, world.a)
        if ending == "commit":
            await transaction.commit()
        else:
            if ending == "error":
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await connection.execute("SELECT 1 / 0")
            await transaction.rollback()
        assert await connection.fetchval("SELECT tenancy.current_tenant_id()") is None
        assert await connection.fetchval("SELECT tenancy.current_user_id()") is None
        if world.mode == "shared":
            assert await count(connection) == 0


# attack 21
async def test_a_poisoned_session_setting_does_not_reach_the_next_request(shared_world: World) -> None:
    world = shared_world
    async with world.request(world.a) as connection:
        await connection.execute(f"SET app.current_tenant_id = '{world.b.id}'")
        async with connection.transaction():
            await bind(connection, world.a)
            rows = await connection.fetch("SELECT tenant_id FROM tb_project")
            assert {row["tenant_id"] for row in rows} == {world.a.id}


# attack 23
async def test_a_read_only_context_writes_nothing(world: World) -> None:
    async with world.request(world.a) as connection, connection.transaction():
        await bind(connection, world.a, read_only=True)
        assert await count(connection) == 3
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with connection.transaction():
                await connection.execute("INSERT INTO tb_project (name) VALUES ('x')")


async def test_a_principal_of_one_home_is_refused_over_the_login_of_another(dedicated_world: World) -> None:
    """Without the check of session_user a principal of A over the pool of B would read the rows of B."""
    world = dedicated_world
    async with world.request(world.a) as connection:
        refused = await sqlstate_of(
            connection, "SELECT tenancy.set_tenant_context($1, $2)", world.b.id, world.b.user_id
        )
        assert refused == "TN404"


async def test_the_administrative_role_is_no_request_role(world: World) -> None:
    async with world.admin(world.a) as connection:
        refused = await sqlstate_of(connection, "SELECT tenancy.set_tenant_context($1, $2)", world.a.id, NOBODY)
        assert refused == "TN404"
