"""Pattern 7, the tenant context. Its refusals state by state are in test_context.py, the gate's in test_gate.py."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conformance.test_context import count, sqlstate_of
from tests.conformance.world import Member, World, bind

SET = "SELECT tenancy.set_tenant_context($1, $2)"


async def list_members(world: World, member: Member, *users: tuple[UUID, list[str]]) -> None:
    async with world.admin(member) as connection:
        await connection.execute("SELECT tenancy.put_membership($1, 'listed')", member.id)
        for user, roles in users:
            await connection.execute("SELECT tenancy.put_member($1, $2, $3)", member.id, user, roles)


async def forget_members(world: World, member: Member) -> None:
    async with world.admin(member) as connection:
        await connection.execute("SELECT tenancy.put_membership($1, 'token')", member.id)
        await connection.execute("DELETE FROM tenancy.members WHERE tenant_id = $1", member.id)


@pytest.mark.parametrize("ending", ["commit", "error", "timeout"])
async def test_a_context_ends_with_its_transaction(world: World, ending: str) -> None:
    """Requirement 1: the next user of the connection starts with nothing, however the transaction ended."""
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await bind(connection, world.a)
        assert await count(connection) == 3
        if ending == "error":
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute("SELECT 1 / 0")
        elif ending == "timeout":
            await connection.execute("SET LOCAL statement_timeout = '5ms'")
            with pytest.raises(asyncpg.QueryCanceledError):
                await connection.execute("SELECT pg_sleep(5)")
        await (transaction.commit() if ending == "commit" else transaction.rollback())
        assert await connection.fetchval("SELECT tenancy.current_tenant_id()") is None
        assert await connection.fetchval("SELECT tenancy.current_user_id()") is None
        assert await connection.fetchval("SELECT cardinality(tenancy.current_roles())") == 0
        if world.mode == "shared":
            assert await count(connection) == 0


async def test_what_is_missing_unknown_or_suspended_is_told_apart(world: World) -> None:
    """Requirement 2: each refusal has a code of its own."""
    async with world.request(world.a) as connection:
        assert await sqlstate_of(connection, SET, None, world.a.user_id) == "TN400"
        assert await sqlstate_of(connection, SET, world.a.id, None) == "TN400"
        assert await sqlstate_of(connection, SET, uuid4(), world.a.user_id) == "TN404"
        if world.mode != "shared":
            assert await sqlstate_of(connection, SET, world.b.id, world.b.user_id) == "TN404"
        await world.set_state(world.a, "suspended")
        try:
            assert await sqlstate_of(connection, SET, world.a.id, world.a.user_id) == "TN403"
        finally:
            await world.set_state(world.a, "active")


async def test_who_is_on_no_list_is_not_let_in(world: World) -> None:
    """Requirement 2: where a tenant keeps a list, a user who is not on it is refused, at once, in every transaction."""
    known, stranger = uuid4(), uuid4()
    await list_members(world, world.a, (known, ["moderator"]))
    try:
        async with world.request(world.a) as connection:
            assert await sqlstate_of(connection, SET, world.a.id, stranger) == "42501"
            assert await sqlstate_of(connection, SET, world.a.id, known) == "00000"
            async with world.admin(world.a) as admin:
                assert await admin.fetchval("SELECT tenancy.remove_member($1, $2)", world.a.id, known) is True
                assert await admin.fetchval("SELECT tenancy.remove_member($1, $2)", world.a.id, known) is False
            assert await sqlstate_of(connection, SET, world.a.id, known) == "42501"
        async with world.within(world.b) as connection:  # a list is one tenant's, not its home's
            assert await count(connection) == 5
    finally:
        await forget_members(world, world.a)


async def test_the_list_says_what_a_member_is(world: World) -> None:
    """Requirement 2: the roles of the list take the place of those that the token claims."""
    user = uuid4()
    claim = "SELECT tenancy.set_tenant_context($1, $2, roles => '{admin}')"
    roles = "SELECT tenancy.current_roles()"
    async with world.request(world.a) as connection:
        async with connection.transaction():
            await connection.execute(claim, world.a.id, user)
            assert await connection.fetchval(roles) == ["admin"]
        await list_members(world, world.a, (user, ["moderator"]))
        try:
            async with connection.transaction():
                await connection.execute(claim, world.a.id, user)
                assert await connection.fetchval(roles) == ["moderator"]
        finally:
            await forget_members(world, world.a)


async def test_a_user_of_one_tenant_is_not_let_in_to_another(world: World) -> None:
    """Check 7.3: with lists, a member of A who asks for B is refused, in common tables too."""
    user = uuid4()
    await list_members(world, world.a, (user, []))
    await list_members(world, world.b, (uuid4(), []))
    try:
        async with world.request(world.a) as connection:
            assert await sqlstate_of(connection, SET, world.a.id, user) == "00000"
            expected = "42501" if world.mode == "shared" else "TN404"
            assert await sqlstate_of(connection, SET, world.b.id, user) == expected
    finally:
        await forget_members(world, world.a)
        await forget_members(world, world.b)


async def test_a_transaction_keeps_its_tenant(shared_world: World) -> None:
    """Requirement 3: a second call for another tenant is refused; for the same one it is not."""
    world = shared_world
    async with world.within(world.a) as connection:
        assert await sqlstate_of(connection, SET, world.b.id, world.b.user_id) == "TN400"
        assert await sqlstate_of(connection, SET, world.a.id, world.a.user_id) == "00000"
        assert await count(connection) == 3


async def test_every_view_obeys_its_caller_and_can_be_joined(world: World) -> None:
    """Requirement 4: security_invoker on every view of the home, and lookup columns beside the document."""
    async with world.admin(world.a) as connection:
        views = await connection.fetch(
            """
            SELECT c.oid::regclass::text AS name, coalesce(c.reloptions @> '{security_invoker=true}', false) AS invoker,
                   array_agg(a.attname::text ORDER BY a.attnum) AS columns
            FROM pg_class c
            JOIN tenancy.home_schemas($1) s ON s.schema_oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
            WHERE c.relkind = 'v'
            GROUP BY c.oid
            """,
            world.a.home.id,
        )
    assert len(views) >= 7
    for view in views:
        assert view["invoker"], view["name"]
        assert view["columns"][0] == "tenant_id", view["name"]
    projects = next(view["columns"] for view in views if view["name"].endswith("__api_v2.projects"))
    assert {"tenant_id", "id", "name", "owner_id", "created_at", "data"} <= set(projects)


async def test_nested_facts_are_counted_under_the_same_isolation(world: World) -> None:
    """Requirement 5 and check 7.1: counts inside a document are the tenant's own, and no name of another occurs."""
    async with world.within(world.a) as connection:
        rows = await connection.fetch("SELECT id, data, data ->> 'member_count' AS members FROM v_project")
        assert len(rows) == await count(connection) == 3
        for row in rows:
            own = "SELECT count(*)::text FROM tb_project_member WHERE project_id = $1"
            assert row["members"] == await connection.fetchval(own, row["id"])
            assert "beta" not in row["data"]
