"""Pattern 12: orders as streams of events that are only ever appended to, with a feed that loses nothing."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from tests.conformance.conftest import Ground
from tests.conformance.patterns.calls import replace_in_routine
from tests.conformance.patterns.orders import (
    CREATED,
    ITEM,
    NOTE,
    SHIPPED,
    WEIGHED,
    Orders,
    act_as,
    committing,
    ordering,
)
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.test_context import sqlstate_of
from tests.conformance.test_mutations import RED
from tests.conformance.world import World, bind

INSERT = (
    "INSERT INTO tb_order_event (tenant_id, stream_id, version, type, data, arrival) VALUES ($1, $2, $3, $4, $5, 1)"
)


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


# requirement 6
async def test_each_index_has_a_purpose_of_its_own(shared_world: World) -> None:
    async with shared_world.owner(shared_world.a) as connection:
        rows = await connection.fetch(
            """
            SELECT array_agg(a.attname::text ORDER BY k.place) AS columns
            FROM pg_index i
            CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
            WHERE i.indrelid = 'tb_order_event'::regclass
            GROUP BY i.indexrelid
            """
        )
    found = sorted(row["columns"] for row in rows)
    assert found == [
        ["tenant_id", "arrival", "transaction_id", "stream_id", "version"],  # the feed
        ["tenant_id", "id"],  # one event
        ["tenant_id", "stream_id", "idempotency_key"],  # an append that is repeated; of rows with a key only
        ["tenant_id", "stream_id", "version"],  # a stream
    ]


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


# What follows commits, and events cannot be deleted: it has a world of its own.


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy(ground: Ground) -> World:
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


async def consumed(world: World, after: str | None, limit: int = 1000) -> tuple[list[tuple[UUID, int]], str | None]:
    async with world.within(world.a, read_only=True) as connection:
        events, place = await Orders(connection, world.a).feed(after, limit)
    return [(UUID(event["stream_id"]), event["version"]) for event in events], place


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


async def test_streams_and_feed_are_read_by_index(ground: Ground) -> None:
    """Requirement 6, among 50 000 events of 500 streams, and those of another tenant."""
    world = await ground.world("shared")
    async with world.owner(world.a) as connection:
        for member, streams in ((world.a, 500), (world.b, 50)):
            await connection.execute(
                """
                INSERT INTO tb_order_event (tenant_id, stream_id, version, type, data, arrival, transaction_id,
                                            idempotency_key, appended)
                SELECT $1, md5(stream::text)::uuid, version, CASE version WHEN 1 THEN 'Created' ELSE 'Weighed' END,
                       '{}', 1, (3 + version)::text::xid8, CASE WHEN version % 10 = 0 THEN 'k' || version END,
                       CASE WHEN version % 10 = 0 THEN 1 END
                FROM generate_series(1, $2) AS stream, generate_series(1, 100) AS version
                """,
                member.id,
                streams,
            )
        await connection.execute("ANALYZE tb_order_event")
    async with world.within(world.a) as connection:
        stream = await connection.fetchval("SELECT stream_id FROM tb_order_event WHERE version = 50 LIMIT 1")
        event = await connection.fetchval("SELECT id FROM tb_order_event WHERE stream_id = $1 AND version = 50", stream)
        listed = f'SELECT data FROM "{world.a.schema}__api_v2".order_events WHERE tenant_id = $1'

        plan = await explain(
            connection, f"{listed} AND stream_id = $2 ORDER BY stream_id, version LIMIT 50", (world.a.id, stream)
        )
        assert_indexed(plan, "tb_order_event", "stream_id =")
        assert plan.rows_read("tb_order_event") == 50, plan

        plan = await explain(connection, f"{listed} AND id = $2", (world.a.id, event))
        assert plan.indexes == {"tb_order_event_id"}, plan

        plan = await explain(
            connection,
            "SELECT version FROM tb_order_event WHERE tenant_id = $1 AND stream_id = $2 AND idempotency_key = 'k50'",
            (world.a.id, stream),
        )
        assert plan.indexes == {"tb_order_event_idempotency_key"}, plan

        # As fn_read_order_events() asks, with a plan that does not know the place.
        await connection.execute(
            """
            PREPARE page (bigint, xid8, uuid, integer) AS
            SELECT version FROM tb_order_event AS o
            WHERE o.tenant_id = tenancy.current_tenant_id()
              AND (o.arrival, o.transaction_id, o.stream_id, o.version) > ($1, $2, $3, $4)
              AND (o.transaction_id < pg_snapshot_xmin(pg_current_snapshot()) OR o.arrival < tenancy.current_arrival())
            ORDER BY o.arrival, o.transaction_id, o.stream_id, o.version
            LIMIT 100;
            SET LOCAL plan_cache_mode = force_generic_plan
            """
        )
        plan = await explain(connection, f"EXECUTE page (1, '53', '{stream}', 50)")
        assert plan.indexes == {"tb_order_event_feed"}, plan
        assert any("ROW(" in condition for condition in plan.index_conditions()), plan
        assert plan.rows_read("tb_order_event") == 100, plan
        page, _ = await consumed(world, f"1.53.{stream}.50", limit=100)
        assert len(page) == 100
