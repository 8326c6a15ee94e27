"""Pattern 12: appends to one stream at the same time come one after the other."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.calls import replace_in_routine
from tests.conformance.patterns.orders import (
    CREATED,
    ITEM,
    WEIGHED,
    Orders,
    committing,
)
from tests.conformance.test_mutations import RED
from tests.conformance.world import World, bind


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy(ground: Ground) -> World:
    """These tests commit, and events cannot be deleted."""
    return await ground.world("shared")


async def waits_for_a_lock(world: World, task: asyncio.Task[Any]) -> None:
    """Until some session of the database waits, or the task has come to its end without waiting."""
    async with world.admin(world.a) as admin:
        while not task.done() and not await admin.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid IN "
            "(SELECT pid FROM pg_stat_activity WHERE datname = current_database()))"
        ):
            await asyncio.sleep(0)


async def an_append_waits_for_the_one_before(world: World) -> None:
    stream = uuid4()
    async with committing(world) as first:
        await first.append(stream, 0, CREATED)

        async def append(expected: int | None) -> Any:
            async with committing(world) as orders:
                return await orders.append(stream, expected, ITEM)

        unchecked = asyncio.create_task(append(None))
        await waits_for_a_lock(world, unchecked)
        late = asyncio.create_task(append(0))
    assert (await unchecked)["success"]
    assert (await late)["data"]["expected"] == 0
    async with committing(world) as orders:
        assert await orders.versions(stream) == [1, 2]


# acceptance 12.2
async def test_four_writers_append_to_one_stream_without_a_gap(busy: World) -> None:
    """Requirement 1: appends to one stream come one after the other, and none of them fails."""
    async with committing(busy) as orders:
        stream = await orders.started()

    async def writer() -> list[int]:
        given: list[int] = []
        async with busy.request(busy.a) as connection:
            for _ in range(200):
                async with connection.transaction():
                    await bind(connection, busy.a)
                    result = await Orders(connection, busy.a).append(stream, None, WEIGHED)
                    assert result["success"], result
                    given += result["data"]["versions"]
        return given

    given = await asyncio.gather(*(writer() for _ in range(4)))
    assert sorted(version for versions in given for version in versions) == list(range(2, 802))
    assert all(versions == sorted(versions) for versions in given)
    async with committing(busy) as orders:
        assert await orders.versions(stream) == list(range(1, 802))
        assert await orders.projection(stream) == await orders.folded(stream)


async def test_overlapping_appends_wait_for_each_other(busy: World) -> None:
    """Requirement 1."""
    await an_append_waits_for_the_one_before(busy)


async def test_without_the_lock_on_the_stream_appends_collide(ground: Ground) -> None:
    """Requirement 1, the guard taken out."""
    world = await ground.world("shared")
    await replace_in_routine(world, "fn_append_order_events(jsonb)", "PERFORM fn_lock_order(stream);", "")
    with pytest.raises(RED):
        await an_append_waits_for_the_one_before(world)


async def test_one_key_at_the_same_time_appends_once(busy: World) -> None:
    """Requirement 3, with truly concurrent calls."""
    async with committing(busy) as orders:
        stream = await orders.started()

    async def append() -> Any:
        async with committing(busy) as orders:
            return await orders.append(stream, None, ITEM, key="once")

    for result in await asyncio.gather(*(append() for _ in range(6))):
        assert result["data"]["versions"] == [2]
    async with committing(busy) as orders:
        assert await orders.versions(stream) == [1, 2]
