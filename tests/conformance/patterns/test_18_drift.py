"""Pattern 18, requirement 6: what went past the functions is found, listed and repaired; in all modes, as a job."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from tests.conformance.patterns.posts import (
    DRIFT,
    RESYNC,
    add_user,
    be,
    call,
    drifted,
    existing,
    job,
    signals,
    stored,
    undone,
    write_comment,
    write_post,
)
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import Member, World

ADD = (
    "INSERT INTO tb_post (title, content) SELECT 'Post ' || n, 'x' FROM generate_series(1, $1::integer) n RETURNING id"
)


async def add_posts(connection: asyncpg.Connection, number: int) -> list[UUID]:
    """Posts in ascending order of their keys, synced."""
    keys = sorted(row["id"] for row in await connection.fetch(ADD, number))
    await connection.fetch("SELECT * FROM fn_sync_post_stats($1)", keys)
    return keys


async def test_drift_lists_exactly_what_differs_and_resync_repairs_it(world: World) -> None:
    """Check 18.5, in both directions: changed, missing, and left over."""
    async with job(world, world.a) as connection:
        fine, changed, gone = await add_posts(connection, 3)
        assert await drifted(connection) == []
        await connection.execute("UPDATE tb_post SET title = 'behind the functions' WHERE id = $1", changed)
        assert await drifted(connection) == [changed]
        await connection.execute("DELETE FROM tb_post WHERE id = $1", gone)
        missing = await connection.fetchval(ADD, 1)
        assert await drifted(connection) == sorted([changed, gone, missing])

        before, told = await existing(connection, fine), await signals(connection)
        row = await connection.fetchrow(RESYNC)
        assert row is not None
        assert tuple(row) == (None, 4, sorted([changed, gone, missing]))
        assert await drifted(connection) == []
        assert (await existing(connection, changed)).version == 2
        assert await stored(connection, gone) == (None, 2)
        assert (await existing(connection, missing)).version == 1
        assert await existing(connection, fine) == before
        assert await signals(connection) == told + 3


async def test_drift_is_read_in_chunks(world: World) -> None:
    async with job(world, world.a) as connection:
        keys = await add_posts(connection, 7)
        wrong = [keys[1], keys[5]]
        await connection.execute("UPDATE tb_post SET title = 'other' WHERE id = ANY ($1)", wrong)
        found, after, compared = [], None, []
        while True:
            row = await connection.fetchrow(
                "SELECT * FROM tenancy.projection_drift('tv_post_stats', 'v_post_stats', $1, 3)", after
            )
            assert row is not None
            found += row["drifted"]
            compared.append(row["compared"])
            after = row["last_key"]
            if after is None:
                break
        assert found == wrong
        assert compared == [3, 3, 1, 0]


async def test_a_resync_goes_chunk_by_chunk(world: World) -> None:
    """Each call does one chunk of 500 and says where to go on, so that each can be a transaction."""
    async with job(world, world.a) as connection:
        keys = sorted(row["id"] for row in await connection.fetch(ADD, 1100))
        after, sizes = None, []
        while True:
            row = await connection.fetchrow(RESYNC.replace("'tb_post'", "'tb_post', $1, 1"), after)
            assert row is not None
            sizes.append(len(row["repaired"]))
            after = row["last_key"]
            if after is None:
                break
        assert sizes == [500, 500, 100, 0]
        assert await drifted(connection) == []
        assert await connection.fetchval("SELECT count(*) FROM tv_post_stats WHERE id = ANY ($1)", keys) == 1100


async def test_a_key_that_is_gone_and_settled_is_no_drift(world: World) -> None:
    async with job(world, world.a) as connection:
        (key,) = await add_posts(connection, 1)
        await connection.execute("DELETE FROM tb_post WHERE id = $1", key)
        await connection.fetch("SELECT * FROM fn_sync_post_stats($1)", [key])
        assert await drifted(connection) == []


async def test_another_zone_is_no_drift(world: World) -> None:
    async with job(world, world.a) as connection:
        await add_posts(connection, 2)
        await connection.execute("SET LOCAL timezone = 'Asia/Tokyo'")
        assert await drifted(connection) == []


async def test_a_job_works_for_one_tenant(shared_world: World) -> None:
    """The administrative role's jobs obey the tenant policies, as cp_definer."""
    async with job(shared_world, shared_world.a) as connection:
        assert await connection.fetchval("SELECT current_user") == "cp_definer"
        assert await connection.fetchval("SELECT count(*) FROM tb_project") == len(shared_world.a.projects)


@pytest.mark.parametrize(("state", "sqlstate"), [("moving", "TN503"), ("deleting", "TN404")])
async def test_a_job_waits_for_tenants_that_are_on_their_way(scratch: World, state: str, sqlstate: str) -> None:
    await scratch.set_state(scratch.a, state)
    async with scratch.admin(scratch.a) as connection:
        assert await sqlstate_of(connection, "SELECT tenancy.set_job_context($1)", scratch.a.id) == sqlstate


async def test_requests_bind_no_job_and_compare_nothing(world: World) -> None:
    async with undone(world, world.a) as connection:
        for statement in ("SELECT tenancy.set_job_context(tenancy.current_tenant_id())", DRIFT, RESYNC):
            assert await sqlstate_of(connection, statement) == "42501", statement


async def change_post(connection: asyncpg.Connection, member: Member) -> None:
    post = await write_post(connection, member)
    assert (await call(connection, member, "update_post", id=post, title="New", is_private=True))["success"]
    gone = await write_post(connection, member)
    assert (await call(connection, member, "delete_post", id=gone))["success"]


async def change_comment(connection: asyncpg.Connection, member: Member) -> None:
    post = await write_post(connection, member)
    for _ in range(7):
        comment = await write_comment(connection, member, post)
    assert (await call(connection, member, "delete_comment", id=comment))["success"]


async def change_user(connection: asyncpg.Connection, member: Member) -> None:
    """He has written posts and commented on others'."""
    grace = await add_user(connection)
    for title in ("one", "two"):
        await write_comment(connection, member, await write_post(connection, member, title))
    post = await write_post(connection, member)
    await be(connection, member, grace)
    await write_comment(connection, member, post)
    await be(connection, member, member.user_id)
    assert (await call(connection, member, "update_person", id=member.user_id, name="Countess"))["success"]
    names = await connection.fetch("SELECT data -> 'author' ->> 'name' FROM tv_post_stats")
    assert {name for (name,) in names} == {"Countess"}
    assert (await call(connection, member, "update_person", id=member.user_id, listed=False))["success"]
    await be(connection, member, member.user_id, ["admin"])
    assert (await call(connection, member, "update_person", id=grace, suspended=True))["success"]


CHANGES = {"tb_post": change_post, "tb_comment": change_comment, "tb_user": change_user}


async def test_each_table_that_a_projection_follows_has_a_test_here(world: World) -> None:
    """template.toml says which tables' changes show; test_declarations.py holds that against the definition."""
    assert set(world.template.manifest.projections["tv_post_stats"].follows) == set(CHANGES)


@pytest.mark.parametrize("table", CHANGES)
async def test_the_projection_follows(world: World, table: str) -> None:
    """Whatever changes a table that the definition reads has synced the keys it affects."""
    async with undone(world, world.a) as connection:
        await CHANGES[table](connection, world.a)
        differing = await connection.fetchval(
            "SELECT count(*) FROM v_post_stats d FULL JOIN tv_post_stats p USING (tenant_id, id)"
            " WHERE d.data IS DISTINCT FROM p.data"
        )
        assert differing == 0
        assert await connection.fetchval("SELECT count(*) FROM tv_post_stats") > 0
