CREATE VIEW orders WITH (security_invoker = true) AS
SELECT tenant_id, id, status, created_at, data
FROM v_order;

CREATE VIEW order_events WITH (security_invoker = true) AS
SELECT tenant_id, id, stream_id, version, type, recorded_at, data
FROM v_order_event;

CREATE FUNCTION place_order(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_place_order(input), 'order', 'orders');

CREATE FUNCTION add_order_item(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_add_order_item(input), 'order', 'orders');

CREATE FUNCTION add_order_note(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_add_order_note(input), 'order', 'orders');

CREATE FUNCTION ship_order(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_ship_order(input), 'order', 'orders');

CREATE FUNCTION deliver_order(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_deliver_order(input), 'order', 'orders');

CREATE FUNCTION cancel_order(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_cancel_order(input), 'order', 'orders');

CREATE FUNCTION rebuild_order(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_rebuild_order(input), 'order', 'orders');

CREATE FUNCTION erase_order_events(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_erase_order_events(input), 'order', 'orders');

-- These answer without a document of `orders`.

CREATE FUNCTION append_order_events(input jsonb) RETURNS jsonb
RETURN fn_append_order_events(input);

CREATE FUNCTION read_order_events(input jsonb) RETURNS jsonb
STABLE
RETURN fn_read_order_events(input);

CREATE FUNCTION rebuild_orders(input jsonb) RETURNS jsonb
RETURN fn_rebuild_orders(input);

CREATE FUNCTION replay_order(input jsonb) RETURNS jsonb
STABLE
RETURN fn_replay_order(input);
