-- Orders as streams of events. tb_order_event is what happened and is only ever appended to; tv_order is what an order
-- is by now, folded from its events by one function and written in the same transaction.

-- Why payloads were erased, by whom. An event without its payload refers to an entry here.
CREATE TABLE tb_order_event_erasure (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    stream_id uuid NOT NULL,
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    erased_by uuid NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
SELECT tenancy.protect_table('tb_order_event_erasure', 'functions');
SELECT tenancy.append_only('tb_order_event_erasure');

CREATE TABLE tb_order_event (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    stream_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    stream_type text NOT NULL DEFAULT 'Order' CHECK (stream_type = 'Order'),  -- other streams have tables of their own
    type text NOT NULL CHECK (type ~ '^[A-Z][A-Za-z0-9]{0,99}$'),
    data jsonb NOT NULL CHECK (jsonb_typeof(data) = 'object'),
    -- The place in the feed. The transaction that wrote the event or, when that began earlier, the one that wrote the
    -- event before it: so a stream is in order in the feed too. Within the epoch of the tenant's placement.
    epoch bigint NOT NULL DEFAULT tenancy.current_epoch(),
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    recorded_by uuid DEFAULT tenancy.current_user_id(),
    -- On the first event of an append that had a key: how many events were appended with it.
    idempotency_key text CHECK (length(idempotency_key) BETWEEN 1 AND 200),
    appended integer CHECK (appended > 0),
    erasure_id uuid,
    PRIMARY KEY (tenant_id, stream_id, version),
    CHECK ((idempotency_key IS NULL) = (appended IS NULL)),
    CHECK (erasure_id IS NULL OR data = '{}'),
    FOREIGN KEY (tenant_id, erasure_id) REFERENCES tb_order_event_erasure (tenant_id, id)
);
CREATE UNIQUE INDEX tb_order_event_id ON tb_order_event (tenant_id, id);
CREATE INDEX tb_order_event_feed ON tb_order_event (tenant_id, epoch, transaction_id, stream_id, version);
CREATE UNIQUE INDEX tb_order_event_idempotency_key ON tb_order_event (tenant_id, stream_id, idempotency_key)
WHERE idempotency_key IS NOT NULL;
SELECT tenancy.protect_table('tb_order_event', 'functions');
-- The one change: a payload goes, once, and a logged erasure is named in its place.
SELECT tenancy.append_only('tb_order_event', '{data, erasure_id}', 'old.erasure_id IS NULL AND new.erasure_id IS NOT NULL');

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

CREATE VIEW v_order_event WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    stream_id,
    version,
    type,
    recorded_at,
    jsonb_build_object(
        '__typename', 'OrderEvent',
        'id', id,
        'stream_id', stream_id,
        'version', version,
        'type', type,
        'data', data,
        'erased', erasure_id IS NOT NULL,
        'recorded_at', recorded_at
    ) AS data
FROM tb_order_event;

CREATE VIEW v_order WITH (security_invoker = true) AS
SELECT tenant_id, id, status, created_at, version, data
FROM tv_order;

-- What an event of a known type must hold. Events of other types are taken when they are called opaque.
CREATE FUNCTION fn_order_event_types() RETURNS jsonb
IMMUTABLE PARALLEL SAFE
RETURN '{
    "Created": {"customer": {"type": "string", "required": true, "min": 1, "max": 200}},
    "ItemAdded": {"sku": {"type": "string", "required": true, "min": 1, "max": 100},
                  "qty": {"type": "integer", "required": true, "min": 1, "max": 1000000}},
    "NoteAdded": {"note": {"type": "string", "required": true, "min": 1, "max": 2000}},
    "Shipped": {"shipped_on": {"type": "date", "required": true}},
    "Delivered": {"delivered_on": {"type": "date"}},
    "Cancelled": {"reason": {"type": "string", "max": 500}}
}'::jsonb;

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
BEGIN
    SELECT jsonb_agg(
               jsonb_build_object('type', e.type, 'data', e.data, 'version', e.version, 'recorded_at', e.recorded_at)
               ORDER BY e.version)
    INTO events
    FROM tb_order_event AS e
    WHERE e.tenant_id = tenancy.current_tenant_id()
      AND e.stream_id = order_id
      AND e.version > coalesce((base ->> 'version')::integer, 0)
      AND e.version <= coalesce(as_of_version, 2147483647)
      AND e.recorded_at <= coalesce(as_of_time, 'infinity');
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

