"""Pattern 11: changes of one product's prices at the same time."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.calls import replace_in_routine
from tests.conformance.patterns.prices import Prices, as_owner, new_product
from tests.conformance.test_mutations import RED
from tests.conformance.world import World


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy(ground: Ground) -> World:
    """These tests commit, and history cannot be deleted."""
    return await ground.world("shared")


async def product_of(world: World) -> UUID:
    async with world.within(world.a) as connection:
        # The first price in a currency brings the currency, and that alone would make others wait.
        await Prices(connection, world.a, await new_product(connection, f"S-{uuid4()}")).set(1, "2024-01-01")
        return await new_product(connection, f"S-{uuid4()}")


async def an_overlapping_call_waits_and_then_wins(world: World) -> None:
    """The first call has set its price and not committed yet when the second one starts."""
    product = await product_of(world)
    async with world.within(world.a) as first:
        assert (await Prices(first, world.a, product).set(1, "2024-01-01"))["success"]

        async def second() -> Any:
            async with world.within(world.a) as connection:
                return await Prices(connection, world.a, product).set(2, "2024-01-01")

        waiting = asyncio.create_task(second())
        async with world.admin(world.a) as admin:
            while not await admin.fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid IN "
                "(SELECT pid FROM pg_stat_activity WHERE datname = current_database()))"
            ):
                assert not waiting.done(), waiting.result()
                await asyncio.sleep(0)
    assert (await waiting)["success"]
    async with world.within(world.a) as connection:
        assert await Prices(connection, world.a, product).at("2024-06-01") == 2


async def many_calls_at_once_all_succeed(world: World) -> None:
    product = await product_of(world)
    chance = random.Random(3)

    async def caller(number: int) -> None:
        for n in range(10):
            async with world.within(world.a) as connection:
                prices = Prices(connection, world.a, product)
                result = await prices.set(number * 100 + n, f"2024-{chance.randint(1, 12):02}-01")
                assert result["success"], result

    await asyncio.gather(*(caller(number) for number in range(6)))
    async with world.within(world.a) as connection:
        facts = await connection.fetchrow(
            """
            SELECT count(DISTINCT known_from) AS changes, bool_and(known_from < known_to) AS ordered,
                   bool_and(known_to = 'infinity') FILTER (WHERE known_from = latest) AS last_is_current
            FROM (SELECT *, max(known_from) OVER () AS latest FROM tb_price WHERE product_id = $1) AS p
            """,
            product,
        )
    assert facts is not None
    assert tuple(facts) == (60, True, True)  # each call has a time of its own


# requirement 3
async def test_concurrent_changes_all_succeed_and_the_last_one_wins(busy: World) -> None:
    await an_overlapping_call_waits_and_then_wins(busy)
    await many_calls_at_once_all_succeed(busy)


async def test_a_transaction_that_began_earlier_does_not_invert_time(busy: World) -> None:
    """Requirement 3: the time of a change is taken when it is made, not when its transaction began."""
    product = await product_of(busy)
    async with busy.within(busy.a) as early:
        await early.fetchval("SELECT now()")
        async with busy.within(busy.a) as late:
            assert (await Prices(late, busy.a, product).set(1, "2024-01-01"))["success"]
        assert (await Prices(early, busy.a, product).set(2, "2024-01-01"))["success"]
        assert await Prices(early, busy.a, product).at("2024-01-01") == 2
        assert await early.fetchval(
            "SELECT bool_and(known_from < known_to) FROM tb_price WHERE product_id = $1", product
        )


async def test_time_goes_on_when_the_clock_goes_back(shared_world: World) -> None:
    """Requirement 3: a change is at least a microsecond later than the last, whatever the clock says."""
    async with as_owner(shared_world) as prices:
        ahead = datetime(2999, 1, 1, tzinfo=UTC)
        await prices.connection.execute(
            "INSERT INTO tb_price (product_id, currency, decimals, price, valid_from, known_from) "
            "VALUES ($1, 'EUR', 2, 10, '2024-01-01', $2)",
            prices.product,
            ahead,
        )
        await prices.connection.execute(f'SET LOCAL ROLE "{shared_world.a.home.role_name}"')
        for change in (1, 2):
            result = await prices.set(change, "2024-01-01")
            assert result["success"], result
            known_from = datetime.fromisoformat(result["data"]["price"]["known_from"])
            assert known_from == ahead + timedelta(microseconds=change)


async def test_without_the_lock_on_the_product_changes_collide(ground: Ground) -> None:
    """Requirement 3, the guard taken out."""
    world = await ground.world("shared")
    await replace_in_routine(world, "fn_set_price(jsonb)", "FOR NO KEY UPDATE", "")
    with pytest.raises(RED):
        await an_overlapping_call_waits_and_then_wins(world)
