-- Tables that are only ever appended to, and what the order of events hangs on.

-- Called by the template's author after protect_table(). From then on UPDATE, DELETE and TRUNCATE are refused to
-- everybody, the owner too. The one who may delete is erase_tenant(), by the state of the tenant.
--   changeable  the columns that a row may change in nevertheless,
--   only_when   while this condition on `old` and `new` holds; both or neither
CREATE FUNCTION append_only(table_name regclass, changeable name[] DEFAULT '{}', only_when text DEFAULT 'false')
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    missing text;
BEGIN
    SELECT string_agg(c, ', ') INTO missing
    FROM unnest(changeable) AS c
    WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = table_name AND a.attname = c AND a.attnum > 0);
    IF missing IS NOT NULL OR (changeable = '{}') <> (only_when = 'false') THEN
        RAISE EXCEPTION '% names changeable columns that it lacks, or no condition for them', table_name
            USING ERRCODE = 'CP003', DETAIL = missing;
    END IF;

    EXECUTE format(
        'CREATE TRIGGER append_only_update BEFORE UPDATE ON %s FOR EACH ROW
         WHEN (NOT coalesce((%s) AND to_jsonb(new) - %L::text[] = to_jsonb(old) - %3$L::text[], false))
         EXECUTE FUNCTION tenancy.refuse_change()', table_name, only_when, changeable);
    EXECUTE format('CREATE TRIGGER append_only_delete BEFORE DELETE ON %s FOR EACH ROW
                    EXECUTE FUNCTION tenancy.refuse_change()', table_name);
    EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT
                    EXECUTE FUNCTION tenancy.refuse_change()', table_name);
END
$$;

-- SECURITY DEFINER, because cp_owner, which erases, may not read the tenants.
CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Neither state lets a request in: what is deleted then is a tenant, not a piece of its history.
    IF tg_op = 'DELETE' AND EXISTS (
        SELECT FROM tenancy.tenants t WHERE t.id = old.tenant_id AND t.state IN ('provisioning', 'deleting')
    ) THEN
        RETURN old;
    END IF;
    RAISE EXCEPTION '% is only ever appended to', tg_table_name USING ERRCODE = 'insufficient_privilege';
END
$$;

-- Transaction ids order events only within one server. What a tenant brought along from another one was written before
-- it arrived, by transactions that have ended: (arrival, transaction id) goes on rising.
CREATE FUNCTION current_arrival() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT t.arrival FROM tenancy.tenants t WHERE t.id = tenancy.current_tenant_id());
END
$$;

REVOKE ALL ON FUNCTION append_only(regclass, name[], text), refuse_change(), current_arrival() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append_only(regclass, name[], text), refuse_change() TO cp_owner;
GRANT EXECUTE ON FUNCTION current_arrival() TO cp_definer, cp_request;
