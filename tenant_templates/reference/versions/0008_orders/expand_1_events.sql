-- Orders as streams of events. tb_order_event is what happened, and it is only ever appended to.

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
    -- event before it: so a stream is in order in the feed too. The arrival of the tenant on this server leads.
    arrival bigint NOT NULL DEFAULT tenancy.current_arrival(),
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
CREATE INDEX tb_order_event_feed ON tb_order_event (tenant_id, arrival, transaction_id, stream_id, version);
CREATE UNIQUE INDEX tb_order_event_idempotency_key ON tb_order_event (tenant_id, stream_id, idempotency_key)
WHERE idempotency_key IS NOT NULL;
SELECT tenancy.protect_table('tb_order_event', 'functions');
-- The one change: a payload goes, once, and a logged erasure is named in its place.
SELECT tenancy.append_only(
    'tb_order_event', '{data, erasure_id}', 'old.erasure_id IS NULL AND new.erasure_id IS NOT NULL');

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

-- The feed of all orders: {events, next}, where `next` is the `after` of the next call. Each event comes once and none
-- is skipped: what has been written while an older transaction is still at work waits until that has ended.
CREATE FUNCTION fn_read_order_events(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "after": {"type": "string",
                  "pattern": "^\\d{1,18}\\.\\d{1,19}\\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\\.\\d{1,9}$",
                  "message": "must be the next of an earlier answer"},
        "limit": {"type": "integer", "min": 1, "max": 1000}
    }');
    place text[] := string_to_array(coalesce(input ->> 'after', '0.0.00000000-0000-0000-0000-000000000000.0'), '.');
    after_arrival bigint;
    after_transaction xid8;
    after_stream uuid;
    after_version integer;
    events jsonb;
    next_place text;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    after_arrival := place[1];
    after_transaction := place[2];
    after_stream := place[3];
    after_version := place[4];

    SELECT coalesce(jsonb_agg(v.data ORDER BY e.arrival, e.transaction_id, e.stream_id, e.version), '[]'),
           (array_agg(concat_ws('.', e.arrival, e.transaction_id, e.stream_id, e.version)
                      ORDER BY e.arrival DESC, e.transaction_id DESC, e.stream_id DESC, e.version DESC))[1]
    INTO events, next_place
    FROM (
        SELECT o.tenant_id, o.arrival, o.transaction_id, o.stream_id, o.version
        FROM tb_order_event AS o
        WHERE o.tenant_id = tenancy.current_tenant_id()
          AND (o.arrival, o.transaction_id, o.stream_id, o.version)
              > (after_arrival, after_transaction, after_stream, after_version)
          AND (o.transaction_id < pg_snapshot_xmin(pg_current_snapshot()) OR o.arrival < tenancy.current_arrival())
        ORDER BY o.arrival, o.transaction_id, o.stream_id, o.version
        LIMIT coalesce((input ->> 'limit')::integer, 100)
    ) AS e
    JOIN v_order_event AS v ON v.tenant_id = e.tenant_id AND v.stream_id = e.stream_id AND v.version = e.version;
    RETURN tenancy.mutation_result(
        true, 'ok', 'These events are next.',
        jsonb_build_object('events', events, 'next', coalesce(next_place, input ->> 'after')));
END
$$;
