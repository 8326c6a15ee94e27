-- Answers of expensive queries, kept per tenant until they expire or a source changes.
--
-- The template's catalogue ([cached_queries.*] in template.toml) names each query: a function of the base schema that
-- takes one jsonb and reads nothing but its sources. No SQL crosses this interface, and nobody stores an answer but
-- the function that has just computed it. A hit writes nothing.
--
-- Whether an answer is still right is not a matter of time or of a counter. It is stored with the snapshot that was
-- taken before it was computed, and it holds as long as no change of a source is visible that was not visible in that
-- snapshot. The change may have been made before: what counts is when it was committed.

-- Called by the template's author, as cp_owner and with the home's schema first on the path; the home has a change feed.
-- Creates
--   tb_cached_result    the answers; no request role may read it
--   fn_cached_query(…)  the way in, which runs as cp_definer: template.toml lists it under [helpers]
CREATE FUNCTION create_cache() RETURNS void
LANGUAGE plpgsql  -- without a path of its own, because it asks for the caller's
AS $$
DECLARE
    home text := pg_catalog.quote_ident(pg_catalog.current_schema());
BEGIN
    EXECUTE pg_catalog.format($sql$
        CREATE UNLOGGED TABLE %1$s.tb_cached_result (  -- losing it costs time and nothing else
            tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
            id uuid NOT NULL,               -- a digest of the request
            request jsonb NOT NULL,         -- the query, its parameters, the version and whose view it is
            data jsonb NOT NULL,
            bytes integer NOT NULL,
            snapshot pg_snapshot NOT NULL,  -- what it is sure to show
            transaction_id xid8 NOT NULL,   -- of whoever stored it, whose own later changes it does not show
            computed_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (tenant_id, id)
        );
        CREATE INDEX tb_cached_result_expires_at ON %1$s.tb_cached_result (tenant_id, expires_at);
        CREATE FUNCTION %1$s.fn_cached_query(name text, parameters jsonb, bypass boolean DEFAULT false) RETURNS jsonb
        VOLATILE SECURITY DEFINER
        RETURN tenancy.cached_query('%1$s.tb_cached_result', '%1$s.tb_change', name, parameters, bypass);
    $sql$, home);
    PERFORM tenancy.protect_table((home || '.tb_cached_result')::regclass, 'functions alone');
END
$$;

