-- tv_order is what an order is by now, folded from its events by one function: as they are appended, and whenever it is
-- rebuilt.

CREATE TABLE tv_order (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL,  -- of the stream
    data jsonb NOT NULL,
    version integer NOT NULL,  -- of the last event in it
    synced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    status text NOT NULL GENERATED ALWAYS AS (data ->> 'status') STORED,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX tv_order_created_at ON tv_order (tenant_id, created_at, id);
CREATE INDEX tv_order_status ON tv_order (tenant_id, status, created_at, id);
SELECT tenancy.protect_table('tv_order', 'functions');

CREATE VIEW v_order WITH (security_invoker = true) AS
SELECT tenant_id, id, status, created_at, version, data
FROM tv_order;

-- The status after an event, null when the event cannot happen. `status` is null before the first event, which is
-- Created and only that. A type that is not named here changes nothing.
CREATE FUNCTION fn_next_order_status(status text, event_type text) RETURNS text
IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN status IS NULL OR event_type = 'Created'
        THEN CASE WHEN status IS NULL AND event_type = 'Created' THEN 'pending' END
    WHEN event_type = 'ItemAdded' THEN CASE WHEN status = 'pending' THEN 'pending' END
    WHEN event_type = 'Shipped' THEN CASE WHEN status = 'pending' THEN 'shipped' END
    WHEN event_type = 'Cancelled' THEN CASE WHEN status = 'pending' THEN 'cancelled' END
    WHEN event_type = 'Delivered' THEN CASE WHEN status = 'shipped' THEN 'delivered' END
    ELSE status
END;

-- The reducer: a state and the events after it, [{type, data, version, recorded_at}], make the next state. Lists are
-- collected beside the state and joined to it once, which keeps it linear in the number of events.
CREATE FUNCTION fn_fold_order(state jsonb, events jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    event record;
    status text := state ->> 'status';
    next_status text;
    changes jsonb := '{}';
    items jsonb[] := '{}';
    notes jsonb[] := '{}';
BEGIN
    FOR event IN
        SELECT e ->> 'type' AS type, e -> 'data' AS data, e -> 'recorded_at' AS recorded_at
        FROM jsonb_array_elements(events) AS e
    LOOP
        next_status := fn_next_order_status(status, event.type);
        CONTINUE WHEN next_status IS NULL;  -- never appended, but a reducer fails on nothing
        status := next_status;
        -- An erased event keeps its place and its effect on the status; what it said is gone.
        CASE event.type
        WHEN 'Created' THEN
            changes := changes || jsonb_build_object(
                'customer', event.data -> 'customer', 'created_at', event.recorded_at);
        WHEN 'ItemAdded' THEN
            IF event.data ? 'sku' THEN
                items := array_append(items, event.data);
            END IF;
        WHEN 'NoteAdded' THEN
            IF event.data ? 'note' THEN
                notes := array_append(notes, event.data -> 'note');
            END IF;
        WHEN 'Shipped' THEN
            changes := changes || jsonb_build_object('shipped_on', event.data -> 'shipped_on');
        WHEN 'Delivered' THEN
            changes := changes || jsonb_build_object('delivered_on', event.data -> 'delivered_on');
        WHEN 'Cancelled' THEN
            changes := changes || jsonb_build_object('cancel_reason', event.data -> 'reason');
        ELSE
            NULL;
        END CASE;
    END LOOP;
    RETURN state || changes || jsonb_build_object(
        'status', status,
        'items', (state -> 'items') || to_jsonb(items),
        'item_count', jsonb_array_length(state -> 'items') + cardinality(items),
        'notes', (state -> 'notes') || to_jsonb(notes),
        'version', events -> -1 -> 'version');
END
$$;

-- The state of an order: `base`, an earlier state or null, and the events after it. Null when there are none at all.
CREATE FUNCTION fn_order_state(
    order_id uuid, base jsonb DEFAULT NULL, as_of_version integer DEFAULT NULL, as_of_time timestamptz DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
SET timezone = 'UTC'  -- one instant, one text, whoever rebuilds
AS $$
DECLARE
    events jsonb;
    -- Variables, because a condition with coalesce() in it uses no index under row-level security.
    after_version integer := coalesce((base ->> 'version')::integer, 0);
    last_version integer := coalesce(as_of_version, 2147483647);
    last_time timestamptz := coalesce(as_of_time, 'infinity');
BEGIN
    SELECT jsonb_agg(
               jsonb_build_object('type', e.type, 'data', e.data, 'version', e.version, 'recorded_at', e.recorded_at)
               ORDER BY e.version)
    INTO events
    FROM tb_order_event AS e
    WHERE e.tenant_id = tenancy.current_tenant_id()
      AND e.stream_id = order_id
      AND e.version > after_version AND e.version <= last_version
      AND e.recorded_at <= last_time;
    IF events IS NULL THEN
        RETURN base;
    END IF;
    RETURN fn_fold_order(
        coalesce(base, jsonb_build_object(
            '__typename', 'Order', 'id', order_id, 'version', 0, 'status', NULL, 'customer', NULL, 'created_at', NULL,
            'items', '[]'::jsonb, 'item_count', 0, 'notes', '[]'::jsonb,
            'shipped_on', NULL, 'delivered_on', NULL, 'cancel_reason', NULL)),
        events);
END
$$;

CREATE FUNCTION fn_store_order(state jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO tv_order (id, data, version, created_at)
    VALUES ((state ->> 'id')::uuid, state, (state ->> 'version')::integer, (state ->> 'created_at')::timestamptz)
    ON CONFLICT (tenant_id, id) DO UPDATE
    SET data = excluded.data, version = excluded.version, created_at = excluded.created_at,
        synced_at = excluded.synced_at;
END
$$;

-- Appends to an order and rebuilds of it come one after the other; those of other orders go on.
CREATE FUNCTION fn_lock_order(order_id uuid) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(
        hashtextextended(concat_ws(':', 'order', tenancy.current_tenant_id(), order_id), 0));
END
$$;

-- Folds one order again from its events.
CREATE FUNCTION fn_rebuild_order(input jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{"id": {"type": "uuid", "required": true}}');
    state jsonb;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    PERFORM fn_lock_order((input ->> 'id')::uuid);
    state := fn_order_state((input ->> 'id')::uuid);
    IF state IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such order.');
    END IF;
    PERFORM fn_store_order(state);
    RETURN tenancy.mutation_result(true, 'rebuilt', 'The order was rebuilt.', jsonb_build_object('id', input -> 'id'));
END
$$;

-- Folds the next orders again, in the order of their ids: {rebuilt, next}. Call it with `after` = `next` until that is
-- null; each call is a transaction, and readers see the old documents until it ends.
CREATE FUNCTION fn_rebuild_orders(input jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "after": {"type": "uuid"},
        "limit": {"type": "integer", "min": 1, "max": 500}
    }');
    many integer;
    start uuid;
    ids uuid[];
    last_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    many := coalesce((input ->> 'limit')::integer, 100);
    start := coalesce(input ->> 'after', '00000000-0000-0000-0000-000000000000');
    ids := ARRAY(
        SELECT e.stream_id
        FROM tb_order_event AS e
        WHERE e.tenant_id = tenancy.current_tenant_id() AND e.version = 1 AND e.stream_id > start
        ORDER BY e.stream_id
        LIMIT many);
    last_id := CASE WHEN cardinality(ids) = many THEN ids[many] END;
    FOR place IN 1 .. cardinality(ids) LOOP
        PERFORM fn_lock_order(ids[place]);
        PERFORM fn_store_order(fn_order_state(ids[place]));
    END LOOP;
    -- Documents of orders that never were.
    DELETE FROM tv_order AS o
    WHERE o.tenant_id = tenancy.current_tenant_id() AND o.id > start AND (last_id IS NULL OR o.id <= last_id)
      AND NOT EXISTS (SELECT FROM tb_order_event AS e WHERE e.tenant_id = o.tenant_id AND e.stream_id = o.id);
    RETURN tenancy.mutation_result(true, 'rebuilt', 'The orders were rebuilt.',
                                   jsonb_build_object('rebuilt', cardinality(ids), 'next', last_id));
END
$$;

-- An order as it was after a version, or at a time.
CREATE FUNCTION fn_replay_order(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "as_of_version": {"type": "integer", "min": 1, "max": 2000000000},
        "as_of_time": {"type": "timestamp"}
    }');
    state jsonb;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    state := fn_order_state((input ->> 'id')::uuid, NULL,
                            (input ->> 'as_of_version')::integer, (input ->> 'as_of_time')::timestamptz);
    IF state IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such order, or there was none yet.');
    END IF;
    RETURN tenancy.mutation_result(true, 'ok', 'This is the order as it was.', jsonb_build_object('order', state));
END
$$;
