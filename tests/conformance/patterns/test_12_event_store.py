"""Pattern 12: orders as streams of events that are only ever appended to."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.conformance.conftest import Ground
from tests.conformance.patterns.orders import (
    CREATED,
    INSERT,
    ITEM,
    NOTE,
    SHIPPED,
    WEIGHED,
    act_as,
    committing,
    ordering,
)
from tests.conformance.test_context import sqlstate_of
from tests.conformance.world import World


# acceptance 12.1
async def test_an_append_answers_the_new_version_or_what_it_found(world: World) -> None:
    """Requirement 1: 0 creates, a mismatch is a conflict with both versions, null does not check."""
    async with ordering(world) as orders:
        stream = uuid4()
        created = await orders.append(stream, 0, CREATED)
        assert (created["success"], created["data"]["version"], created["data"]["versions"]) == (True, 1, [1])
        again = await orders.append(stream, 0, CREATED)
        assert (again["success"], again["code"]) == (False, "conflict")
        assert again["data"] == {"expected": 0, "actual": 1}
        assert (await orders.append(stream, 1, ITEM))["data"]["version"] == 2
        assert (await orders.append(stream, None, ITEM, NOTE, ITEM))["data"]["versions"] == [3, 4, 5]
        assert (await orders.append(stream, 7, ITEM))["data"] == {"expected": 7, "actual": 5}
        assert (await orders.append(uuid4(), 3, ITEM))["data"] == {"expected": 3, "actual": 0}
        assert await orders.versions(stream) == [1, 2, 3, 4, 5]


# requirement 2
@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("events.0.type", {"type": "Misspelt", "data": {}}),
        ("events.0.type", {"type": "ItemAdded", "data": ITEM["data"], "opaque": True}),
        ("events.0.type", {"type": "lower", "data": {}, "opaque": True}),
        ("events.0.type", {"data": {}}),
        ("events.0.data", {"type": "Weighed", "data": 5, "opaque": True}),
        ("events.0.data", {"type": "Weighed", "data": [1], "opaque": True}),
        ("events.0.data.sku", {"type": "ItemAdded", "data": {"qty": 1}}),
        ("events.0.data.qty", {"type": "ItemAdded", "data": {"sku": "A", "qty": 0}}),
        ("events.0.data.colour", {"type": "ItemAdded", "data": {"sku": "A", "qty": 1, "colour": "red"}}),
        ("events.0.version", {**ITEM, "version": 99}),
        ("events.0.recorded_at", {**ITEM, "recorded_at": "2024-01-01T00:00:00Z"}),
        ("events.0", 5),
    ],
)
async def test_only_events_of_a_known_form_are_appended(shared_world: World, path: str, event: Any) -> None:
    """Requirements 2 and 6: a closed register or expressly opaque, objects only, versions and times from the server."""
    async with ordering(shared_world) as orders:
        stream = await orders.started()
        result = await orders.append(stream, None, event)
        assert (result["success"], result["code"]) == (False, "invalid")
        assert [problem["path"] for problem in result["errors"]] == [path]
        assert await orders.versions(stream) == [1]


async def test_a_stream_has_one_type(world: World) -> None:
    """Requirement 2: the table holds streams of one type, and says which."""
    async with ordering(world) as orders:
        stream = await orders.started(WEIGHED)
        given = {"stream_id": stream, "events": [NOTE]}
        assert (await orders.call("append_order_events", **given, stream_type="Order"))["success"]
        refused = await orders.call("append_order_events", **given, stream_type="Invoice")
        assert [problem["path"] for problem in refused["errors"]] == ["stream_type"]
        rows = await orders.connection.fetch("SELECT DISTINCT stream_type FROM tb_order_event")
        assert [row["stream_type"] for row in rows] == ["Order"]


async def test_the_table_itself_holds_no_nonsense(world: World) -> None:
    """Requirement 2, for the owner too."""
    tenant, stream = world.a.id, uuid4()
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert await sqlstate_of(connection, INSERT, tenant, stream, 1, "Created", "{}") == "00000"
        for version, kind, data, expected in (
            (1, "Created", "{}", "23505"),
            (0, "Created", "{}", "23514"),
            (-5, "Created", "{}", "23514"),
            (2, "Created", "5", "23514"),
            (2, "Created", "[]", "23514"),
            (2, "created", "{}", "23514"),
            (2, "Created", None, "23502"),
        ):
            row = (tenant, stream, version, kind, data)
            assert await sqlstate_of(connection, INSERT, *row) == expected, row
        mixed = INSERT.replace("arrival)", "arrival, stream_type)").replace(", 1)", ", 1, 'Invoice')")
        assert await sqlstate_of(connection, mixed, tenant, stream, 2, "Created", "{}") == "23514"
        await transaction.rollback()


# requirement 3
async def test_a_key_is_answered_as_it_was_the_first_time(world: World) -> None:
    async with ordering(world) as orders:
        stream = uuid4()
        first = await orders.append(stream, 0, CREATED, ITEM, key="k")
        assert first["data"]["versions"] == [1, 2]
        await orders.append(stream, 2, NOTE)
        # The expected version is long past, and still it is the answer of then.
        assert await orders.append(stream, 0, CREATED, ITEM, key="k") == first
        assert await orders.versions(stream) == [1, 2, 3]
        for events in ((CREATED,), (CREATED, NOTE), (CREATED, ITEM, NOTE)):
            other = await orders.append(stream, None, *events, key="k")
            assert (other["success"], other["code"]) == (False, "conflict")
        # A key belongs to its stream.
        assert (await orders.append(uuid4(), 0, CREATED, ITEM, key="k"))["data"]["versions"] == [1, 2]


async def test_placing_an_order_twice_with_one_key_places_one_order(shared_world: World) -> None:
    async with ordering(shared_world) as orders:
        given = {"customer": "c1", "items": [{"sku": "A", "qty": 1}], "idempotency_key": "basket-1"}
        first, second = await orders.call("place_order", **given), await orders.call("place_order", **given)
        assert first["data"] == second["data"]
        assert first["data"]["order"]["item_count"] == 1
        other = await orders.call("place_order", **{**given, "customer": "c2"})
        assert other["code"] == "conflict"
        assert await orders.connection.fetchval("SELECT count(*) FROM tv_order") == 1


# acceptance 12.3
async def test_events_are_only_appended_to(world: World) -> None:
    """Requirement 4: neither a request, nor the owner, nor the role of the functions changes an event."""
    async with ordering(world) as orders:
        stream = await orders.started(ITEM)
        for statement in (
            "UPDATE tb_order_event SET type = 'Hidden'",
            "DELETE FROM tb_order_event",
            "TRUNCATE tb_order_event",
            "INSERT INTO tb_order_event (stream_id, version, type, data) SELECT stream_id, 9, type, data "
            "FROM tb_order_event",
            "UPDATE tv_order SET data = '{}'",
            "DELETE FROM tv_order",
            "UPDATE tb_order_event_erasure SET reason = 'x'",
        ):
            assert await sqlstate_of(orders.connection, statement) == "42501", statement
        assert await orders.versions(stream) == [1, 2]


async def test_not_even_the_owner_changes_an_event(world: World) -> None:
    """Requirement 4."""
    tenant, stream = world.a.id, uuid4()
    async with world.owner(world.a) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(INSERT, tenant, stream, 1, "Created", '{"customer": "c1"}')
        for change in (
            "type = 'Hidden'",
            "data = '{}'",  # without an erasure that is logged
            "version = 2",
            "recorded_at = now()",
            "erasure_id = gen_random_uuid(), data = '{}', version = 2",
        ):
            statement = f"UPDATE tb_order_event SET {change} WHERE stream_id = $1"
            assert await sqlstate_of(connection, statement, stream) == "42501", change
        forged = "UPDATE tb_order_event SET erasure_id = gen_random_uuid(), data = '{}' WHERE stream_id = $1"
        assert await sqlstate_of(connection, forged, stream) == "23503"
        assert await sqlstate_of(connection, "DELETE FROM tb_order_event WHERE stream_id = $1", stream) == "42501"
        assert await sqlstate_of(connection, "TRUNCATE tb_order_event") == "42501"
        kept = await connection.fetchval("SELECT data FROM tb_order_event WHERE stream_id = $1", stream)
        assert json.loads(kept) == {"customer": "c1"}
        await transaction.rollback()


async def test_an_erasure_keeps_the_event_and_says_who_did_it(world: World) -> None:
    """Requirement 4: the one exception is a logged function, for admins."""
    async with ordering(world) as orders:
        stream = await orders.started(ITEM, NOTE, SHIPPED)
        given = {"id": stream, "versions": [1, 3], "reason": "Asked for by the customer."}
        assert (await orders.call("erase_order_events", **given))["code"] == "forbidden"
        assert "fragile" in json.dumps(await orders.projection(stream))

        await act_as(orders.connection, world.a, "admin")
        erased = await orders.call("erase_order_events", **given)
        assert (erased["success"], erased["data"]["erased"]) == (True, 2)
        document = erased["data"]["order"]
        assert (document["customer"], document["notes"], document["item_count"]) == (None, [], 1)
        assert (document["status"], document["version"]) == ("shipped", 4)  # it still happened
        assert await orders.projection(stream) == await orders.folded(stream) == document
        events = await orders.connection.fetch(
            "SELECT data FROM v_order_event WHERE stream_id = $1 ORDER BY version", stream
        )
        shown = [json.loads(row["data"]) for row in events]
        assert [event["erased"] for event in shown] == [True, False, True, False]
        assert [event["data"] == {} for event in shown] == [True, False, True, False]
        log = await orders.connection.fetchrow("SELECT * FROM tb_order_event_erasure")
        assert log is not None
        assert (log["stream_id"], log["reason"], log["erased_by"]) == (stream, given["reason"], world.a.user_id)

        assert (await orders.call("erase_order_events", **given))["code"] == "not_found"  # nothing is left of these
        rest = await orders.call("erase_order_events", id=stream, reason="All of it.")
        assert rest["data"]["erased"] == 2
        assert await orders.versions(stream) == [1, 2, 3, 4]
        assert (await orders.append(stream, 4, NOTE))["success"]


async def test_a_tenant_that_goes_takes_its_history_along(ground: Ground) -> None:
    """Requirement 4: what removes a tenant is not held up, and touches nobody else."""
    world = await ground.world("shared")
    for member in (world.a, world.b):
        async with committing(world, member) as orders:
            await orders.started(ITEM)
            await act_as(orders.connection, member, "admin")
            await orders.call("erase_order_events", id=await orders.started(), reason="Before it goes.")
    async with world.admin(world.a) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SELECT tenancy.erase_tenant($1)", world.a.id)  # it is still served
        await world.set_state(world.a, "deleting")
        await connection.execute("SELECT tenancy.erase_tenant($1)", world.a.id)
    async with world.owner(world.a) as connection:
        for table, kept in (("tb_order_event", 3), ("tv_order", 2), ("tb_order_event_erasure", 1)):
            rows = await connection.fetch(f"SELECT tenant_id FROM {table}")
            assert [row["tenant_id"] for row in rows] == [world.b.id] * kept, table


async def test_times_are_the_servers_and_rise_along_a_stream(shared_world: World) -> None:
    """Requirement 6."""
    async with ordering(shared_world) as orders:
        stream = await orders.started()
        for _ in range(5):
            await orders.append(stream, None, ITEM)
        assert await orders.connection.fetchval(
            """
            SELECT bool_and(earlier <= recorded_at)
                   AND min(recorded_at) >= now() AND max(recorded_at) <= clock_timestamp()
            FROM (SELECT recorded_at, lag(recorded_at, 1, recorded_at) OVER (ORDER BY version) AS earlier
                  FROM tb_order_event WHERE stream_id = $1) AS e
            """,
            stream,
        )


# acceptance 12.5
async def test_the_stream_of_another_tenant_is_another_stream(shared_world: World) -> None:
    async with ordering(shared_world, shared_world.b) as orders:
        stream = await orders.started(ITEM, ITEM)
        await orders.connection.execute("SELECT set_config('app.current_tenant_id', $1, true)", str(shared_world.a.id))
        assert await orders.versions(stream) == []
        assert (await orders.append(stream, 0, CREATED))["data"]["version"] == 1
        assert await orders.versions(stream) == [1]
        assert (await orders.projection(stream))["item_count"] == 0
