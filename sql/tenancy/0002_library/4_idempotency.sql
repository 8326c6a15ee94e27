-- Exactly once: a call that bears a key runs once, and its repetition gets the answer of the first.

-- Called by the template's author, as cp_owner and with the home's schema first on the path. Creates
--   tb_idempotency_key      who called what with which key, and the answer; no request role may read it
--   fn_claim_call(…)        takes a key for a call
--   fn_keep_result(…)       stores the call's answer
-- The two run as cp_definer and are nothing but a way in for call_once(): template.toml lists them under [helpers].
CREATE FUNCTION create_idempotency_keys() RETURNS void
LANGUAGE plpgsql  -- without a path of its own, because it asks for the caller's
AS $$
DECLARE
    home text := pg_catalog.quote_ident(pg_catalog.current_schema());
BEGIN
    EXECUTE pg_catalog.format($sql$
        CREATE TABLE %1$s.tb_idempotency_key (
            tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
            user_id uuid NOT NULL DEFAULT tenancy.current_user_id(),
            key text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
            function text NOT NULL,
            input_hash bytea NOT NULL,
            result jsonb,            -- null while the call runs, which nobody but its own transaction sees
            created_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant_id, user_id, key)
        );
        CREATE INDEX tb_idempotency_key_created_at ON %1$s.tb_idempotency_key USING brin (created_at);
        CREATE FUNCTION %1$s.fn_claim_call(key text, function text, input jsonb) RETURNS jsonb
        VOLATILE SECURITY DEFINER
        RETURN tenancy.claim_call('%1$s.tb_idempotency_key', key, function, input);
        CREATE FUNCTION %1$s.fn_keep_result(key text, result jsonb) RETURNS void
        VOLATILE SECURITY DEFINER
        RETURN tenancy.keep_result('%1$s.tb_idempotency_key', key, result);
    $sql$, home);
    PERFORM tenancy.protect_table((home || '.tb_idempotency_key')::regclass, 'functions alone');
END
$$;

-- Null when the call is to be made now, else the answer: the stored one, or a conflict when the key belongs to another
-- call of this user. While the first call runs, the second waits here for its end.
CREATE FUNCTION claim_call(ledger regclass, key text, function text, input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hash bytea := sha256(convert_to(input::text, 'UTF8'));  -- of jsonb: neither spaces nor the order of keys count
    claimed boolean;
    found_function text;
    found_hash bytea;
    found_result jsonb;
BEGIN
    EXECUTE format('INSERT INTO %s (key, function, input_hash) VALUES ($1, $2, $3)
                    ON CONFLICT (tenant_id, user_id, key) DO NOTHING RETURNING true', ledger)
    INTO claimed USING key, function, hash;
    IF claimed THEN
        RETURN NULL;
    END IF;
    EXECUTE format('SELECT function, input_hash, result FROM %s
                    WHERE tenant_id = $1 AND user_id = $2 AND key = $3', ledger)
    INTO found_function, found_hash, found_result
    USING tenancy.current_tenant_id(), tenancy.current_user_id(), key;
    IF found_result IS NULL OR (found_function, found_hash) IS DISTINCT FROM (function, hash) THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'The idempotency key belongs to another call.');
    END IF;
    RETURN found_result;
END
$$;

CREATE FUNCTION keep_result(ledger regclass, key text, result jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('UPDATE %s SET result = $1
                    WHERE tenant_id = $2 AND user_id = $3 AND key = $4 AND result IS NULL', ledger)
    USING result, tenancy.current_tenant_id(), tenancy.current_user_id(), key;
END
$$;

-- Calls `routine`, a function of an API schema that takes one jsonb, once per key of the current user. With the rights
-- of the caller: what he may not call, he may not call this way either. An exception undoes the claim with the rest.
CREATE FUNCTION call_once(key text, routine regproc, input jsonb) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    home text;
    name text;
    result jsonb;
BEGIN
    SELECT pg_catalog.quote_ident(pg_catalog.regexp_replace(n.nspname, '__api_v[0-9]+$', '')),
           pg_catalog.format('%I.%I', n.nspname, p.proname)
    INTO STRICT home, name
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid = routine;

    EXECUTE 'SELECT ' || home || '.fn_claim_call($1, $2, $3)' INTO result USING key, name, input;
    IF result IS NOT NULL THEN
        RETURN result;
    END IF;
    EXECUTE 'SELECT ' || name || '($1)' INTO result USING input;
    IF result IS NULL THEN
        RAISE EXCEPTION '% answered nothing', name USING ERRCODE = 'internal_error';
    END IF;
    EXECUTE 'SELECT ' || home || '.fn_keep_result($1, $2)' USING key, result;
    RETURN result;
END
$$;

CREATE FUNCTION purge_idempotency_keys(ledger regclass, older_than interval, batch integer DEFAULT 10000)
RETURNS integer
VOLATILE
RETURN tenancy.purge_rows(ledger, 'created_at', older_than, batch);

REVOKE ALL ON FUNCTION
    create_idempotency_keys(), claim_call(regclass, text, text, jsonb), keep_result(regclass, text, jsonb),
    call_once(text, regproc, jsonb), purge_idempotency_keys(regclass, interval, integer)
    FROM PUBLIC;
-- cp_owner creates the two functions, cp_definer runs them.
GRANT EXECUTE ON FUNCTION claim_call(regclass, text, text, jsonb), keep_result(regclass, text, jsonb)
    TO cp_owner, cp_definer;
GRANT EXECUTE ON FUNCTION create_idempotency_keys(), purge_idempotency_keys(regclass, interval, integer) TO cp_owner;
GRANT EXECUTE ON FUNCTION call_once(text, regproc, jsonb) TO cp_request;
