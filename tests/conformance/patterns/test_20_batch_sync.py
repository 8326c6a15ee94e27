"""Pattern 20: many keys in a few statements, with the same result as one by one."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid4

import asyncpg

from tests.conformance.patterns.posts import (
    RESYNC,
    add_user,
    existing,
    job,
    signals,
    stored,
    sync,
    undone,
    write_post,
)
from tests.conformance.patterns.test_18_drift import ADD
from tests.conformance.world import World

ROWS = "SELECT id, data::text, version FROM tv_post_stats ORDER BY id"


async def add_posts(connection: asyncpg.Connection, number: int) -> list[UUID]:
    """Posts that no sync has seen yet."""
    return [row["id"] for row in await connection.fetch(ADD, number)]


async def add_comments(connection: asyncpg.Connection, number: int) -> None:
    """`number` comments for each post."""
    await connection.execute(
        "INSERT INTO tb_comment (post_id, content)"
        " SELECT p.id, 'Comment ' || n FROM tb_post p, generate_series(1, $1::integer) n",
        number,
    )


async def test_a_batch_writes_the_same_bytes_as_single_syncs(world: World) -> None:
    """Requirement 1, check 20.1: one definition, and no version moves."""
    async with undone(world, world.a) as connection:
        posts = await add_posts(connection, 100)
        await add_comments(connection, 7)
        for post in posts:
            assert await sync(connection, post) == {post: "synced"}
        singles, told = await connection.fetch(ROWS), await signals(connection)
        assert await sync(connection, *posts) == dict.fromkeys(posts, "unchanged")
        assert await connection.fetch(ROWS) == singles
        assert await signals(connection) == told

        await connection.execute("UPDATE tb_post SET title = title || '!'")
        assert set((await sync(connection, *posts)).values()) == {"synced"}
        batch = await connection.fetch(ROWS)
        await connection.execute("UPDATE tb_comment SET content = content || '!'")
        for post in posts:
            await sync(connection, post)
        assert {row["version"] for row in batch} == {2}
        assert {row["version"] for row in await connection.fetch(ROWS)} == {3}
        assert '"comment_count": 7' in batch[0]["data"]


async def test_each_key_is_answered_once(world: World) -> None:
    """Requirement 3, check 20.2: repeated keys once, unknown ones by name, in ascending order."""
    async with undone(world, world.a) as connection:
        one, two = sorted(await add_posts(connection, 2))
        unknown = uuid4()
        await sync(connection, one)
        found = await connection.fetch("SELECT * FROM fn_sync_post_stats($1)", [two, one, two, unknown, None])
        expected = {one: "unchanged", two: "synced", unknown: "not_found"}
        assert [tuple(row) for row in found] == sorted(expected.items())
        assert await signals(connection, two) == 1
        assert (await existing(connection, two)).version == 1
        assert await stored(connection, unknown) is None


async def test_a_batch_follows_the_rules_of_a_single_sync(world: World) -> None:
    """Requirement 3: new, changed, gone and unchanged keys in one call, each with its version and signal."""
    async with undone(world, world.a) as connection:
        changed, gone, same = [await write_post(connection, world.a) for _ in range(3)]
        (new,) = await add_posts(connection, 1)
        await connection.execute("UPDATE tb_post SET title = 'Changed' WHERE id = $1", changed)
        await connection.execute("DELETE FROM tb_post WHERE id = $1", gone)
        told = await signals(connection)
        assert await sync(connection, changed, gone, same, new) == {
            changed: "synced",
            gone: "removed",
            same: "unchanged",
            new: "synced",
        }
        assert [(await existing(connection, key)).version for key in (changed, gone, same, new)] == [2, 2, 1, 1]
        assert await signals(connection) == told + 3


async def commands(connection: asyncpg.Connection) -> int:
    """How many statements of this transaction have locked or written rows so far: PostgreSQL numbers them."""
    marked = await add_user(connection)
    return int(await connection.fetchval("SELECT cmin::text FROM tb_user WHERE id = $1", marked))


async def cost(connection: asyncpg.Connection, keys: Sequence[UUID], outcome: str) -> int:
    before = await commands(connection)
    found = await connection.fetch("SELECT * FROM fn_sync_post_stats($1)", keys)
    assert [row["outcome"] for row in found] == [outcome] * len(keys)
    return await commands(connection) - before


async def test_statements_do_not_grow_with_the_keys(shared_world: World) -> None:
    """Requirement 2, check 20.4: 3,000 keys with 30,000 comments take as many statements as 3 keys."""
    async with job(shared_world, shared_world.a) as connection:
        few = await add_posts(connection, 3)
        many = await add_posts(connection, 3000)
        await add_comments(connection, 10)
        assert await cost(connection, many, "synced") == await cost(connection, few, "synced") <= 6
        assert await cost(connection, many, "unchanged") == await cost(connection, few, "unchanged") <= 6


async def test_a_resync_takes_so_many_statements_per_chunk(shared_world: World) -> None:
    """Requirement 2: chunks of 500, each of which a job commits."""
    async with job(shared_world, shared_world.a) as connection:
        await add_posts(connection, 3000)
        await add_comments(connection, 10)
        before = await commands(connection)
        row = await connection.fetchrow(RESYNC)
        assert row is not None
        assert (row["last_key"], len(row["repaired"])) == (None, 3000)
        assert await commands(connection) - before <= 6 * 7
        versions = await connection.fetch("SELECT version, count(*) FROM tv_post_stats GROUP BY version")
        assert [tuple(each) for each in versions] == [(1, 3000)]
        written = await connection.fetchval("SELECT count(DISTINCT cmin::text) FROM tv_post_stats")
        assert written == 6
