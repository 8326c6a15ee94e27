"""Pattern 18: a row of tv_post_stats equals its recomputation, and its version rises by one per change."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conformance.patterns.posts import (
    add_user,
    be,
    call,
    existing,
    signals,
    stored,
    sync,
    undone,
    write_comment,
    write_post,
)
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World


async def recomputed(connection: asyncpg.Connection, post: UUID) -> str | None:
    text: str | None = await connection.fetchval("SELECT data::text FROM v_post_stats WHERE id = $1", post)
    return text


async def test_a_projection_is_there_with_its_source(world: World) -> None:
    """Requirement 1: the mutation that makes the source has synced the projection."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a, "Hello")
        row = await existing(connection, post)
        assert row == (await recomputed(connection, post), 1)
        assert row.data["title"] == "Hello"
        assert row.data["author"] == {"__typename": "UserCard", "id": str(world.a.user_id), "name": "Ada"}


async def test_each_change_is_one_version_and_one_signal(world: World) -> None:
    """Requirements 2 and 3: strictly one more per real change, told of once."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        for number in range(1, 4):
            comment = await write_comment(connection, world.a, post)
            row = await existing(connection, post)
            assert (row.data["comment_count"], row.version) == (number, number + 1)
            assert await signals(connection, post) == number + 1
        await call(connection, world.a, "delete_comment", id=comment)
        row = await existing(connection, post)
        assert (row.data["comment_count"], row.version, row.text) == (2, 5, await recomputed(connection, post))
        assert await signals(connection, post) == 5
        versions = await connection.fetch("SELECT version FROM tb_change WHERE key = $1 ORDER BY version", post)
        assert [version for (version,) in versions] == [1, 2, 3, 4, 5]


async def test_a_sync_without_a_change_leaves_no_trace(world: World) -> None:
    """Requirements 2 and 3, check 18.2: version, row and signals stay."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        row = "SELECT data::text, version, synced_at, xmin::text, ctid::text FROM tv_post_stats WHERE id = $1"
        before = await connection.fetchrow(row, post)
        told = await signals(connection)
        assert await sync(connection, post) == {post: "unchanged"}
        result = await call(connection, world.a, "update_post", id=post, title="Post")
        assert result["success"]
        assert await connection.fetchrow(row, post) == before
        assert await signals(connection) == told


@pytest.mark.parametrize("mode_of_naming", ["unknown", "null", "nothing", "null array"])
async def test_a_key_that_is_nowhere_is_said_to_be_nowhere(world: World, mode_of_naming: str) -> None:
    """Check 18.2: no row, no signal, an explicit not_found."""
    unknown = uuid4()
    async with undone(world, world.a) as connection:
        told = await signals(connection)
        if mode_of_naming == "null array":
            assert await connection.fetch("SELECT * FROM fn_sync_post_stats(NULL)") == []
        else:
            named: dict[str, list[UUID | None]] = {"unknown": [unknown], "null": [None], "nothing": []}
            keys = named[mode_of_naming]
            expected = {unknown: "not_found"} if mode_of_naming == "unknown" else {}
            assert await sync(connection, *keys) == expected
        assert await stored(connection, unknown) is None
        assert await signals(connection) == told


async def test_versions_go_on_when_a_key_comes_back(world: World) -> None:
    """Requirement 2: for the life of the key, through deletion and re-creation; requirement 4: deletion signals."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        await write_comment(connection, world.a, post)
        assert (await call(connection, world.a, "delete_post", id=post))["success"]
        assert await stored(connection, post) == (None, 3)
        assert await signals(connection, post) == 3
        assert await sync(connection, post) == {post: "not_found"}
        assert await signals(connection, post) == 3

        await connection.execute("INSERT INTO tb_post (id, title, content) VALUES ($1, 'Again', 'x')", post)
        assert await sync(connection, post) == {post: "synced"}
        row = await existing(connection, post)
        assert (row.version, row.data["title"], row.data["comment_count"]) == (4, "Again", 0)
        assert row.data["author"] == {"__typename": "UserCard", "id": None, "name": "[deleted]"}


async def test_what_is_gone_is_gone_for_readers(world: World) -> None:
    """Requirement 4: the API shows rows with data only, and deleting a source is not refused."""
    async with undone(world, world.a) as connection:
        kept, gone = await write_post(connection, world.a), await write_post(connection, world.a)
        await call(connection, world.a, "delete_post", id=gone)
        shown = await connection.fetch(f'SELECT id FROM "{world.a.schema}__api_v2".post_stats')
        assert [id_ for (id_,) in shown] == [kept]


async def test_lists_are_bounded_and_empty_means_empty(world: World) -> None:
    """Requirement 4, check 18.4: the five newest first; without comments [] and 0."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        empty = (await existing(connection, post)).data
        assert (empty["latest_comments"], empty["comment_count"]) == ([], 0)
        assert empty["last_activity_at"] == empty["created_at"]
        for number in range(20):
            await write_comment(connection, world.a, post, f"number {number}")
        full = (await existing(connection, post)).data
        assert full["comment_count"] == 20
        assert [c["content"] for c in full["latest_comments"]] == [f"number {n}" for n in (19, 18, 17, 16, 15)]
        assert full["last_activity_at"] == full["latest_comments"][0]["created_at"]


async def test_a_session_of_another_zone_changes_nothing(world: World) -> None:
    """Requirement 4: one instant, one text."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        await connection.execute("SET LOCAL timezone = 'Asia/Tokyo'")
        assert "+09:00" in str(await recomputed(connection, post))
        assert await sync(connection, post) == {post: "unchanged"}
        await write_comment(connection, world.a, post)
        assert "+09:00" not in str((await existing(connection, post)).text)


async def test_requests_write_no_projection_and_no_signal(world: World) -> None:
    """Requirement 3: signals come from the projection only, which functions alone write."""
    async with undone(world, world.a) as connection:
        post = await write_post(connection, world.a)
        for statement in (
            "UPDATE tv_post_stats SET version = 99",
            "DELETE FROM tv_post_stats",
            "INSERT INTO tv_post_stats VALUES (tenancy.current_tenant_id(), gen_random_uuid(), '{}', 1, now())",
            "TRUNCATE tv_post_stats",
            "INSERT INTO tb_change (entity, key, version) VALUES ('tv_post_stats', gen_random_uuid(), 1)",
            "DELETE FROM tb_change",
            "SELECT * FROM tenancy.sync_projection('tv_post_stats', 'v_post_stats', 'tb_post', '{}')",
        ):
            assert await sqlstate_of(connection, statement) == "42501", statement
        assert (await existing(connection, post)).version == 1


async def test_the_stored_document_is_the_same_for_every_viewer(world: World) -> None:
    """Requirement 1: who syncs makes no difference, and whom a viewer may not see stands in no stored card."""
    async with undone(world, world.a) as connection:
        other = await add_user(connection, name="Grace")
        post = await write_post(connection, world.a)
        secret = await write_post(connection, world.a, is_private=True)
        await write_comment(connection, world.a, post)
        before = await existing(connection, post)
        await be(connection, world.a, other)
        assert await sync(connection, post, secret) == {post: "unchanged", secret: "unchanged"}
        assert await existing(connection, post) == before
        shown = await connection.fetch(f'SELECT id FROM "{world.a.schema}__api_v2".post_stats')
        assert [id_ for (id_,) in shown] == [post]

        await be(connection, world.a, world.a.user_id)
        await call(connection, world.a, "update_person", id=world.a.user_id, listed=False)
        hidden = (await existing(connection, post)).data
        assert hidden["author"]["name"] == hidden["latest_comments"][0]["author"]["name"] == "[deleted]"
