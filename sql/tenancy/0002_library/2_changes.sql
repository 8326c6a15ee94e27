-- What changed: one row per real change of a published table, written in the transaction that made the change.
-- A table of rows and no NOTIFY: a listener that was away has lost nothing, and no two writers wait for each other.

-- Called by the template's author, as cp_owner and with the home's schema first on the path: creates tb_change.
CREATE FUNCTION create_change_feed() RETURNS void
LANGUAGE plpgsql  -- without a path of its own, because it asks for the caller's
AS $$
DECLARE
    feed text := pg_catalog.format('%I.tb_change', pg_catalog.current_schema());
BEGIN
    EXECUTE pg_catalog.format($sql$
        CREATE TABLE %1$s (
            tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
            id uuid NOT NULL DEFAULT gen_random_uuid(),  -- a sequence would tell of other tenants' changes
            entity text NOT NULL,                        -- the table that changed
            key uuid NOT NULL,
            version bigint NOT NULL,
            transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
            changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (tenant_id, transaction_id, id)
        );
        CREATE INDEX tb_change_entity ON %1$s (tenant_id, entity, transaction_id);
        -- For the purge, which goes through all tenants: the rows lie in the order of time.
        CREATE INDEX tb_change_changed_at ON %1$s USING brin (changed_at);
    $sql$, feed);
    PERFORM tenancy.protect_table(feed::regclass, 'functions');
END
$$;

-- Runs as whoever writes the table: a function of the template, which may write tb_change, as requests may not.
CREATE FUNCTION record_changes() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        EXECUTE format('INSERT INTO %I.tb_change (tenant_id, entity, key, version)
                            SELECT tenant_id, $1, id, version FROM new_rows ORDER BY id', TG_TABLE_SCHEMA)
        USING TG_TABLE_NAME;
    ELSE
        EXECUTE format('INSERT INTO %I.tb_change (tenant_id, entity, key, version)
                            SELECT n.tenant_id, $1, n.id, n.version
                            FROM new_rows n LEFT JOIN old_rows o ON o.tenant_id = n.tenant_id AND o.id = n.id
                            WHERE (o.data, o.version) IS DISTINCT FROM (n.data, n.version)
                            ORDER BY n.id', TG_TABLE_SCHEMA)
        USING TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END
$$;

-- A row that went without a trace would begin again at version 1, and caches would take an old answer for a new one.
-- With the rights of its owner, because it asks whether the tenant itself is going.
CREATE FUNCTION refuse_removal() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN  -- TRUNCATE has no rows to ask about
        IF NOT EXISTS (
            SELECT FROM old_rows o JOIN tenancy.tenants t ON t.id = o.tenant_id
            WHERE t.state NOT IN ('deleting', 'provisioning')
        ) THEN
            RETURN NULL;
        END IF;
    END IF;
    RAISE EXCEPTION 'rows of % are not deleted', TG_TABLE_NAME USING
        ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Delete the source and sync its key: that leaves a row without data.';
END
$$;

-- Lets tb_change tell of each change of a table with the columns tenant_id, id uuid, data jsonb, version bigint.
CREATE FUNCTION publish_changes(published regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- One per event: a trigger with transition tables may not be for several.
    EXECUTE format('CREATE TRIGGER change_of_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows
                        FOR EACH STATEMENT EXECUTE FUNCTION tenancy.record_changes()', published);
    EXECUTE format('CREATE TRIGGER change_of_update AFTER UPDATE ON %s
                        REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
                        FOR EACH STATEMENT EXECUTE FUNCTION tenancy.record_changes()', published);
    EXECUTE format('CREATE TRIGGER change_of_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows
                        FOR EACH STATEMENT EXECUTE FUNCTION tenancy.refuse_removal()', published);
    EXECUTE format('CREATE TRIGGER change_of_truncate BEFORE TRUNCATE ON %s
                        FOR EACH STATEMENT EXECUTE FUNCTION tenancy.refuse_removal()', published);
END
$$;

-- The next changes of the current tenant after a position, at most `max`; (transaction_id, id) of the last row is the
-- position to go on from. Only of transactions before which none is still running: a row that commits later can
-- therefore never stand before a position that was already read. Within a transaction the order means nothing; the
-- versions of a key do.
CREATE FUNCTION read_changes(
    feed regclass,
    after_transaction xid8 DEFAULT '0',
    after_id uuid DEFAULT '00000000-0000-0000-0000-000000000000',
    max integer DEFAULT 500
) RETURNS TABLE (transaction_id xid8, id uuid, entity text, key uuid, version bigint, changed_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT transaction_id, id, entity, key, version, changed_at
         FROM %s
         WHERE tenant_id = $1 AND (transaction_id, id) > ($2, $3)
           AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())
         ORDER BY transaction_id, id LIMIT $4', feed)
    USING tenancy.current_tenant_id(), after_transaction, after_id, max;
END
$$;

-- Deletes at most `batch` rows of all tenants that are older than `older_than`, and answers how many; as cp_owner.
CREATE FUNCTION purge_rows(target regclass, clock name, older_than interval, batch integer DEFAULT 10000)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted integer;
BEGIN
    EXECUTE format('DELETE FROM %1$s WHERE ctid = ANY (ARRAY(
                        SELECT ctid FROM %1$s WHERE %2$I < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))', target, clock)
    USING now() - older_than, batch;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

CREATE FUNCTION purge_changes(feed regclass, older_than interval, batch integer DEFAULT 10000) RETURNS integer
VOLATILE
RETURN tenancy.purge_rows(feed, 'changed_at', older_than, batch);

REVOKE ALL ON FUNCTION
    create_change_feed(), record_changes(), refuse_removal(), publish_changes(regclass),
    read_changes(regclass, xid8, uuid, integer), purge_rows(regclass, name, interval, integer),
    purge_changes(regclass, interval, integer)
    FROM PUBLIC;
-- A trigger function is called by nobody, but cp_owner makes triggers of it.
GRANT EXECUTE ON FUNCTION create_change_feed(), record_changes(), refuse_removal(), publish_changes(regclass) TO cp_owner;
GRANT EXECUTE ON FUNCTION read_changes(regclass, xid8, uuid, integer) TO cp_owner, cp_definer, cp_request;
GRANT EXECUTE ON FUNCTION
    purge_rows(regclass, name, interval, integer), purge_changes(regclass, interval, integer)
    TO cp_owner;