-- The catalogue's entry of a query in the caller's home, and what else tells one answer from another. P0002 when there
-- is no such entry. A function that could write is none.
CREATE FUNCTION find_cached_query(name text, OUT entry jsonb, OUT routine text, OUT place jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    entry := tenancy.declared('cached_queries', name);
    SELECT format('%I.%I', n.nspname, p.proname),
           -- Snapshots mean nothing to another server, nor to this one once it was restored.
           jsonb_build_array(h.id, h.version, pg_postmaster_start_time())
    INTO routine, place
    FROM tenancy.homes h
    JOIN pg_namespace n ON n.nspname = h.schema_name
    JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = entry ->> 'function' AND p.provolatile <> 'v'
    WHERE h.id = tenancy.caller_home();
    IF routine IS NULL THEN
        RAISE EXCEPTION 'there is no such query' USING ERRCODE = 'no_data_found';
    END IF;
END
$$;

-- One text for one value: parameters that mean the same share an answer. Those that are null are not given.
CREATE FUNCTION normal_parameters(parameters jsonb, rules jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_object_agg(key, CASE rules -> key ->> 'type'
            WHEN 'uuid' THEN to_jsonb((value #>> '{}')::uuid)
            WHEN 'integer' THEN to_jsonb(trim_scale((value #>> '{}')::numeric))
            WHEN 'decimal' THEN to_jsonb(trim_scale((value #>> '{}')::numeric))
            WHEN 'date' THEN to_jsonb((value #>> '{}')::date)
            WHEN 'timestamp' THEN to_jsonb((value #>> '{}')::timestamptz)
            ELSE value
        END), '{}')
        FROM jsonb_each(parameters)
        WHERE value <> 'null'
    );
END
$$;

-- What an answer may depend on of the viewer, by the catalogue: his id, and those of his roles that count.
CREATE FUNCTION viewer_class(entry jsonb, OUT user_id uuid, OUT roles text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    user_id := CASE WHEN (entry ->> 'per_user')::boolean THEN tenancy.current_user_id() END;
    roles := ARRAY(
        SELECT DISTINCT r FROM unnest(tenancy.current_roles()) AS r
        WHERE entry -> 'roles' IS NULL OR entry -> 'roles' ? r ORDER BY r);
END
$$;

-- Computes an answer. It can depend on nothing of the viewer that is not part of his class: while it is computed, that
-- is all that current_user_id() and current_roles() tell.
CREATE FUNCTION compute_query(routine text, parameters jsonb, user_id uuid, roles text[]) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'  -- documents render timestamps in the session's zone
AS $$
DECLARE
    present_user text := current_setting('app.current_user_id', true);
    present_roles text := current_setting('app.current_roles', true);
    answer jsonb;
BEGIN
    PERFORM set_config('app.current_user_id', coalesce(user_id::text, ''), true),
            set_config('app.current_roles', roles::text, true);
    EXECUTE format('SELECT coalesce(%s($1), ''null'')', routine) INTO answer USING parameters;
    -- On an error the whole (sub)transaction goes back, and the settings with it.
    PERFORM set_config('app.current_user_id', present_user, true),
            set_config('app.current_roles', present_roles, true);
    RETURN answer;
END
$$;

-- A stored answer, whether it shows all changes of `sources` that are visible now, and when it was computed.
CREATE FUNCTION find_cached_result(
    cache regclass, feed regclass, sources text[], key uuid, request jsonb,
    OUT data jsonb, OUT current boolean, OUT computed_at timestamptz, OUT expires_at timestamptz
)
LANGUAGE plpgsql  -- not STABLE: each call looks anew
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    seen pg_snapshot;
    stored_by xid8;
BEGIN
    EXECUTE format('SELECT data, computed_at, expires_at, snapshot, transaction_id
                    FROM %s WHERE tenant_id = $1 AND id = $2 AND request = $3', cache)
    INTO data, computed_at, expires_at, seen, stored_by
    USING tenancy.current_tenant_id(), key, request;
    IF data IS NULL THEN
        RETURN;
    END IF;
    -- A statement of its own, so that the planner knows how few changes can be as recent as the snapshot.
    EXECUTE format('SELECT NOT EXISTS (
                        SELECT FROM %s
                        WHERE tenant_id = $1 AND entity = ANY ($2) AND transaction_id >= pg_snapshot_xmin($3)
                          AND (NOT pg_visible_in_snapshot(transaction_id, $3) OR transaction_id = $4))', feed)
    INTO current
    USING tenancy.current_tenant_id(), sources, seen, stored_by;
END
$$;

-- Whether the tenant may store `size` more bytes: 1000 answers and 32 MiB at most. Where it is over that, those that
-- expire first make room.
CREATE FUNCTION make_room(cache regclass, size integer) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fits boolean;
BEGIN
    FOR attempt IN 1..2 LOOP
        EXECUTE format('SELECT count(*) < 1000 AND coalesce(sum(bytes), 0) + $2 <= 33554432
                        FROM %s WHERE tenant_id = $1', cache)
        INTO fits USING tenancy.current_tenant_id(), size;
        EXIT WHEN fits OR attempt = 2;
        EXECUTE format('DELETE FROM %1$s WHERE tenant_id = $1 AND id = ANY (ARRAY(
                            SELECT id FROM %1$s WHERE tenant_id = $1 ORDER BY expires_at LIMIT 100
                            FOR UPDATE SKIP LOCKED))', cache)
        USING tenancy.current_tenant_id();
    END LOOP;
    RETURN fits;
END
$$;

-- The answer of a catalogued query: {result, cache: {status, age, computed_at}}, where age is in seconds and status
--   hit     stored, and as good as computed now
--   miss    computed now
--   stale   expired, while no source has changed and somebody else is computing it anew
--   bypass  computed now, past the cache, which only an admin may ask for
-- P0002 for a name that is not in the catalogue, 22023 for parameters that its entry does not allow, 42501 without a
-- tenant context.
CREATE FUNCTION cached_query(cache regclass, feed regclass, name text, parameters jsonb, bypass boolean) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    catalogued record;
    viewer record;
    problems jsonb;
    sources text[];
    request jsonb;
    key uuid;
    stored record;
    own_changes boolean;
    may_store boolean;
    elected boolean := false;  -- this transaction computes for all
    patience timestamptz := clock_timestamp() + interval '500 milliseconds';
    seen pg_snapshot;
    started timestamptz;
    answer jsonb;
BEGIN
    IF tenancy.current_tenant_id() IS NULL THEN
        RAISE EXCEPTION 'a query needs a tenant context' USING ERRCODE = 'insufficient_privilege';
    ELSIF bypass AND NOT 'admin' = ANY (tenancy.current_roles()) THEN
        RAISE EXCEPTION 'only an admin asks past the cache' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT * INTO catalogued FROM tenancy.find_cached_query(name);
    parameters := coalesce(parameters, '{}');
    problems := tenancy.input_problems(parameters, catalogued.entry -> 'parameters');
    IF problems <> '[]' THEN
        RAISE EXCEPTION 'the parameters are not valid' USING
            ERRCODE = 'invalid_parameter_value', DETAIL = problems::text;
    END IF;
    parameters := tenancy.normal_parameters(parameters, catalogued.entry -> 'parameters');
    SELECT * INTO viewer FROM tenancy.viewer_class(catalogued.entry);
    IF bypass THEN
        RETURN tenancy.cache_answer('bypass', clock_timestamp(),
            tenancy.compute_query(catalogued.routine, parameters, viewer.user_id, viewer.roles));
    END IF;

    sources := ARRAY(SELECT jsonb_array_elements_text(catalogued.entry -> 'sources'));
    request := jsonb_build_object(
        'query', name, 'parameters', parameters, 'viewer', to_jsonb(viewer), 'place', catalogued.place);
    key := encode(substring(sha256(convert_to(request::text, 'UTF8')) FOR 16), 'hex')::uuid;
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE tenant_id = $1 AND entity = ANY ($2)
                                   AND transaction_id = pg_current_xact_id_if_assigned())', feed)
    INTO own_changes USING tenancy.current_tenant_id(), sources;
    -- What is not committed is for nobody else, and a snapshot of the whole transaction may be older than an answer.
    may_store := NOT own_changes AND current_setting('transaction_read_only') = 'off'
        AND current_setting('transaction_isolation') = 'read committed';

    LOOP
        SELECT * INTO stored FROM tenancy.find_cached_result(cache, feed, sources, key, request);
        IF stored.current AND stored.expires_at > clock_timestamp() THEN
            RETURN tenancy.cache_answer('hit', stored.computed_at, stored.data);
        END IF;
        -- The first one computes; whoever is elected after it looks once more, and finds what it has stored.
        EXIT WHEN NOT may_store OR elected;
        elected := pg_try_advisory_xact_lock(
            hashtextextended(concat_ws(':', 'cached_query', tenancy.current_tenant_id(), key), 0));
        IF NOT elected THEN
            IF stored.current AND clock_timestamp() - stored.expires_at < stored.expires_at - stored.computed_at THEN
                RETURN tenancy.cache_answer('stale', stored.computed_at, stored.data);
            END IF;
            EXIT WHEN clock_timestamp() > patience;
            PERFORM pg_sleep(0.01);
        END IF;
    END LOOP;

    seen := pg_current_snapshot();  -- before the answer is computed, which may see more
    started := clock_timestamp();
    answer := tenancy.compute_query(catalogued.routine, parameters, viewer.user_id, viewer.roles);
    -- Only who was elected stores: two would wait for each other at the key.
    IF elected AND octet_length(answer::text) <= (catalogued.entry ->> 'max_bytes')::integer
       AND tenancy.make_room(cache, octet_length(answer::text)) THEN
        EXECUTE format(
            'INSERT INTO %s AS e
                 (id, request, data, bytes, snapshot, transaction_id, computed_at, expires_at)
             VALUES ($1, $2, $3, octet_length($3::text), $4, pg_current_xact_id(), $5, $5 + $6)
             ON CONFLICT (tenant_id, id) DO UPDATE
                 SET request = excluded.request, data = excluded.data, bytes = excluded.bytes,
                     snapshot = excluded.snapshot, transaction_id = excluded.transaction_id,
                     computed_at = excluded.computed_at, expires_at = excluded.expires_at', cache)
        USING key, request, answer, seen, started, make_interval(secs => (catalogued.entry ->> 'ttl')::integer);
    END IF;
    RETURN tenancy.cache_answer('miss', started, answer);
END
$$;

CREATE FUNCTION cache_answer(status text, computed_at timestamptz, answer jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    RETURN jsonb_build_object('result', answer, 'cache', jsonb_build_object(
        'status', status,
        'age', greatest(0, floor(extract(epoch FROM clock_timestamp() - computed_at))::integer),
        'computed_at', computed_at));
END
$$;

-- Deletes at most `batch` answers of all tenants that expired longer than `older_than` ago, and answers how many; as
-- cp_owner. Goes from tenant to tenant along the index, so that it costs what there is to delete.
CREATE FUNCTION evict_cached_results(cache regclass, older_than interval, batch integer DEFAULT 10000) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant uuid := '00000000-0000-0000-0000-000000000000';
    deleted integer;
    total integer := 0;
BEGIN
    LOOP
        EXECUTE format('SELECT tenant_id FROM %s WHERE tenant_id > $1 ORDER BY tenant_id LIMIT 1', cache)
        INTO tenant USING tenant;
        EXIT WHEN tenant IS NULL OR total >= batch;
        EXECUTE format('DELETE FROM %1$s WHERE tenant_id = $1 AND id = ANY (ARRAY(
                            SELECT id FROM %1$s WHERE tenant_id = $1 AND expires_at < $2 ORDER BY expires_at LIMIT $3
                            FOR UPDATE SKIP LOCKED))', cache)
        USING tenant, now() - older_than, batch - total;
        GET DIAGNOSTICS deleted = ROW_COUNT;
        total := total + deleted;
    END LOOP;
    RETURN total;
END
$$;

REVOKE ALL ON FUNCTION
    create_cache(), find_cached_query(text), normal_parameters(jsonb, jsonb), viewer_class(jsonb),
    compute_query(text, jsonb, uuid, text[]), find_cached_result(regclass, regclass, text[], uuid, jsonb),
    make_room(regclass, integer), cached_query(regclass, regclass, text, jsonb, boolean),
    cache_answer(text, timestamptz, jsonb), evict_cached_results(regclass, interval, integer)
    FROM PUBLIC;
-- cp_owner creates fn_cached_query, cp_definer runs it. Requests have no other way in.
GRANT EXECUTE ON FUNCTION
    find_cached_query(text), normal_parameters(jsonb, jsonb), viewer_class(jsonb),
    compute_query(text, jsonb, uuid, text[]), find_cached_result(regclass, regclass, text[], uuid, jsonb),
    make_room(regclass, integer), cached_query(regclass, regclass, text, jsonb, boolean),
    cache_answer(text, timestamptz, jsonb)
    TO cp_owner, cp_definer;
GRANT EXECUTE ON FUNCTION create_cache(), evict_cached_results(regclass, interval, integer) TO cp_owner;
