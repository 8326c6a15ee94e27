"""Pattern 13: what an order is by now, folded from its events, and folded again whenever that is asked for."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.calls import replace_in_routine
from tests.conformance.patterns.orders import (
    CANCELLED,
    CREATED,
    DELIVERED,
    ITEM,
    NOTE,
    SHIPPED,
    WEIGHED,
    act_as,
    committing,
    ordering,
)
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.test_context import sqlstate_of
from tests.conformance.test_mutations import RED
from tests.conformance.world import World

EVENTS: tuple[dict[str, Any], ...] = (CREATED, ITEM, NOTE, SHIPPED, DELIVERED, CANCELLED, WEIGHED)
# Status → the events that are possible in it, and the status afterwards; null is before the first event.
MACHINE: dict[str | None, dict[str, str]] = {
    None: {"Created": "pending"},
    "pending": {
        "ItemAdded": "pending",
        "NoteAdded": "pending",
        "Weighed": "pending",
        "Shipped": "shipped",
        "Cancelled": "cancelled",
    },
    "shipped": {"NoteAdded": "shipped", "Weighed": "shipped", "Delivered": "delivered"},
    "delivered": {"NoteAdded": "delivered", "Weighed": "delivered"},
    "cancelled": {"NoteAdded": "cancelled", "Weighed": "cancelled"},
}
WAYS: dict[str | None, tuple[dict[str, Any], ...]] = {
    None: (),
    "pending": (CREATED,),
    "shipped": (CREATED, SHIPPED),
    "delivered": (CREATED, SHIPPED, DELIVERED),
    "cancelled": (CREATED, CANCELLED),
}


# acceptance 13.1
async def test_a_projection_is_what_its_events_say(world: World) -> None:
    """Requirements 1 and 3: in the transaction of the append, with the version, equal to the rebuild."""
    async with ordering(world) as orders:
        stream = await orders.started(ITEM)
        await orders.append(stream, 2, SHIPPED)
        await orders.append(stream, 3, NOTE)
        stored = await orders.projection(stream)
        assert (stored["status"], stored["version"]) == ("shipped", 4)
        assert (stored["items"], stored["item_count"]) == ([{"sku": "A", "qty": 2}], 1)
        assert (stored["notes"], stored["shipped_on"], stored["customer"]) == (["fragile"], "2024-05-01", "c1")
        assert stored["__typename"] == "Order"
        rebuilt = await orders.call("rebuild_order", id=stream)
        assert rebuilt["data"]["order"] == stored == await orders.projection(stream) == await orders.folded(stream)


# acceptance 13.2
async def test_what_is_delivered_cannot_be_cancelled(world: World) -> None:
    async with ordering(world) as orders:
        stream = await orders.started(ITEM, SHIPPED)
        assert (await orders.append(stream, 3, DELIVERED))["success"]
        assert (await orders.projection(stream))["status"] == "delivered"
        refused = await orders.append(stream, 4, CANCELLED)
        assert (refused["success"], refused["code"]) == (False, "invalid")
        assert [(e["path"], e["code"]) for e in refused["errors"]] == [("events.0.type", "transition")]
        assert await orders.versions(stream) == [1, 2, 3, 4]
        assert (await orders.projection(stream))["version"] == 4


@pytest.mark.parametrize("status", MACHINE)
async def test_each_status_takes_its_events_and_no_others(shared_world: World, status: str | None) -> None:
    """Requirement 2: every status with every event, alone and as the last of several."""
    async with ordering(shared_world) as orders:
        for event in EVENTS:
            after = MACHINE[status].get(event["type"])
            for so_far, given in ((WAYS[status], (event,)), ((), (*WAYS[status], event))):
                stream = uuid4()
                if so_far:
                    assert (await orders.append(stream, 0, *so_far))["success"]
                result = await orders.append(stream, len(so_far), *given)
                assert result["success"] == (after is not None), (status, event, result)
                if after is None:
                    assert result["code"] == "invalid"
                    assert await orders.versions(stream) == list(range(1, len(so_far) + 1))  # all or nothing
                else:
                    assert (await orders.projection(stream))["status"] == after


async def test_an_unknown_event_leaves_the_state_as_it_is(shared_world: World) -> None:
    """Requirement 2: not its payload, not the status; only the version goes on."""
    async with ordering(shared_world) as orders:
        stream = await orders.started(ITEM, NOTE, SHIPPED)
        before = await orders.projection(stream)
        await orders.append(
            stream,
            None,
            {"type": "Imported", "data": {"status": "pending", "items": 5, "customer": None}, "opaque": True},
        )
        assert await orders.projection(stream) == before | {"version": 5}


# requirement 1
async def test_projection_and_rebuild_agree_on_any_stream(world: World) -> None:
    """Random streams, refused events among them, compared after every append and with another split of the events."""
    chance = random.Random(13)
    async with ordering(world, roles=("admin",)) as orders:
        for _ in range(8):
            stream = await orders.started()
            for step in range(12):
                given = [chance.choice(EVENTS[1:]) for _ in range(chance.randint(1, 4))]
                if step < 6:  # stay pending for a while, or nothing but notes would happen
                    given = [event for event in given if event["type"] in MACHINE["pending"]]
                    given = [event for event in given if event not in (SHIPPED, CANCELLED)] or [ITEM]
                given = [{**event, "data": dict(event["data"])} for event in given]
                for event in given:
                    if event["type"] == "ItemAdded":
                        event["data"] = {"sku": f"S-{chance.randrange(9)}", "qty": chance.randint(1, 9)}
                await orders.append(stream, None, *given)
                if chance.random() < 0.1:
                    versions = [chance.choice(await orders.versions(stream))]
                    await orders.call("erase_order_events", id=stream, versions=versions, reason="Random.")
                stored = await orders.projection(stream)
                assert stored == await orders.folded(stream)
            last = stored["version"]
            middle = await orders.call("replay_order", id=stream, as_of_version=chance.randint(1, last))
            from_middle = await orders.connection.fetchval(
                "SELECT fn_order_state($1, data) = (SELECT data FROM tv_order WHERE id = $1) "
                "FROM (SELECT fn_order_state($1, NULL, $2) AS data) AS s",
                stream,
                middle["data"]["order"]["version"],
            )
            assert from_middle


async def test_a_reducer_of_its_own_for_the_rebuild_would_be_seen(ground: Ground) -> None:
    """Requirement 1, the guard taken out: an append that starts from another state than the stored one."""
    world = await ground.world("shared")
    await replace_in_routine(
        world, "fn_append_order_events(jsonb)", "fn_order_state(stream, state)", "state || '{\"version\": 2}'"
    )
    with pytest.raises(RED):
        await test_a_projection_is_what_its_events_say(world)


# requirement 3
async def test_a_projection_is_undone_with_its_append(world: World) -> None:
    async with ordering(world) as orders:
        stream = await orders.started()
        nested = orders.connection.transaction()
        await nested.start()
        await orders.append(stream, 1, ITEM)
        assert (await orders.projection(stream))["version"] == 2
        await nested.rollback()
        assert (await orders.projection(stream))["version"] == 1
        assert await orders.versions(stream) == [1]


async def test_a_projection_is_a_table_of_the_tenant(world: World) -> None:
    """Requirement 3: a tv_ table that functions write, isolated like any other."""
    async with ordering(world) as orders:
        stream = await orders.started()
        assert await orders.connection.fetchval("SELECT relkind FROM pg_class WHERE oid = 'tv_order'::regclass") == b"r"
        for statement in ("UPDATE tv_order SET version = 9", "INSERT INTO tv_order SELECT * FROM tv_order"):
            assert await sqlstate_of(orders.connection, statement) in ("42501", "428C9"), statement
        forged = 'SELECT fn_store_order(\'{"id": "00000000-0000-0000-0000-000000000001", "version": 1}\')'
        assert await sqlstate_of(orders.connection, forged) == "42501"
        if world.mode == "shared":
            await orders.connection.execute("SELECT set_config('app.current_tenant_id', $1, true)", str(world.b.id))
            assert await orders.projection(stream) is None
            assert (await orders.call("rebuild_order", id=stream))["code"] == "not_found"


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


# requirement 5
async def test_an_unknown_order_is_not_found(world: World) -> None:
    unknown = {"id": uuid4()}
    async with ordering(world, roles=("admin",)) as orders:
        for function, given in (
            ("rebuild_order", {}),
            ("replay_order", {}),
            ("ship_order", {"shipped_on": "2024-05-01"}),
            ("deliver_order", {}),
            ("cancel_order", {}),
            ("add_order_item", {"sku": "A", "qty": 1}),
            ("add_order_note", {"note": "x"}),
            ("erase_order_events", {"reason": "x"}),
        ):
            result = await orders.call(function, **unknown, **given)
            assert (result["success"], result["code"]) == (False, "not_found"), function


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


# The calls that people make.


async def test_an_order_goes_its_way(world: World) -> None:
    async with ordering(world) as orders:
        placed = await orders.call("place_order", customer="c1", items=[{"sku": "A", "qty": 2}])
        assert (placed["success"], placed["code"]) == (True, "created")
        order = placed["data"]["order"]
        assert (order["version"], order["status"], order["items"]) == (2, "pending", [{"sku": "A", "qty": 2}])
        stream = order["id"]
        for function, given, status in (
            ("add_order_item", {"sku": "B", "qty": 1}, "pending"),
            ("add_order_note", {"note": "fragile"}, "pending"),
            ("ship_order", {"shipped_on": "2024-05-01"}, "shipped"),
            ("deliver_order", {"delivered_on": None}, "delivered"),
        ):
            changed = await orders.call(function, id=stream, **given)
            assert (changed["success"], changed["data"]["order"]["status"]) == (True, status), changed
        assert changed["data"]["order"]["version"] == 6
        refused = await orders.call("cancel_order", id=stream)
        assert (refused["success"], refused["code"]) == (False, "invalid")
        stale = await orders.call("add_order_note", id=stream, note="late", expected_version=2)
        assert (stale["code"], stale["data"]) == ("conflict", {"expected": 2, "actual": 6})
        for _ in range(2):
            again = await orders.call("add_order_note", id=stream, note="once", idempotency_key="n")
        assert again["data"]["order"]["notes"] == ["fragile", "once"]
        listed = await orders.connection.fetchval(f'SELECT count(*) FROM "{world.a.schema}__api_v2".orders')
        assert listed == 1


@pytest.mark.parametrize(
    ("function", "given", "path"),
    [
        ("place_order", {}, "customer"),
        ("place_order", {"customer": "c", "items": [{"sku": "A"}]}, "items.0.qty"),
        ("place_order", {"customer": "c", "status": "shipped"}, "status"),
        ("add_order_item", {"id": str(uuid4()), "sku": "A", "qty": 1.5}, "qty"),
        ("ship_order", {"id": str(uuid4()), "shipped_on": "tomorrow"}, "shipped_on"),
        ("replay_order", {"id": str(uuid4()), "as_of_time": "yesterday"}, "as_of_time"),
        ("rebuild_orders", {"limit": 501}, "limit"),
        ("rebuild_order", {"id": "x"}, "id"),
    ],
)
async def test_a_call_names_what_is_wrong_with_it(
    shared_world: World, function: str, given: dict[str, object], path: str
) -> None:
    async with ordering(shared_world) as orders:
        result = await orders.call(function, **given)
        assert (result["success"], result["code"]) == (False, "invalid")
        assert [problem["path"] for problem in result["errors"]] == [path]


async def test_orders_are_listed_by_index(ground: Ground) -> None:
    """Requirement 3, among 20 000 orders and those of another tenant."""
    world = await ground.world("shared")
    async with world.owner(world.a) as connection:
        for member, many in ((world.a, 20_000), (world.b, 2_000)):
            await connection.execute(
                """
                INSERT INTO tv_order (tenant_id, id, data, version, created_at)
                SELECT $1, gen_random_uuid(),
                       jsonb_build_object('status', CASE WHEN n % 50 = 0 THEN 'pending' ELSE 'delivered' END),
                       1, timestamptz '2024-01-01Z' + n * interval '1 minute'
                FROM generate_series(1, $2) AS n
                """,
                member.id,
                many,
            )
        await connection.execute("ANALYZE tv_order")
    listed = f'SELECT data FROM "{world.a.schema}__api_v2".orders WHERE tenant_id = $1'
    latest = "ORDER BY created_at DESC, id DESC LIMIT 50"
    async with world.within(world.a) as connection:
        for condition, index in (("", "tv_order_created_at"), ("AND status = 'pending'", "tv_order_status")):
            plan = await explain(connection, f"{listed} {condition} {latest}", (world.a.id,))
            assert plan.indexes == {index}, plan
            assert plan.rows_read("tv_order") == 50, plan
        one = await connection.fetchval("SELECT id FROM tv_order LIMIT 1")
        plan = await explain(connection, f"{listed} AND id = $2", (world.a.id, one))
        assert_indexed(plan, "tv_order", "id =")
