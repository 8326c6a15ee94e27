"""A writing transaction that began before a state change neither commits late nor holds the change up for ever."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from control_plane.isolation import isolation_of
from tests.conformance.world import World, bind


async def fence(world: World) -> None:
    await isolation_of(world.mode).fence(world.databases, world.cluster, world.a.home, world.a.tenant)


async def test_a_fence_waits_for_a_writer_that_began_before(world: World) -> None:
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await bind(connection, world.a)
        await connection.execute("INSERT INTO tb_project (name) VALUES ('late')")
        await world.set_state(world.a, "suspended")
        try:
            fencing = asyncio.create_task(fence(world))
            await asyncio.sleep(0.3)
            assert not fencing.done()
            await transaction.commit()
            await fencing
        finally:
            await world.set_state(world.a, "active")
    async with world.within(world.a) as connection:
        assert await connection.execute("DELETE FROM tb_project WHERE name = 'late'") == "DELETE 1"


async def test_a_writer_that_does_not_end_is_ended(scratch: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from control_plane.isolation import state

    monkeypatch.setattr(state, "_FENCE_WAIT", 1)
    world = scratch
    async with world.request(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await bind(connection, world.a)
        await connection.execute("INSERT INTO tb_project (name) VALUES ('lost')")
        await world.set_state(world.a, "suspended")
        await fence(world)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.execute("SELECT 1")
    await world.set_state(world.a, "active")
    async with world.within(world.a) as check:
        assert await check.fetchval("SELECT count(*) FROM tb_project WHERE name = 'lost'") == 0


async def test_a_reader_does_not_hold_a_fence_up(world: World) -> None:
    async with world.within(world.a, read_only=True) as connection:
        await fence(world)
        assert await connection.fetchval("SELECT count(*) FROM tb_project") == 3


async def test_a_writer_that_comes_after_is_refused(world: World) -> None:
    await world.set_state(world.a, "suspended")
    try:
        await fence(world)
        async with world.request(world.a) as connection:
            with pytest.raises(asyncpg.PostgresError) as raised:
                await bind(connection, world.a)
            assert raised.value.sqlstate == "TN403"
    finally:
        await world.set_state(world.a, "active")
