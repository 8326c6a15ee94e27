"""Pattern 13: what an order is by now, folded from its events with every append."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

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
    ordering,
)
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
