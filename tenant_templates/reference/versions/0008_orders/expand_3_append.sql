-- The two ways to write tb_order_event: appending, and erasing what an event said.

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
    here bigint := tenancy.current_arrival();
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
               SELECT FROM jsonb_array_elements(events) WITH ORDINALITY AS given (again, n)
               JOIN tb_order_event AS o ON o.tenant_id = e.tenant_id AND o.stream_id = e.stream_id
                                       AND o.version = e.version + n - 1 AND o.erasure_id IS NULL
               WHERE (o.type, o.data) <> (again ->> 'type', again -> 'data'))
    INTO first_version, same
    FROM tb_order_event AS e
    WHERE e.tenant_id = tenancy.current_tenant_id() AND e.stream_id = stream AND e.idempotency_key = key;
    IF NOT same THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'The idempotency key was used for other events.');
    END IF;

    IF first_version IS NULL THEN
        SELECT e.version, e.arrival, e.transaction_id, e.recorded_at INTO last_event
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
        FOR event IN
            SELECT e ->> 'type' AS type, n FROM jsonb_array_elements(events) WITH ORDINALITY AS given (e, n)
        LOOP
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
            stream_id, version, type, data, arrival, transaction_id, recorded_at, idempotency_key, appended)
        SELECT stream, actual + n, e ->> 'type', e -> 'data', here,
               CASE WHEN last_event.arrival = here THEN greatest(last_event.transaction_id, pg_current_xact_id())
                    ELSE pg_current_xact_id() END,
               greatest(last_event.recorded_at, clock_timestamp()),
               CASE WHEN n = 1 THEN key END, CASE WHEN n = 1 AND key IS NOT NULL THEN many END
        FROM jsonb_array_elements(events) WITH ORDINALITY AS given (e, n);
        PERFORM fn_store_order(fn_order_state(stream, state));
        first_version := actual + 1;
    END IF;
    RETURN tenancy.mutation_result(
        true, 'appended', 'The events were appended.',
        jsonb_build_object(
            'stream_id', stream,
            'version', first_version + many - 1,
            'versions', to_jsonb(ARRAY(SELECT generate_series(first_version, first_version + many - 1)))));
END
$$;

-- Erases what events said, all of an order or those of given versions, and keeps that they happened.
CREATE FUNCTION fn_erase_order_events(input jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "versions": {"type": "array", "min": 1, "max": 1000, "items": {"type": "integer", "min": 1, "max": 2000000000}},
        "reason": {"type": "string", "required": true, "min": 1, "max": 500}
    }');
    stream uuid;
    erased integer[];
    erasure uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    ELSIF NOT 'admin' = ANY (tenancy.current_roles()) THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only an admin may erase.');
    END IF;
    stream := input ->> 'id';
    PERFORM fn_lock_order(stream);

    SELECT array_agg(e.version) INTO erased
    FROM tb_order_event AS e
    WHERE e.tenant_id = tenancy.current_tenant_id() AND e.stream_id = stream AND e.erasure_id IS NULL
      AND (input ->> 'versions' IS NULL OR input -> 'versions' @> to_jsonb(e.version));
    IF erased IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is nothing to erase.');
    END IF;
    INSERT INTO tb_order_event_erasure (stream_id, reason, erased_by)
    VALUES (stream, input ->> 'reason', tenancy.current_user_id())
    RETURNING id INTO erasure;
    UPDATE tb_order_event AS e SET data = '{}', erasure_id = erasure
    WHERE e.tenant_id = tenancy.current_tenant_id() AND e.stream_id = stream AND e.version = ANY (erased);
    PERFORM fn_store_order(fn_order_state(stream));
    RETURN tenancy.mutation_result(true, 'erased', 'The events were erased.',
                                   jsonb_build_object('id', stream, 'erased', cardinality(erased)));
END
$$;
