"""Pattern 12: a feed over all streams, which loses nothing and repeats nothing."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.calls import replace_in_routine
from tests.conformance.patterns.orders import (
    INSERT,
    ITEM,
    WEIGHED,
    Orders,
    committing,
    consumed,
    ordering,
)
from tests.conformance.test_mutations import RED
from tests.conformance.world import World, bind


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy(ground: Ground) -> World:
    """These tests commit, and events cannot be deleted."""
    return await ground.world("shared")


async def the_late_committer_is_not_skipped(world: World, *states: str) -> None:
    """A begins, the tenant goes through `states`, B begins and commits, the consumer reads, A commits."""
    _, start = await consumed(world, None)
    async with committing(world) as late:
        slow = await late.started()
        for state in states:
            await world.set_state(world.a, state)
        async with committing(world) as early:
            quick = await early.started()
        seen, place = await consumed(world, start)
        assert (slow, 1) not in seen
    rest, _ = await consumed(world, place)
    assert sorted(seen + rest) == sorted([(slow, 1), (quick, 1)])


async def test_the_feed_waits_for_whoever_commits_late(busy: World) -> None:
    """Requirement 5: loss-free."""
    await the_late_committer_is_not_skipped(busy)
    await the_late_committer_is_not_skipped(busy, "suspended", "active")


async def test_without_the_horizon_the_late_committer_is_lost(ground: Ground) -> None:
    """Requirement 5, the guard taken out."""
    world = await ground.world("shared")
    horizon = "o.transaction_id < pg_snapshot_xmin(pg_current_snapshot())"
    await replace_in_routine(world, "fn_read_order_events(jsonb)", horizon, "true")
    with pytest.raises(RED):
        await the_late_committer_is_not_skipped(world)


async def an_earlier_transaction_appends_last(world: World) -> None:
    _, start = await consumed(world, None)
    async with committing(world) as early:
        await early.connection.fetchval("SELECT pg_current_xact_id()")  # its number is the lower one
        async with committing(world) as late:
            stream = await late.started()
        assert (await early.append(stream, 1, ITEM))["success"]
    seen, _ = await consumed(world, start)
    assert seen == [(stream, 1), (stream, 2)]


async def test_a_stream_is_in_order_whenever_its_writers_began(busy: World) -> None:
    """Requirement 5: ordered. The later event may come from the transaction with the lower number."""
    await an_earlier_transaction_appends_last(busy)


async def test_without_its_place_after_the_last_event_a_stream_gets_out_of_order(ground: Ground) -> None:
    """Requirement 5, the guard taken out."""
    world = await ground.world("shared")
    await replace_in_routine(
        world,
        "fn_append_order_events(jsonb)",
        "greatest(last_event.transaction_id, pg_current_xact_id())",
        "pg_current_xact_id()",
    )
    with pytest.raises(RED):
        await an_earlier_transaction_appends_last(world)


async def test_a_consumer_beside_writers_gets_each_event_once_and_in_order(busy: World) -> None:
    """Requirement 5: ordered, loss-free and resumable, by small pages while writers are at work."""
    _, place = await consumed(busy, None)
    chance = random.Random(12)
    streams: list[UUID] = []

    async def writer() -> None:
        async with busy.request(busy.a) as connection:
            for _ in range(15):
                async with connection.transaction():
                    await bind(connection, busy.a)
                    orders = Orders(connection, busy.a)
                    mine = [await orders.started() for _ in range(chance.randint(1, 2))]
                    for stream in sorted(chance.sample(streams, min(2, len(streams)))):
                        assert (await orders.append(stream, None, WEIGHED))["success"]
                streams.extend(mine)

    async def consumer(place: str | None) -> list[tuple[UUID, int]]:
        seen: list[tuple[UUID, int]] = []
        while True:
            done = all(task.done() for task in writers)
            page, place = await consumed(busy, place, limit=7)
            seen += page
            if done and not page:
                return seen

    writers = [asyncio.create_task(writer()) for _ in range(4)]
    seen = await consumer(place)
    await asyncio.gather(*writers)
    async with committing(busy) as orders:
        expected = [(stream, version) for stream in streams for version in await orders.versions(stream)]
    assert sorted(seen) == sorted(expected)
    for stream in streams:
        versions = [version for found, version in seen if found == stream]
        assert versions == sorted(versions)


async def test_the_feed_goes_on_after_a_move_to_another_server(ground: Ground) -> None:
    """Requirement 5: transaction ids of another server come first, however high they are."""
    world = await ground.world("shared")
    old = uuid4()
    async with world.owner(world.a) as connection:
        brought = INSERT.replace("arrival)", "arrival, transaction_id)").replace(", 1)", ", 1, '9000000000000000000')")
        await connection.execute(brought, world.a.id, old, 1, "Created", '{"customer": "c1"}')
    assert (await consumed(world, None))[0] == []  # it might still be at work
    await world.set_state(world.a, "suspended")
    await world.set_state(world.a, "active")
    assert (await consumed(world, None))[0] == []  # nor has it arrived by a change of its state
    await world.set_state(world.a, "provisioning")
    await world.set_state(world.a, "active")
    seen, place = await consumed(world, None)
    assert seen == [(old, 1)]
    async with committing(world) as orders:
        await orders.append(old, 1, ITEM)
    seen, place = await consumed(world, place)
    assert seen == [(old, 2)]
    assert await consumed(world, place) == ([], place)


@pytest.mark.parametrize("after", ["x", "1.2.3.4", "0.0.00000000-0000-0000-0000-000000000000.0; SELECT 1", 5])
async def test_a_place_in_the_feed_is_never_made_up(shared_world: World, after: object) -> None:
    async with ordering(shared_world) as orders:
        answer = await orders.call("read_order_events", after=after)
        assert [problem["path"] for problem in answer["errors"]] == ["after"]


async def test_a_feed_of_nothing_is_empty(world: World) -> None:
    async with ordering(world) as orders:
        assert await orders.feed() == ([], None)
