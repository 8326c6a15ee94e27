"""Pattern 13: the calls that people make about orders, and how orders are listed."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.orders import (
    ordering,
)
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.world import World


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
