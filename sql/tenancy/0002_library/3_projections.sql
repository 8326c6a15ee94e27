-- Tables that are kept equal to a view: tv_x (tenant_id, id, data, version, synced_at) holds what the view `definition`
-- (tenant_id, id, data) computes for each row of the table `source`. Functions that change what the view reads sync the
-- keys they affect, in the same transaction. A key's version rises by one with each change of its data, for ever: what
-- is gone keeps its row, without data.
-- Documents are looked up key by key, since a join may compute those of the whole table.

-- Brings the rows of `keys` up to date and answers what became of each key: synced, unchanged, removed or not_found.
-- The first statement locks the sources, so that two transactions do one key one after the other, and all keys in one
-- order. The next one has a snapshot of its own, in which all that the lock waited for is committed. NO KEY, because
-- children's foreign keys lock the source too.
CREATE FUNCTION sync_projection(projection regclass, definition regclass, source regclass, keys uuid[])
RETURNS TABLE (key uuid, outcome text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'  -- documents render timestamps in the session's zone: another one is no change
AS $$
DECLARE
    tenant uuid := tenancy.current_tenant_id();
    wanted uuid[] := ARRAY(SELECT DISTINCT k FROM unnest(keys) AS k WHERE k IS NOT NULL ORDER BY k);
    locked regclass;
BEGIN
    -- The projection's rows too: of a source that is gone they are all there is to lock.
    FOREACH locked IN ARRAY ARRAY[source, projection] LOOP
        EXECUTE format('SELECT FROM %s WHERE tenant_id = $1 AND id = ANY ($2) ORDER BY id FOR NO KEY UPDATE', locked)
        USING tenant, wanted;
    END LOOP;

    RETURN QUERY EXECUTE format(
        'WITH fresh AS MATERIALIZED (
             SELECT k.id, (SELECT d.data FROM %2$s AS d WHERE d.tenant_id = $1 AND d.id = k.id) AS data
             FROM unnest($2) AS k (id)
         ), stored AS (
             INSERT INTO %1$s AS p (tenant_id, id, data, version, synced_at)
             SELECT $1, id, data, 1, clock_timestamp() FROM fresh WHERE data IS NOT NULL ORDER BY id
             ON CONFLICT (tenant_id, id) DO UPDATE
                 SET data = excluded.data, version = p.version + 1, synced_at = excluded.synced_at
                 WHERE p.data IS DISTINCT FROM excluded.data
             RETURNING id
         ), removed AS (
             UPDATE %1$s AS p
             SET data = NULL, version = p.version + 1, synced_at = clock_timestamp()
             FROM fresh AS f
             WHERE f.data IS NULL AND p.tenant_id = $1 AND p.id = f.id AND p.data IS NOT NULL
             RETURNING p.id
         )
         SELECT f.id, CASE WHEN s.id IS NOT NULL THEN ''synced''
                           WHEN f.data IS NOT NULL THEN ''unchanged''
                           WHEN r.id IS NOT NULL THEN ''removed''
                           ELSE ''not_found'' END
         FROM fresh AS f LEFT JOIN stored AS s ON s.id = f.id LEFT JOIN removed AS r ON r.id = f.id
         ORDER BY f.id', projection, definition)
    USING tenant, wanted;
END
$$;

-- Compares the next `max` keys after `after` and answers those that differ, with the last key compared (null when there
-- was none left) and the number of keys compared. A key can be on either side only.
CREATE FUNCTION projection_drift(
    projection regclass, definition regclass, after uuid DEFAULT NULL, max integer DEFAULT 500,
    OUT last_key uuid, OUT compared integer, OUT drifted uuid[]
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    page text := format('(SELECT id FROM %%s WHERE tenant_id = $1 %s ORDER BY id LIMIT $3)',
                        CASE WHEN after IS NOT NULL THEN 'AND id > $2' END);
BEGIN
    EXECUTE format(
        'SELECT (array_agg(k.id ORDER BY k.id DESC))[1], count(*), coalesce(array_agg(k.id ORDER BY k.id) FILTER (
                    WHERE (SELECT d.data FROM %2$s AS d WHERE d.tenant_id = $1 AND d.id = k.id) IS DISTINCT FROM
                          (SELECT p.data FROM %1$s AS p WHERE p.tenant_id = $1 AND p.id = k.id)), ''{}'')
         FROM (SELECT id FROM (%3$s UNION %4$s) AS both_sides ORDER BY id LIMIT $3) AS k',
        projection, definition, format(page, projection), format(page, definition))
    INTO last_key, compared, drifted
    USING tenancy.current_tenant_id(), after, max;
END
$$;

-- Syncs what has drifted after `after`, in at most `chunks` chunks of 500 keys or, without that, to the end. A job calls
-- it with one chunk per transaction until `last_key` is null.
CREATE FUNCTION resync_projection(
    projection regclass, definition regclass, source regclass, after uuid DEFAULT NULL, chunks integer DEFAULT NULL,
    OUT last_key uuid, OUT compared integer, OUT repaired uuid[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    drift record;
    done integer := 0;
BEGIN
    compared := 0;
    repaired := '{}';
    last_key := after;
    LOOP
        SELECT * INTO drift FROM tenancy.projection_drift(projection, definition, last_key);
        PERFORM FROM tenancy.sync_projection(projection, definition, source, drift.drifted);
        last_key := drift.last_key;
        compared := compared + drift.compared;
        repaired := repaired || drift.drifted;
        done := done + 1;
        EXIT WHEN last_key IS NULL OR done = chunks;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION
    sync_projection(regclass, regclass, regclass, uuid[]),
    projection_drift(regclass, regclass, uuid, integer),
    resync_projection(regclass, regclass, regclass, uuid, integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    sync_projection(regclass, regclass, regclass, uuid[]),
    projection_drift(regclass, regclass, uuid, integer),
    resync_projection(regclass, regclass, regclass, uuid, integer)
    TO cp_owner, cp_definer;
