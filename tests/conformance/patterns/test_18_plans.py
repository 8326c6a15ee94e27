"""Posts, their projection and its feed are read by index under row-level security, as the role of a request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.plans import Plan, assert_indexed, explain
from tests.conformance.world import World

POSTS, EACH = 3_000, 10  # of each of two tenants; comments per post

POST = """
INSERT INTO tb_post (tenant_id, title, content, created_at)
SELECT tenant, 'Post ' || n, 'x', now() - n * interval '1 minute'
FROM unnest($1::uuid[]) AS tenant, generate_series(1, $2::integer) AS n
"""
COMMENT = """
INSERT INTO tb_comment (tenant_id, post_id, content, created_at)
SELECT tenant_id, id, 'x', created_at + n * interval '1 second' FROM tb_post, generate_series(1, $1::integer) AS n
"""
PROJECT = "INSERT INTO tv_post_stats SELECT tenant_id, id, '{}', 1, now() FROM tb_post"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def full(ground: Ground) -> World:
    """3,000 posts with 30,000 comments, and as many of another tenant."""
    world = await ground.world("shared")
    async with world.owner(world.a) as owner:
        await owner.execute(POST, [world.a.id, world.b.id], POSTS)
        await owner.execute(COMMENT, EACH)
        await owner.execute(PROJECT)
        await owner.execute("ANALYZE tb_post, tb_comment, tv_post_stats, tb_change")
    return world


@asynccontextmanager
async def reading(world: World) -> AsyncIterator[asyncpg.Connection]:
    async with world.within(world.a) as connection:
        path = f'"{world.a.schema}__api_v2", "{world.a.schema}", extensions, pg_temp'
        await connection.execute(f"SET LOCAL search_path = {path}")
        yield connection


async def some_post(connection: asyncpg.Connection) -> UUID:
    post: UUID = await connection.fetchval("SELECT id FROM tb_post ORDER BY id OFFSET 1500 LIMIT 1")
    return post


def assert_no_scan(plan: Plan) -> None:
    assert "Seq Scan" not in plan.types, str(plan)


async def test_a_page_of_posts(full: World) -> None:
    """The newest first: as many rows are read as are shown."""
    async with reading(full) as connection:
        page = await explain(
            connection,
            "SELECT data FROM posts WHERE tenant_id = $1 ORDER BY created_at DESC, id DESC LIMIT 20",
            (full.a.id,),
        )
        assert_indexed(page, "tb_post", "tenant_id")
        assert "tb_post_created_at" in page.indexes
        assert page.rows_read("tb_post") == 20


async def test_the_comments_of_a_post(full: World) -> None:
    async with reading(full) as connection:
        page = await explain(
            connection,
            "SELECT data FROM comments WHERE tenant_id = $1 AND post_id = $2 ORDER BY created_at DESC, id DESC LIMIT 5",
            (full.a.id, await some_post(connection)),
        )
        assert_no_scan(page)
        assert_indexed(page, "tb_comment", "tenant_id", "(post_id = ")
        assert page.rows_read("tb_comment") <= EACH


async def test_the_numbers_of_a_post(full: World) -> None:
    """One row of the projection and one of the posts, to see whether the viewer may; no comment is counted."""
    async with reading(full) as connection:
        one = await explain(
            connection,
            "SELECT data FROM post_stats WHERE tenant_id = $1 AND id = $2",
            (full.a.id, await some_post(connection)),
        )
        assert_indexed(one, "tv_post_stats", "tenant_id", "(id = ")
        assert one.rows_read("tv_post_stats") == one.rows_read("tb_post") == 1
        assert one.on("tb_comment") == []


async def test_what_a_sync_computes(full: World) -> None:
    """Of one post: its comments by index, those of the list newest first."""
    async with reading(full) as connection:
        one = await explain(
            connection,
            "SELECT data FROM v_post_stats WHERE tenant_id = $1 AND id = $2",
            (full.a.id, await some_post(connection)),
        )
        assert_no_scan(one)
        assert_indexed(one, "tb_post", "tenant_id", "(id = ")
        assert_indexed(one, "tb_comment", "tenant_id", "(post_id = ")
        assert one.rows_read("tb_comment") <= EACH + 5 + EACH


async def test_the_changes_since_a_transaction(full: World) -> None:
    """What a cache asks of an entity, and what a reader of the feed asks."""
    async with reading(full) as connection:
        horizon = await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
        newer = await explain(
            connection,
            "SELECT 1 FROM tb_change WHERE tenant_id = $1 AND entity = $2 AND transaction_id >= $3::text::xid8",
            (full.a.id, "tv_post_stats", horizon),
        )
        assert_indexed(newer, "tb_change", "tenant_id", "(entity = ", "(transaction_id >= ")
        page = await explain(
            connection,
            "SELECT * FROM tb_change WHERE tenant_id = $1 AND (transaction_id, id) > ($2::text::xid8, $3)"
            " ORDER BY transaction_id, id LIMIT 100",
            (full.a.id, "0", UUID(int=0)),
        )
        assert_indexed(page, "tb_change", "tenant_id", "ROW(transaction_id, id) >")
        assert page.rows_read("tb_change") == 100
