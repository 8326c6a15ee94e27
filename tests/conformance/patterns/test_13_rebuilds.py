"""Pattern 13: what is folded from the events is folded again whenever that is asked for."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.orders import (
    CANCELLED,
    DELIVERED,
    ITEM,
    NOTE,
    SHIPPED,
    act_as,
    committing,
    ordering,
)
from tests.conformance.world import World


# acceptance 13.3
@pytest.mark.parametrize("damage", ["DELETE FROM tv_order", 'UPDATE tv_order SET data = data || \'{"status": "x"}\''])
async def test_a_lost_or_damaged_projection_comes_back(ground: Ground, mode: str, damage: str) -> None:
    world = await ground.world(mode)
    async with committing(world) as orders:
        stream = await orders.started(ITEM, NOTE)
        before = await orders.projection(stream)
    async with world.owner(world.a) as connection:
        await connection.execute(damage)
    async with committing(world) as orders:
        assert await orders.projection(stream) != before
        assert (await orders.call("rebuild_order", id=stream))["data"]["order"] == before
        assert await orders.projection(stream) == before


async def test_an_append_finds_its_way_without_a_projection(ground: Ground) -> None:
    """Requirement 1: a projection that is lost or behind is folded anew by the next append."""
    world = await ground.world("shared")
    async with committing(world) as orders:
        lost, behind = await orders.started(ITEM, SHIPPED), await orders.started(ITEM, SHIPPED)
    async with world.owner(world.a) as connection:
        await connection.execute("DELETE FROM tv_order WHERE id = $1", lost)
        await connection.execute(
            "UPDATE tv_order SET version = 1, data = data || '{\"version\": 1}' WHERE id = $1", behind
        )
    async with committing(world) as orders:
        for stream in (lost, behind):
            assert (await orders.append(stream, 3, CANCELLED))["code"] == "invalid"  # the status is that of the events
            assert (await orders.append(stream, 3, DELIVERED))["success"]
            assert await orders.projection(stream) == await orders.folded(stream)


# requirement 4
async def test_all_orders_are_rebuilt_in_chunks_that_tell_where_they_are(ground: Ground, mode: str) -> None:
    world = await ground.world(mode)
    async with committing(world) as orders:
        streams = sorted([await orders.started(*[ITEM] * n) for n in range(7)])
        before = [await orders.projection(stream) for stream in streams]
    async with world.owner(world.a) as connection:
        await connection.execute("DELETE FROM tv_order WHERE id = $1", streams[2])
        await connection.execute("UPDATE tv_order SET version = 77, data = data || '{\"version\": 77}'")
        # One that has no events.
        await connection.execute(
            "INSERT INTO tv_order (tenant_id, id, data, version, created_at) VALUES ($1, $2, $3, 1, now())",
            world.a.id,
            UUID(int=1),
            '{"status": "pending"}',
        )
    place: str | None = None
    progress = []
    while True:
        async with committing(world) as orders:  # each chunk is a transaction of its own
            result = await orders.call("rebuild_orders", after=place, limit=3)
        place = result["data"]["next"]
        progress.append(result["data"]["rebuilt"])
        if place is None:
            break
        assert place == str(streams[sum(progress) - 1])
    assert progress == [3, 3, 1]
    async with committing(world) as orders:
        assert [await orders.projection(stream) for stream in streams] == before
        assert await orders.connection.fetchval("SELECT count(*) FROM tv_order") == 7


async def test_readers_keep_the_old_document_while_it_is_rebuilt(ground: Ground) -> None:
    """Requirement 4: nobody waits for a rebuild, and nobody sees a half of it."""
    world = await ground.world("shared")
    async with committing(world) as orders:
        streams = [await orders.started(ITEM) for _ in range(3)]
    async with world.owner(world.a) as connection:
        await connection.execute('UPDATE tv_order SET data = data || \'{"status": "old"}\'')
    read = f'SELECT status FROM "{world.a.schema}__api_v2".orders'
    async with committing(world) as orders:
        assert (await orders.call("rebuild_orders"))["data"] == {"rebuilt": 3, "next": None}
        async with world.within(world.a, read_only=True) as reader:
            await reader.execute("SET LOCAL lock_timeout = 1")  # it takes no lock that the rebuild holds
            assert [row["status"] for row in await reader.fetch(read)] == ["old"] * 3
    async with world.within(world.a) as reader:
        assert [row["status"] for row in await reader.fetch(read)] == ["pending"] * len(streams)


async def test_an_order_is_replayed_as_of_a_version_or_a_time(world: World) -> None:
    """Requirement 4."""
    async with ordering(world) as orders:
        stream = await orders.started(ITEM)
        early = await orders.connection.fetchval("SELECT clock_timestamp()")
        await orders.append(stream, None, ITEM, SHIPPED)
        await act_as(orders.connection, world.a)
        for given, version, status, items in (
            ({}, 4, "shipped", 2),
            ({"as_of_version": 1}, 1, "pending", 0),
            ({"as_of_version": 3}, 3, "pending", 2),
            ({"as_of_version": 99}, 4, "shipped", 2),
            ({"as_of_time": early}, 2, "pending", 1),
            ({"as_of_time": early, "as_of_version": 1}, 1, "pending", 0),
        ):
            order = (await orders.call("replay_order", id=stream, **given))["data"]["order"]
            assert (order["version"], order["status"], order["item_count"]) == (version, status, items)
        before = await orders.call("replay_order", id=stream, as_of_time="2001-01-01T00:00:00Z")
        assert before["code"] == "not_found"
        assert (await orders.projection(stream))["version"] == 4  # a look back writes nothing


async def test_a_session_in_another_time_zone_rebuilds_the_same_text(shared_world: World) -> None:
    """Requirement 1: an instant is one text, whoever folds."""
    async with ordering(shared_world) as orders:
        stream = await orders.started(ITEM)
        before = await orders.projection(stream)
        assert before["created_at"].endswith("+00:00")
        await orders.connection.execute("SET LOCAL timezone = 'Pacific/Kiritimati'")
        assert (await orders.call("rebuild_order", id=stream))["success"]
        assert await orders.projection(stream) == before
