"""Pattern 21: the cache stays small, and is read by index."""

from __future__ import annotations

import json
from uuid import UUID

import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.patterns.queries import (
    counting_world,
    expire,
    forget,
    status,
    stored_answers,
)
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def committed(ground: Ground, mode: str) -> World:
    return await counting_world(ground, mode)


@pytest_asyncio.fixture
async def counting(committed: World) -> World:
    """Two tenants with the query `counted` and nothing in the cache."""
    return await forget(committed)


async def test_expired_answers_are_evicted_in_batches(counting: World) -> None:
    """Requirement 5: of all tenants of the home, by the index, never more than a batch at once."""
    world, member = counting, counting.a
    for asked in range(5):
        async with world.within(member) as connection:
            await status(connection, member, count=asked)
    async with world.within(world.b) as connection:
        await status(connection, world.b)
    evict = "SELECT tenancy.evict_cached_results('tb_cached_result', interval '10 minutes', $1)"
    async with world.owner(member) as connection:
        assert await connection.fetchval(evict, 10) == 0
        await expire(world, member, "9 minutes")
        assert await connection.fetchval(evict, 10) == 0
        await expire(world, member, "11 minutes")
        if world.mode == "shared":
            await expire(world, world.b, "11 minutes")
        deleted = [await connection.fetchval(evict, 2) for _ in range(4)]
        assert deleted == ([2, 2, 2, 0] if world.mode == "shared" else [2, 2, 1, 0])
    assert await stored_answers(world, member) == []
    async with world.request(member) as connection:
        assert await sqlstate_of(connection, evict, 10) == "42501"


async def test_a_tenant_has_a_quota(counting: World) -> None:
    """Requirement 5: 1000 answers and 32 MiB, and those that expire first make room."""
    world, member = counting, counting.a
    fill = """
        INSERT INTO tb_cached_result
            (tenant_id, id, request, data, bytes, snapshot, transaction_id, computed_at, expires_at)
        SELECT $1, gen_random_uuid(), '{}', '1', $3, pg_current_snapshot(), '3', now(), now() + n * interval '1 s'
        FROM generate_series(1, $2::integer) AS n
    """
    for rows, size, left in ((1000, 10, 901), (10, 4_000_000, 1)):
        async with world.owner(member) as connection:
            await connection.execute("DELETE FROM tb_cached_result")
            await connection.execute(fill, member.id, rows, size)
        async with world.within(member) as connection:
            assert await status(connection, member) == "miss"
        async with world.within(member) as connection:
            assert await status(connection, member) == "hit"
        assert len(await stored_answers(world, member)) == left


async def test_the_cache_is_unlogged(counting: World) -> None:
    """Requirement 5: losing it is harmless, and an answer of before a restart is not found."""
    world, member = counting, counting.a
    async with world.owner(member) as connection:
        kind = await connection.fetchval("SELECT relpersistence FROM pg_class WHERE oid = 'tb_cached_result'::regclass")
    assert kind == b"u"
    async with world.within(member) as connection:
        assert await status(connection, member) == "miss"
    [row] = await stored_answers(world, member)
    async with world.admin(member) as connection:
        started = await connection.fetchval("SELECT to_jsonb(pg_postmaster_start_time())")
    assert json.loads(started) in json.loads(row["request"])["place"]


async def test_the_plans_go_by_index(ground: Ground) -> None:
    """Requirements 1, 3 and 5: one answer, the changes since it was computed, and what has expired, and no more."""
    world = await ground.world("shared")
    async with world.owner(world.a) as connection:
        await connection.execute(
            """
            INSERT INTO tb_cached_result
                (tenant_id, id, request, data, bytes, snapshot, transaction_id, computed_at, expires_at)
            SELECT t, ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, '{}', '1', 1,
                   pg_current_snapshot(), pg_current_xact_id(), now(), now() + n * interval '1 s'
            FROM unnest($1::uuid[]) AS t, generate_series(1, 5000) AS n
            """,
            [world.a.id, world.b.id],
        )
        await connection.execute(
            """
            INSERT INTO tb_change (tenant_id, entity, key, version, transaction_id)
            SELECT t, 'tv_post_stats', gen_random_uuid(), 1, (n % 700 + 3)::text::xid8
            FROM unnest($1::uuid[]) AS t, generate_series(1, 20000) AS n
            """,
            [world.a.id, world.b.id],
        )
        await connection.execute("ANALYZE tb_cached_result, tb_change")
    async with world.admin(world.a) as connection, connection.transaction():
        await connection.execute(f'SET LOCAL search_path = "{world.a.schema}"; SET LOCAL ROLE cp_definer')
        await connection.execute("SELECT set_config('app.current_tenant_id', $1, true)", str(world.a.id))
        plan = await explain(
            connection,
            "SELECT data, snapshot FROM tb_cached_result WHERE tenant_id = $1 AND id = $2 AND request = $3",
            [world.a.id, UUID(int=0x77), "{}"],
        )
        assert_indexed(plan, "tb_cached_result", "tenant_id", "id = ")
        assert plan.rows_read("tb_cached_result") == 1
        plan = await explain(
            connection,
            """
            SELECT FROM tb_change
            WHERE tenant_id = $1 AND entity = ANY ($2) AND transaction_id >= pg_snapshot_xmin($3)
              AND (NOT pg_visible_in_snapshot(transaction_id, $3) OR transaction_id = $4)
            """,
            [world.a.id, ["tv_post_stats"], (700, 710, []), 705],
        )
        assert_indexed(plan, "tb_change", "tenant_id", "transaction_id >= ")
        assert plan.rows_read("tb_change") <= 100
    async with world.owner(world.a) as connection:
        plan = await explain(
            connection,
            """
            SELECT id FROM tb_cached_result WHERE tenant_id = $1 AND expires_at < now() + interval '10 s'
            ORDER BY expires_at LIMIT 100
            """,
            [world.a.id],
        )
        assert_indexed(plan, "tb_cached_result", "tenant_id", "expires_at <")
