"""Pattern 12: streams, events, keys and the feed are read by an index each."""

from __future__ import annotations

from tests.conformance.conftest import Ground
from tests.conformance.patterns.orders import (
    consumed,
)
from tests.conformance.patterns.plans import assert_indexed, explain
from tests.conformance.world import World


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
