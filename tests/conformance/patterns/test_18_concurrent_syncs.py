"""Pattern 18, requirements 1, 3 and 5: many writers, no lost update, no version that goes back, no deadlock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest

from tests.conformance.patterns.posts import (
    add_user,
    be,
    call,
    drifted,
    existing,
    job,
    opened,
    signals,
    stored,
    sync,
    until_blocked,
    write_comment,
    write_post,
)
from tests.conformance.world import World, bind

WRITERS = 8
EACH = 25


async def committed_posts(world: World, number: int) -> list[UUID]:
    """In ascending order of their keys."""
    async with world.within(world.a) as connection:
        return sorted([await write_post(connection, world.a, f"Post {n}") for n in range(number)])


async def test_two_overlapping_comments_are_two(crowd: World) -> None:
    """Check 18.1: the second waits, then counts both."""
    (post,) = await committed_posts(crowd, 1)
    async with opened(crowd, crowd.a) as first, opened(crowd, crowd.a) as second:
        await write_comment(first, crowd.a, post)
        waiting = asyncio.create_task(write_comment(second, crowd.a, post))
        async with crowd.admin(crowd.a) as watcher:
            await until_blocked(watcher, second)
        await first.execute("COMMIT")
        await waiting
        await second.execute("COMMIT")
    async with crowd.within(crowd.a) as connection:
        assert await connection.fetchval("SELECT count(*) FROM tb_comment WHERE post_id = $1", post) == 2
        row = await existing(connection, post)
        assert (row.data["comment_count"], row.version) == (2, 3)


async def test_overlapping_syncs_compute_after_the_lock(crowd: World) -> None:
    """Requirement 1: of sync alone, without the lock that a mutation takes before it."""
    for _ in range(5):
        (post,) = await committed_posts(crowd, 1)
        insert = "INSERT INTO tb_comment (post_id, content) VALUES ($1, 'behind the functions')"
        async with opened(crowd, crowd.a) as first, opened(crowd, crowd.a) as second:
            await first.execute(insert, post)
            await second.execute(insert, post)
            assert await sync(first, post) == {post: "synced"}
            waiting = asyncio.create_task(sync(second, post))
            async with crowd.admin(crowd.a) as watcher:
                await until_blocked(watcher, second)
            await first.execute("COMMIT")
            assert await waiting == {post: "synced"}
            await second.execute("COMMIT")
        async with crowd.within(crowd.a) as connection:
            row = await existing(connection, post)
            assert (row.data["comment_count"], row.version) == (2, 3)


async def test_eight_writers_of_one_post(crowd: World) -> None:
    """Check 18.1, second half: 8 × 25 comments are 200, and the version has risen by 200."""
    (post,) = await committed_posts(crowd, 1)

    async def write() -> None:
        async with crowd.request(crowd.a) as connection:
            for _ in range(EACH):
                async with connection.transaction():
                    await bind(connection, crowd.a)
                    await write_comment(connection, crowd.a, post)

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    async with crowd.within(crowd.a) as connection:
        row = await existing(connection, post)
        assert (row.data["comment_count"], row.version) == (WRITERS * EACH, 1 + WRITERS * EACH)
        assert await signals(connection, post) == 1 + WRITERS * EACH


async def test_opposite_orders_do_not_deadlock(crowd: World) -> None:
    """Requirement 5: whatever order the keys are given in, they are locked in ascending order."""
    posts = await committed_posts(crowd, 20)

    async def write(keys: Sequence[UUID]) -> None:
        async with crowd.request(crowd.a) as connection:
            for _ in range(10):
                async with connection.transaction():
                    await bind(connection, crowd.a)
                    await connection.execute(
                        "INSERT INTO tb_comment (post_id, content) SELECT unnest($1::uuid[]), 'x'", keys
                    )
                    assert set((await sync(connection, *keys)).values()) == {"synced"}

    await asyncio.gather(*(write(keys) for keys in (posts, posts[::-1]) * 3))
    async with crowd.within(crowd.a) as connection:
        for post in posts:
            row = await existing(connection, post)
            assert (row.data["comment_count"], row.version) == (60, 61)


async def test_unrelated_keys_do_not_wait(crowd: World) -> None:
    """Requirement 3: no hot row; a writer of another post finishes while the first is still open."""
    one, other = await committed_posts(crowd, 2)
    async with opened(crowd, crowd.a) as first, opened(crowd, crowd.a) as second:
        await write_comment(first, crowd.a, one)
        await second.execute("SET LOCAL lock_timeout = '2s'")
        await write_comment(second, crowd.a, other)
        await second.execute("COMMIT")
        await first.execute("ROLLBACK")


async def test_a_snapshot_that_is_too_old_is_refused(crowd: World) -> None:
    """Requirement 1: under REPEATABLE READ a conflict is 40001, which the service tries again."""
    (post,) = await committed_posts(crowd, 1)
    async with opened(crowd, crowd.a, "REPEATABLE READ") as late, opened(crowd, crowd.a) as early:
        await late.execute("SELECT FROM tb_post")  # takes the snapshot
        await write_comment(early, crowd.a, post)
        await early.execute("COMMIT")
        with pytest.raises(asyncpg.SerializationError):
            await write_comment(late, crowd.a, post)
        await late.execute("ROLLBACK")
    async with crowd.within(crowd.a) as connection:
        assert (await existing(connection, post)).version == 2


async def test_a_post_is_deleted_while_others_comment_on_it(crowd: World) -> None:
    """Requirement 5: all functions lock in one order; what comes too late finds nothing."""
    for _ in range(10):
        (post,) = await committed_posts(crowd, 1)
        async with crowd.within(crowd.a) as connection:
            comments = [await write_comment(connection, crowd.a, post) for _ in range(3)]

        async def act(function: str, field: str, value: object) -> str:
            fields = {field: value} if function != "create_comment" else {field: value, "content": "late"}
            async with crowd.within(crowd.a) as connection:
                return str((await call(connection, crowd.a, function, **fields))["code"])

        codes = await asyncio.gather(
            *(act("delete_comment", "id", comment) for comment in comments),
            act("delete_post", "id", post),
            *(act("create_comment", "post_id", post) for _ in range(3)),
        )
        assert set(codes) <= {"created", "deleted", "not_found"}
        assert codes[3] == "deleted"
        async with crowd.within(crowd.a) as connection:
            row = await stored(connection, post)
            assert row is not None
            assert row.text is None


async def test_a_card_that_changes_meanwhile_is_not_stored_as_it_was(crowd: World) -> None:
    """A comment is being written under the old name while its author takes a new one: the projection has the new."""
    (post,) = await committed_posts(crowd, 1)
    async with crowd.within(crowd.a) as connection:
        author = await add_user(connection, name="Before")
    async with opened(crowd, crowd.a) as writer, opened(crowd, crowd.a) as renamer:
        await be(writer, crowd.a, author)
        await be(renamer, crowd.a, author)
        await write_comment(writer, crowd.a, post)
        renaming = asyncio.create_task(call(renamer, crowd.a, "update_person", id=author, name="After"))
        async with crowd.admin(crowd.a) as watcher:
            await until_blocked(watcher, renamer)
        await writer.execute("COMMIT")
        assert (await renaming)["success"]
        await renamer.execute("COMMIT")
    async with crowd.within(crowd.a) as connection:
        latest = (await existing(connection, post)).data["latest_comments"]
        assert [comment["author"]["name"] for comment in latest] == ["After"]
    async with job(crowd, crowd.a) as connection:
        assert await drifted(connection) == []


async def test_a_key_of_another_tenant_is_a_key_that_is_nowhere(crowd: World) -> None:
    (post,) = await committed_posts(crowd, 1)
    async with crowd.within(crowd.a) as connection:
        before = await existing(connection, post)
        await connection.execute("UPDATE tb_post SET title = 'behind the functions' WHERE id = $1", post)
    async with crowd.within(crowd.b) as connection:
        assert await sync(connection, post) == {post: "not_found"}
        assert await stored(connection, post) is None
    async with crowd.within(crowd.a) as connection:
        assert await existing(connection, post) == before
        assert await sync(connection, post) == {post: "synced"}
