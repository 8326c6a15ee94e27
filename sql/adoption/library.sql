-- What the schema of an adoption holds beside views and projections. Run as the adoption's reader role with that schema
-- first in the path; safe to run again. Nothing here needs anything outside of this schema.

CREATE TABLE IF NOT EXISTS adopted_tables (
    name text PRIMARY KEY,             -- schema.table of the legacy side
    source text NOT NULL,              -- the same, quoted
    view_name text NOT NULL,
    projection text NOT NULL,
    type_name text NOT NULL,
    key_columns text[] NOT NULL,       -- as views and projections call them
    source_key_columns text[] NOT NULL, -- as the legacy table does
    lookups text[] NOT NULL,
    enforced boolean NOT NULL,         -- a constraint of the legacy table keeps the key unique
    shape text NOT NULL                -- of the projection; another one means another table
);

CREATE TABLE IF NOT EXISTS adopted_entities (
    name text PRIMARY KEY,
    table_name text NOT NULL UNIQUE REFERENCES adopted_tables (name),
    fields jsonb NOT NULL              -- what may be written: {"column": {"required": true, "nullable": false}}
);

-- One walk at a time goes through a table; single rows are synced beside each other, but not beside a walk. What is
-- read after the lock is newer than what whoever held it before has written.
CREATE OR REPLACE FUNCTION lock_table(table_name text, key jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    whole bigint := hashtextextended(concat_ws(':', 'adoption', current_schema(), table_name), 0);
BEGIN
    IF key IS NULL THEN
        PERFORM pg_advisory_xact_lock(whole);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(whole);
        PERFORM pg_advisory_xact_lock(hashtextextended(
            concat_ws(':', 'adoption', current_schema(), table_name, key::text), 0));
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION adopted_table(table_name text) RETURNS adopted_tables
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    found_one adopted_tables;
BEGIN
    SELECT * INTO found_one FROM adopted_tables WHERE name = table_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such table is adopted here' USING ERRCODE = 'P0002';
    END IF;
    RETURN found_one;
END
$$;

-- `alias.a, alias.b` of an adopted table's key.
CREATE OR REPLACE FUNCTION key_list(t adopted_tables, alias text) RETURNS text
IMMUTABLE
BEGIN ATOMIC
    SELECT string_agg(format('%I.%I', alias, k), ', ' ORDER BY position)
    FROM unnest((t).key_columns) WITH ORDINALITY AS u (k, position);
END;

-- The values of `key`, {"a": …}, as literals of the projection's types, in the order of the key.
CREATE OR REPLACE FUNCTION key_values(t adopted_tables, key jsonb) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    answer text;
BEGIN
    SELECT string_agg(format('%L::%s', key ->> k, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY position)
    INTO answer
    FROM unnest(t.key_columns) WITH ORDINALITY AS u (k, position)
    JOIN pg_attribute AS a ON a.attrelid = format('%I', t.projection)::regclass AND a.attname = k;
    RETURN answer;
END
$$;

-- `jsonb_build_object('a', alias.a, …)`
CREATE OR REPLACE FUNCTION key_object(t adopted_tables, alias text) RETURNS text
IMMUTABLE
BEGIN ATOMIC
    SELECT format('jsonb_build_object(%s)', string_agg(format('%L, %I.%I', k, alias, k), ', ' ORDER BY position))
    FROM unnest((t).key_columns) WITH ORDINALITY AS u (k, position);
END;

-- Make the projection's rows of one range equal to the view's. `condition` holds for both, under the alias `r`, and is
-- written by the two functions below; nobody else may call this one.
CREATE OR REPLACE FUNCTION sync_where(t adopted_tables, condition text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    columns text := (SELECT string_agg(format('%I', c), ', ')
                     FROM unnest(t.key_columns || t.lookups || ARRAY['data']) AS c);
    changes text := (SELECT string_agg(format('%I = EXCLUDED.%I', c, c), ', ')
                     FROM unnest(t.lookups || ARRAY['data']) AS c);
    keys text := (SELECT string_agg(format('%I', c), ', ') FROM unnest(t.key_columns) AS c);
    duplicates boolean := false;
    answer jsonb;
BEGIN
    IF NOT t.enforced THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %I AS r WHERE %s GROUP BY %s HAVING count(*) > 1)',
                       t.view_name, condition, keys) INTO duplicates;
        IF duplicates THEN
            RAISE EXCEPTION 'the key of % is not unique any more', t.name USING ERRCODE = '21000';
        END IF;
    END IF;
    EXECUTE format($sql$
        WITH source AS MATERIALIZED (SELECT %1$s FROM %2$I AS r WHERE %4$s),
        due AS (
            -- Only the range, or each chunk would read the whole projection.
            SELECT s.* FROM source AS s LEFT JOIN (SELECT * FROM %3$I AS r WHERE %4$s) AS p ON (%5$s) = (%6$s)
            WHERE p.version IS NULL OR p.data IS DISTINCT FROM s.data
        ),
        written AS (
            INSERT INTO %3$I AS p (%1$s) SELECT %1$s FROM due
            ON CONFLICT (%7$s) DO UPDATE SET %8$s, version = p.version + 1, synced_at = clock_timestamp()
            RETURNING p.version = 1 AS is_new
        ),
        removed AS (
            DELETE FROM %3$I AS r WHERE %4$s AND NOT EXISTS (SELECT FROM source AS s WHERE (%5$s) = (%9$s)) RETURNING 1
        )
        SELECT jsonb_build_object(
            'rows', (SELECT count(*) FROM source),
            'inserted', (SELECT count(*) FROM written WHERE is_new),
            'updated', (SELECT count(*) FROM written WHERE NOT is_new),
            'deleted', (SELECT count(*) FROM removed))
        $sql$, columns, t.view_name, t.projection, condition, key_list(t, 's'), key_list(t, 'p'), keys, changes,
        key_list(t, 'r'))
    INTO answer;
    RETURN answer;
END
$$;

-- The next `size` rows of a walk in the order of the key, from behind `after` (null = from the start): brings the
-- projection up to date for them and answers the counts and `last`, the key to go on from; null = that was the end.
CREATE OR REPLACE FUNCTION sync_chunk(table_name text, after jsonb, size integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
SET TimeZone = 'UTC'
SET DateStyle = 'ISO, YMD'
SET IntervalStyle = 'postgres'
SET bytea_output = 'hex'
SET extra_float_digits = 1
AS $$
DECLARE
    t adopted_tables := adopted_table(table_name);
    start text := CASE WHEN after IS NULL THEN 'true'
                       ELSE format('(%s) > (%s)', key_list(t, 'r'), key_values(t, after)) END;
    last jsonb;
BEGIN
    PERFORM lock_table(table_name, NULL);
    EXECUTE format('SELECT %s FROM %I AS r WHERE %s ORDER BY %s OFFSET %s LIMIT 1',
                   key_object(t, 'r'), t.view_name, start, key_list(t, 'r'), size - 1)
    INTO last;
    RETURN jsonb_build_object('last', last) || sync_where(t, CASE
        WHEN last IS NULL THEN start
        ELSE format('%s AND (%s) <= (%s)', start, key_list(t, 'r'), key_values(t, last)) END);
END
$$;

-- One row, as the transaction that calls this sees it: for applications that write to the legacy table themselves. While
-- the table is suspended nothing is done, and their writes go on; resuming catches up.
CREATE OR REPLACE FUNCTION sync_row(table_name text, key jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
SET TimeZone = 'UTC'
SET DateStyle = 'ISO, YMD'
SET IntervalStyle = 'postgres'
SET bytea_output = 'hex'
SET extra_float_digits = 1
AS $$
DECLARE
    t adopted_tables := adopted_table(table_name);
BEGIN
    IF key IS NULL OR NOT key ?& t.key_columns THEN
        RAISE EXCEPTION 'the key has the columns %', array_to_string(t.key_columns, ', ') USING ERRCODE = '22023';
    END IF;
    IF to_regclass(format('%I', t.view_name)) IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM lock_table(table_name, key);
    RETURN sync_where(t, format('(%s) = (%s)', key_list(t, 'r'), key_values(t, key)));
END
$$;

-- How far the projection is from the legacy table: rows that are missing, differ or should not be there any more,
-- with the keys of five of each.
CREATE OR REPLACE FUNCTION drift(table_name text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path FROM CURRENT
SET TimeZone = 'UTC'
SET DateStyle = 'ISO, YMD'
SET IntervalStyle = 'postgres'
SET bytea_output = 'hex'
SET extra_float_digits = 1
AS $$
DECLARE
    t adopted_tables := adopted_table(table_name);
    answer jsonb;
BEGIN
    EXECUTE format($sql$
        WITH differing AS MATERIALIZED (
            SELECT CASE WHEN p.version IS NULL THEN 'missing' WHEN s.data IS NULL THEN 'extra' ELSE 'stale' END AS kind,
                   CASE WHEN s.data IS NULL THEN %1$s ELSE %2$s END AS key
            FROM %3$I AS s FULL JOIN %4$I AS p ON (%5$s) = (%6$s)
            WHERE s.data IS DISTINCT FROM p.data
        )
        SELECT jsonb_build_object(
            'projected', (SELECT count(*) FROM %4$I),
            'synced_at', (SELECT max(synced_at) FROM %4$I),
            'missing', count(*) FILTER (WHERE kind = 'missing'),
            'stale', count(*) FILTER (WHERE kind = 'stale'),
            'extra', count(*) FILTER (WHERE kind = 'extra'),
            'samples', (
                SELECT coalesce(jsonb_object_agg(kind, keys), '{}')
                FROM (SELECT DISTINCT kind FROM differing) AS k
                CROSS JOIN LATERAL (
                    SELECT jsonb_agg(key) AS keys
                    FROM (SELECT key FROM differing AS d WHERE d.kind = k.kind ORDER BY key LIMIT 5) AS first_ones
                ) AS sampled
            ))
        FROM differing
        $sql$, key_object(t, 'p'), key_object(t, 's'), t.view_name, t.projection, key_list(t, 's'), key_list(t, 'p'))
    INTO answer;
    RETURN answer;
END
$$;

REVOKE ALL ON FUNCTION lock_table, adopted_table, key_list, key_values, key_object, sync_where, sync_chunk, sync_row, drift
    FROM PUBLIC;
