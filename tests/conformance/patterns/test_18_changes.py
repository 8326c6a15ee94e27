"""Pattern 18, requirement 3: tb_change tells of each real change once, and loses none."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.conformance.patterns.posts import (
    call,
    new_author,
    opened,
    signals,
    undone,
    write_comment,
    write_post,
)
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World

FIRST = UUID(int=0)
READ = "SELECT * FROM tenancy.read_changes('tb_change', $1::text::xid8, $2, $3)"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tv_post_stats SET synced_at = now()",
        "UPDATE tv_post_stats SET data = data, version = version",
        "UPDATE tv_post_stats SET version = 99 WHERE false",
        "INSERT INTO tv_post_stats SELECT * FROM tv_post_stats ON CONFLICT DO NOTHING",
        "INSERT INTO tv_post_stats SELECT * FROM tv_post_stats"
        " ON CONFLICT (tenant_id, id) DO UPDATE SET synced_at = now()",
    ],
)
async def test_statements_that_change_nothing_tell_nothing(crowd: World, statement: str) -> None:
    async with opened(crowd, crowd.a) as connection:
        await write_post(connection, crowd.a)
        await connection.execute("COMMIT")
    async with crowd.owner(crowd.a) as connection, connection.transaction():
        told = await signals(connection)
        await connection.execute(statement)
        assert await signals(connection) == told


async def test_a_statement_tells_of_each_row_that_it_changed(crowd: World) -> None:
    """An upsert that inserts one row and updates another fires both triggers, and tells of each row once."""
    async with opened(crowd, crowd.a) as connection:
        post = await write_post(connection, crowd.a)
        await connection.execute("COMMIT")
    new = uuid4()
    async with crowd.owner(crowd.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            """
            INSERT INTO tv_post_stats (tenant_id, id, data, version, synced_at)
            SELECT $1, id, '{}', 1, now() FROM unnest($2::uuid[]) AS id
            ON CONFLICT (tenant_id, id) DO UPDATE SET data = excluded.data, version = tv_post_stats.version + 1
            """,
            crowd.a.id,
            [post, new],
        )
        found = await connection.fetch(
            "SELECT key, version, entity FROM tb_change WHERE transaction_id = pg_current_xact_id()"
        )
        assert {tuple(row) for row in found} == {(post, 2, "tv_post_stats"), (new, 1, "tv_post_stats")}
        await transaction.rollback()


async def test_nothing_is_truncated_or_deleted_in_silence(crowd: World) -> None:
    async with opened(crowd, crowd.a) as connection:
        await write_post(connection, crowd.a)
        await connection.execute("COMMIT")
    async with crowd.owner(crowd.a) as connection:
        assert await sqlstate_of(connection, "TRUNCATE tv_post_stats") == "55000"
        assert await sqlstate_of(connection, "DELETE FROM tv_post_stats WHERE tenant_id = $1", crowd.a.id) == "55000"


async def test_a_tenant_that_goes_takes_its_projections_and_signals_along(scratch: World) -> None:
    await new_author(scratch, scratch.a)
    async with scratch.within(scratch.a) as connection:
        post = await write_post(connection, scratch.a)
        await write_comment(connection, scratch.a, post)
    await scratch.set_state(scratch.a, "deleting")
    async with scratch.admin(scratch.a) as connection:
        await connection.execute("SELECT tenancy.erase_tenant($1)", scratch.a.id)
    if scratch.mode == "shared":
        async with scratch.owner(scratch.a) as connection:
            for table in ("tv_post_stats", "tb_change", "tb_comment", "tb_post"):
                left = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", scratch.a.id)
                assert left == 0, table


async def read_on(connection: asyncpg.Connection, position: tuple[str, UUID], limit: int) -> list[asyncpg.Record]:
    return list(await connection.fetch(READ, *position, limit))


def after(rows: list[asyncpg.Record]) -> tuple[str, UUID]:
    return str(rows[-1]["transaction_id"]), rows[-1]["id"]


async def test_what_is_not_committed_is_not_told(world: World) -> None:
    """Not to its own transaction either."""
    async with undone(world, world.a) as connection:
        await write_post(connection, world.a)
        assert await signals(connection) == 1
        assert await connection.fetch("SELECT * FROM tenancy.read_changes('tb_change')") == []


async def test_a_late_commit_is_not_skipped(crowd: World) -> None:
    """A transaction that began first and commits last: a reader that read on in between still gets its rows."""
    async with opened(crowd, crowd.b) as early, opened(crowd, crowd.b) as late, crowd.request(crowd.b) as reader:
        first = await write_post(early, crowd.b, "early")  # takes its transaction id
        second = await write_post(late, crowd.b, "late")
        await late.execute("COMMIT")

        async def read() -> list[UUID]:
            """The keys of the two, as a reader gets them who goes on row by row."""
            keys: list[UUID] = []
            position = ("0", FIRST)
            while True:
                async with reader.transaction():
                    await reader.execute("SELECT tenancy.set_tenant_context($1, $2)", crowd.b.id, crowd.b.user_id)
                    rows = await read_on(reader, position, 1)
                if not rows:
                    return [key for key in keys if key in (first, second)]
                keys.append(rows[0]["key"])
                position = after(rows)

        assert await read() == []  # the later one is committed, the earlier one still runs
        await early.execute("COMMIT")
        async with asyncio.timeout(30):  # any transaction on the server may hold the feed back
            while len(keys := await read()) < 2:
                await asyncio.sleep(0.05)
        assert keys == [first, second]


async def test_a_tenant_reads_its_own_feed(crowd: World) -> None:
    async with opened(crowd, crowd.a) as connection:
        post = await write_post(connection, crowd.a)
        await call(connection, crowd.a, "update_post", id=post, title="Changed")
        await connection.execute("COMMIT")
    async with crowd.within(crowd.a) as connection:
        rows = await read_on(connection, ("0", FIRST), 500)
        told = [(row["entity"], row["version"]) for row in rows if row["key"] == post]
        assert sorted(told) == [("tv_post_stats", 1), ("tv_post_stats", 2)]
    async with crowd.within(crowd.b) as connection:
        assert post not in {row["key"] for row in await read_on(connection, ("0", FIRST), 500)}


async def test_old_changes_are_purged_in_batches(crowd: World) -> None:
    async with crowd.owner(crowd.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO tb_change (tenant_id, entity, key, version, changed_at)"
            " SELECT $1, 'old', gen_random_uuid(), 1, now() - interval '8 days' FROM generate_series(1, 25)",
            crowd.a.id,
        )
        kept = await connection.fetchval("SELECT count(*) FROM tb_change WHERE entity <> 'old'")
        purge = "SELECT tenancy.purge_changes('tb_change', interval '7 days', 10)"
        assert [await connection.fetchval(purge) for _ in range(4)] == [10, 10, 5, 0]
        assert await connection.fetchval("SELECT count(*) FROM tb_change") == kept
        await transaction.rollback()