-- Whether events are of a known type and hold what it asks for, or are called opaque.
CREATE FUNCTION fn_order_event_problems(events jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    types jsonb := fn_order_event_types();
    problems jsonb := '[]';
    event record;
BEGIN
    FOR event IN
        SELECT e ->> 'type' AS type, coalesce((e ->> 'opaque')::boolean, false) AS opaque,
               coalesce(nullif(e -> 'data', 'null'), '{}') AS data, format('events.%s.', n - 1) AS path
        FROM jsonb_array_elements(events) WITH ORDINALITY AS given (e, n)
    LOOP
        IF event.opaque = (types ? event.type) THEN
            problems := problems || jsonb_build_object(
                'path', event.path || 'type', 'code', 'invalid',
                'message', CASE WHEN event.opaque THEN 'is known, so it cannot be opaque'
                                ELSE 'is not known; call it opaque when it is meant' END);
        ELSIF NOT event.opaque THEN
            problems := problems || tenancy.input_problems(event.data, types -> event.type, event.path || 'data.');
        END IF;
    END LOOP;
    RETURN problems;
END
$$;

-- The only way to write an event. Answers {stream_id, version, versions}; a version other than the expected one is a
-- conflict with {expected, actual}; a key that was used before is answered as it was then.
CREATE FUNCTION fn_append_order_events(input jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "stream_id": {"type": "uuid", "required": true},
        "stream_type": {"type": "string", "values": ["Order"]},
        "expected_version": {"type": "integer", "min": 0, "max": 2000000000},
        "events": {"type": "array", "required": true, "min": 1, "max": 1000, "items": {"type": "object", "fields": {
            "type": {"type": "string", "required": true, "pattern": "^[A-Z][A-Za-z0-9]{0,99}$",
                     "message": "must be a name such as ItemAdded"},
            "data": {"type": "object"},
            "opaque": {"type": "boolean"}
        }}},
        "idempotency_key": {"type": "string", "min": 1, "max": 200}
    }');
    stream uuid;
    expected integer;
    key text := input ->> 'idempotency_key';
    events jsonb;
    many integer;
    first_version integer;
    same boolean;
    last_event record;
    actual integer;
    state jsonb;
    event record;
    status text;
    next_status text;
    place_epoch bigint := tenancy.current_epoch();
BEGIN
    IF problems = '[]' THEN
        problems := fn_order_event_problems(input -> 'events');
    END IF;
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    stream := input ->> 'stream_id';
    expected := input ->> 'expected_version';
    SELECT jsonb_agg(jsonb_build_object('type', e -> 'type', 'data', coalesce(nullif(e -> 'data', 'null'), '{}'))
                     ORDER BY n), count(*)
    INTO events, many
    FROM jsonb_array_elements(input -> 'events') WITH ORDINALITY AS given (e, n);

    PERFORM fn_lock_order(stream);  -- versions without gaps, and one winner for each expected version

    SELECT e.version, e.appended = many AND NOT EXISTS (
               SELECT FROM jsonb_array_elements(events) WITH ORDINALITY AS given (event, n)
               JOIN tb_order_event AS o ON o.tenant_id = e.tenant_id AND o.stream_id = e.stream_id
                                       AND o.version = e.version + n - 1 AND o.erasure_id IS NULL
               WHERE (o.type, o.data) <> (event ->> 'type', event -> 'data'))
    INTO first_version, same
    FROM tb_order_event AS e
    WHERE e.tenant_id = tenancy.current_tenant_id() AND e.stream_id = stream AND e.idempotency_key = key;
    IF NOT same THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'The idempotency key was used for other events.');
    END IF;

    IF first_version IS NULL THEN
        SELECT e.version, e.epoch, e.transaction_id, e.recorded_at INTO last_event
        FROM tb_order_event AS e
        WHERE e.tenant_id = tenancy.current_tenant_id() AND e.stream_id = stream
        ORDER BY e.version DESC
        LIMIT 1;
        actual := coalesce(last_event.version, 0);
        IF expected <> actual THEN
            RETURN tenancy.mutation_result(false, 'conflict', 'The order is at another version.',
                                           jsonb_build_object('expected', expected, 'actual', actual));
        END IF;

        SELECT o.data INTO state
        FROM tv_order AS o
        WHERE o.tenant_id = tenancy.current_tenant_id() AND o.id = stream AND o.version = actual;
        state := coalesce(state, fn_order_state(stream));
        status := state ->> 'status';
        FOR event IN SELECT e ->> 'type' AS type, n FROM jsonb_array_elements(events) WITH ORDINALITY AS given (e, n) LOOP
            next_status := fn_next_order_status(status, event.type);
            IF next_status IS NULL THEN
                RETURN tenancy.mutation_result(
                    false, 'invalid', format('An order that is %s takes no %s.', coalesce(status, 'new'), event.type),
                    errors => jsonb_build_array(jsonb_build_object(
                        'path', format('events.%s.type', event.n - 1), 'code', 'transition',
                        'message', 'is not possible in this status')));
            END IF;
            status := next_status;
        END LOOP;

        INSERT INTO tb_order_event (
            stream_id, version, type, data, epoch, transaction_id, recorded_at, idempotency_key, appended)
        SELECT stream, actual + n, e ->> 'type', e -> 'data', place_epoch,
               CASE WHEN last_event.epoch = place_epoch THEN greatest(last_event.transaction_id, pg_current_xact_id())
                    ELSE pg_current_xact_id() END,
               greatest(last_event.recorded_at, clock_timestamp()),
               CASE WHEN n = 1 THEN key END, CASE WHEN n = 1 AND key IS NOT NULL THEN many END
        FROM jsonb_array_elements(events) WITH ORDINALITY AS given (e, n);
        PERFORM fn_store_order(fn_order_state(stream, state));
        first_version := actual + 1;
    END IF;
    RETURN tenancy.mutation_result(
        true, 'appended', 'The events were appended.',
        jsonb_build_object('stream_id', stream, 'version', first_version + many - 1,
                           'versions', to_jsonb(ARRAY(SELECT generate_series(first_version, first_version + many - 1)))));
