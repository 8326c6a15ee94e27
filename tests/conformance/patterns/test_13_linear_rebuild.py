"""Pattern 13, check 13.4: a rebuild costs in proportion to the events of an order, counted and not timed."""

from __future__ import annotations

import re
from uuid import UUID

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.calls import replace_in_routine
from tests.conformance.patterns.orders import ITEM, Orders, ordering
from tests.conformance.world import World

FOLD = "fn_fold_order(jsonb,jsonb)"
STEP = "next_status := fn_next_order_status(status, event.type);"
DOCUMENT = re.compile(r"^\s+(\w+) jsonb(?: :=|;)", re.MULTILINE)  # a variable; arrays grow in place
READ = """
SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
FROM pg_stat_xact_user_tables WHERE relid = 'tb_order_event'::regclass
"""


async def with_items(orders: Orders, many: int) -> UUID:
    stream = await orders.started()
    for start in range(0, many, 1000):
        result = await orders.append(stream, None, *[ITEM] * min(1000, many - start))
        assert result["success"], result
    return stream


async def rebuild(orders: Orders, stream: UUID, many: int) -> None:
    rebuilt = await orders.call("rebuild_order", id=stream)
    assert rebuilt["data"]["order"]["item_count"] == many


# acceptance 13.4
async def test_a_rebuild_reads_each_event_once(shared_world: World) -> None:
    """Requirement 4. A query per event reads what came before it again."""
    async with ordering(shared_world) as orders:
        for many in (2000, 8000):
            stream = await with_items(orders, many)
            before = await orders.connection.fetchval(READ)
            await rebuild(orders, stream, many)
            assert await orders.connection.fetchval(READ) - before == many + 1


async def weigh_each_step(world: World) -> None:
    """Let the reducer add up the bytes of the documents that it has in hand at each step, where each may be copied."""
    async with world.owner(world.a) as connection:
        source = await connection.fetchval("SELECT prosrc FROM pg_proc WHERE oid = $1::text::regprocedure", FOLD)
    sizes = " + ".join(f"pg_column_size({name})" for name in ("state", *DOCUMENT.findall(source)))
    weigh = f"PERFORM set_config('test.carried', (current_setting('test.carried')::bigint + {sizes})::text, true);"
    await replace_in_routine(world, FOLD, STEP, f"{weigh} {STEP}")


async def nothing_grows_from_step_to_step(world: World, few: int, many: int) -> None:
    carried = {}
    async with ordering(world) as orders:
        await orders.connection.execute("SET LOCAL test.carried = 0")
        for number in (few, many):
            stream = await with_items(orders, number)
            await orders.connection.execute("SET LOCAL test.carried = 0")
            await rebuild(orders, stream, number)
            carried[number] = int(await orders.connection.fetchval("SHOW test.carried"))
    assert 0 < carried[many] / carried[few] < 1.1 * many / few, f"bytes by number of items: {carried}"


# acceptance 13.4
async def test_a_rebuild_carries_no_list_from_event_to_event(ground: Ground) -> None:
    """Requirement 4. A list that is copied for each event makes four times the events cost sixteen times as much."""
    world = await ground.world("shared")
    await weigh_each_step(world)
    await nothing_grows_from_step_to_step(world, 2000, 8000)


async def test_a_list_that_is_copied_for_each_event_would_be_seen(ground: Ground) -> None:
    """Requirement 4, the guard taken out: the items are collected in the document of changes."""
    world = await ground.world("shared")
    append = "items := array_append(items, event.data);"
    collect = "changes := changes || jsonb_build_object('i', coalesce(changes -> 'i', '[]') || event.data);"
    await replace_in_routine(world, FOLD, append, f"{append} {collect}")
    await weigh_each_step(world)
    with pytest.raises(AssertionError, match="bytes by number of items"):
        await nothing_grows_from_step_to_step(world, 250, 1000)
