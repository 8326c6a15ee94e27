-- What people do with orders, each as an append of its events.

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
