SELECT place_order('{"id": "00000000-0000-0000-0000-0000000000a1", "customer": "Smoke",
                     "items": [{"sku": "A", "qty": 2}], "idempotency_key": "smoke"}');
SELECT place_order('{}');
SELECT append_order_events('{"stream_id": "00000000-0000-0000-0000-0000000000a1", "expected_version": 2,
                             "events": [{"type": "Weighed", "data": {"grams": 12}, "opaque": true}]}');
SELECT append_order_events('{"stream_id": "00000000-0000-0000-0000-0000000000a1", "expected_version": 2,
                             "events": [{"type": "Shipped", "data": {"shipped_on": "2026-03-01"}}]}');
SELECT add_order_item('{"id": "00000000-0000-0000-0000-0000000000a1", "sku": "B", "qty": 1}');
SELECT add_order_note('{"id": "00000000-0000-0000-0000-0000000000a1", "note": "fragile"}');
SELECT ship_order('{"id": "00000000-0000-0000-0000-0000000000a1", "shipped_on": "2026-03-01"}');
SELECT cancel_order('{"id": "00000000-0000-0000-0000-0000000000a1"}');
SELECT deliver_order('{"id": "00000000-0000-0000-0000-0000000000a1"}');
SELECT deliver_order('{"id": "00000000-0000-0000-0000-0000000000a2"}');
SELECT erase_order_events('{"id": "00000000-0000-0000-0000-0000000000a1", "reason": "Smoke"}');
SELECT rebuild_order('{"id": "00000000-0000-0000-0000-0000000000a1"}');
SELECT rebuild_orders('{"limit": 1}');
SELECT replay_order('{"id": "00000000-0000-0000-0000-0000000000a1", "as_of_version": 2}');
SELECT read_order_events('{"after": "0.0.00000000-0000-0000-0000-000000000000.0", "limit": 1}');
SELECT read_order_events('{"after": "x"}');
SELECT data FROM orders;
SELECT data FROM order_events;
SELECT data FROM v_order;
SELECT data FROM v_order_event;