END
$$;

-- Appends one event. The fields of `input` that are not named here are the event's.
CREATE FUNCTION fn_append_to_order(input jsonb, event_type text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    result jsonb;
BEGIN
    IF NOT EXISTS (
        SELECT FROM tb_order_event AS e
        WHERE e.tenant_id = tenancy.current_tenant_id() AND e.stream_id = (input ->> 'id')::uuid AND e.version = 1
    ) THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such order.');
    END IF;
    result := fn_append_order_events(jsonb_strip_nulls(jsonb_build_object(
        'stream_id', input -> 'id',
        'expected_version', input -> 'expected_version',
        'idempotency_key', input -> 'idempotency_key',
        'events', jsonb_build_array(jsonb_build_object(
            'type', event_type, 'data', input - ARRAY['id', 'expected_version', 'idempotency_key'])))));
    IF NOT (result ->> 'success')::boolean THEN
        RETURN result;
    END IF;
    RETURN tenancy.mutation_result(true, 'updated', 'The order was changed.', jsonb_build_object('id', input -> 'id'));
END
$$;

CREATE FUNCTION fn_place_order(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid"},
        "customer": {"type": "string", "required": true, "min": 1, "max": 200},
        "items": {"type": "array", "max": 900, "items": {"type": "object", "fields": {
            "sku": {"type": "string", "required": true, "min": 1, "max": 100},
            "qty": {"type": "integer", "required": true, "min": 1, "max": 1000000}
        }}},
        "idempotency_key": {"type": "string", "min": 1, "max": 200}
    }');
    new_id uuid := gen_random_uuid();
    result jsonb;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    IF input ->> 'id' IS NOT NULL THEN
        new_id := input ->> 'id';
    ELSIF input ->> 'idempotency_key' IS NOT NULL THEN
        -- The same key finds the same order.
        new_id := encode(substr(sha256(convert_to(
            concat_ws(':', 'order', tenancy.current_tenant_id(), input ->> 'idempotency_key'), 'UTF8')), 1, 16), 'hex');
    END IF;
    result := fn_append_order_events(jsonb_strip_nulls(jsonb_build_object(
        'stream_id', new_id,
        'expected_version', 0,
        'idempotency_key', input -> 'idempotency_key',
        'events', jsonb_build_array(
                jsonb_build_object('type', 'Created', 'data', jsonb_build_object('customer', input -> 'customer')))
            || coalesce((SELECT jsonb_agg(jsonb_build_object('type', 'ItemAdded', 'data', item) ORDER BY n)
                         FROM jsonb_array_elements(nullif(input -> 'items', 'null')) WITH ORDINALITY AS i (item, n)),
                        '[]'))));
    IF NOT (result ->> 'success')::boolean THEN
        RETURN result;
    END IF;
    RETURN tenancy.mutation_result(true, 'created', 'The order was placed.', jsonb_build_object('id', new_id));
END
$$;

CREATE FUNCTION fn_add_order_item(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "sku": {"type": "string", "required": true, "min": 1, "max": 100},
        "qty": {"type": "integer", "required": true, "min": 1, "max": 1000000},
        "expected_version": {"type": "integer", "min": 0, "max": 2000000000},
        "idempotency_key": {"type": "string", "min": 1, "max": 200}
    }');
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    RETURN fn_append_to_order(input, 'ItemAdded');
END
$$;

CREATE FUNCTION fn_add_order_note(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "note": {"type": "string", "required": true, "min": 1, "max": 2000},
        "expected_version": {"type": "integer", "min": 0, "max": 2000000000},
        "idempotency_key": {"type": "string", "min": 1, "max": 200}
    }');
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    RETURN fn_append_to_order(input, 'NoteAdded');
END
$$;

CREATE FUNCTION fn_ship_order(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "shipped_on": {"type": "date", "required": true},
        "expected_version": {"type": "integer", "min": 0, "max": 2000000000},
        "idempotency_key": {"type": "string", "min": 1, "max": 200}
    }');
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    RETURN fn_append_to_order(input, 'Shipped');
END
$$;

CREATE FUNCTION fn_deliver_order(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "delivered_on": {"type": "date"},
        "expected_version": {"type": "integer", "min": 0, "max": 2000000000},
        "idempotency_key": {"type": "string", "min": 1, "max": 200}
    }');
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    RETURN fn_append_to_order(input, 'Delivered');
END
$$;

CREATE FUNCTION fn_cancel_order(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "reason": {"type": "string", "max": 500},
        "expected_version": {"type": "integer", "min": 0, "max": 2000000000},
        "idempotency_key": {"type": "string", "min": 1, "max": 200}
    }');
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    RETURN fn_append_to_order(input, 'Cancelled');
END
$$;
