-- What the generated functions of an entity do. Run as the adoption's writer role, which may write to the tables of
-- entities that are being moved, with the adoption's schema first in the path; safe to run again.

CREATE OR REPLACE FUNCTION mutation_result(
    success boolean, code text, message text, data jsonb DEFAULT NULL, errors jsonb DEFAULT '[]'
) RETURNS jsonb
IMMUTABLE
RETURN jsonb_build_object('success', success, 'code', code, 'message', message, 'data', data, 'errors', errors);

-- Whether the legacy column takes this value: its type, its length and the rules of its domain, asked of the database.
CREATE OR REPLACE FUNCTION is_writable(source text, column_name text, value jsonb) RETURNS boolean
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    EXECUTE format('SELECT (jsonb_populate_record(NULL::%s, $1)).%I', source, column_name)
    USING jsonb_build_object(column_name, value);
    RETURN true;
EXCEPTION WHEN data_exception OR integrity_constraint_violation THEN
    RETURN false;
END
$$;

-- [{path, code, message}] of an input against the columns of the table. `action`: create, update or delete.
CREATE OR REPLACE FUNCTION input_problems(
    entity adopted_entities, t adopted_tables, action text, input jsonb
) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    known jsonb := CASE action WHEN 'delete' THEN '{}' ELSE entity.fields END;
    problems jsonb := '[]';
    field text;
    rule jsonb;
BEGIN
    IF input IS NULL OR jsonb_typeof(input) <> 'object' THEN
        RETURN jsonb_build_array(jsonb_build_object('path', '', 'code', 'type', 'message', 'must be an object'));
    END IF;
    IF action <> 'create' THEN
        known := known || (SELECT jsonb_object_agg(k, '{"required": true, "nullable": false}'::jsonb)
                           FROM unnest(t.source_key_columns) AS k);
    END IF;
    FOR field IN SELECT k FROM jsonb_object_keys(input) AS k WHERE NOT known ? k ORDER BY k LOOP
        problems := problems
            || jsonb_build_object('path', field, 'code', 'unknown', 'message', 'is not a known field');
    END LOOP;
    FOR field, rule IN SELECT * FROM jsonb_each(known) LOOP
        IF NOT input ? field THEN
            IF (rule ->> 'required')::boolean AND (action = 'create' OR field = ANY (t.source_key_columns)) THEN
                problems := problems
                    || jsonb_build_object('path', field, 'code', 'required', 'message', 'is required');
            END IF;
        ELSIF jsonb_typeof(input -> field) = 'null' THEN
            IF NOT (rule ->> 'nullable')::boolean THEN
                problems := problems
                    || jsonb_build_object('path', field, 'code', 'required', 'message', 'must not be null');
            END IF;
        ELSIF NOT is_writable(t.source, field, input -> field) THEN
            problems := problems
                || jsonb_build_object('path', field, 'code', 'invalid', 'message', 'is no value of this field');
        END IF;
    END LOOP;
    RETURN problems;
END
$$;

-- One write to the legacy table, and to its projection in the same transaction. Refusals are results, and say nothing
-- about constraints or other rows.
CREATE OR REPLACE FUNCTION write_row(entity_name text, action text, input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET TimeZone = 'UTC'
SET DateStyle = 'ISO, YMD'
SET IntervalStyle = 'postgres'
SET bytea_output = 'hex'
SET extra_float_digits = 1
AS $$
DECLARE
    entity adopted_entities;
    t adopted_tables;
    problems jsonb;
    written text[];
    listed text;
    condition text;
    answer text;
    key jsonb;
    document jsonb;
BEGIN
    SELECT * INTO STRICT entity FROM adopted_entities WHERE name = entity_name;
    t := adopted_table(entity.table_name);
    IF to_regclass(format('%I', t.view_name)) IS NULL THEN
        RAISE EXCEPTION 'the table is suspended' USING ERRCODE = '55P03';
    END IF;
    problems := input_problems(entity, t, action, input);
    IF problems <> '[]' THEN
        RETURN mutation_result(false, 'invalid', 'The input is not valid.', NULL, problems);
    END IF;

    SELECT coalesce(array_agg(k), '{}'), string_agg(format('%I', k), ', ') INTO written, listed
    FROM jsonb_object_keys(input) AS k
    WHERE action = 'create' OR k <> ALL (t.source_key_columns);
    condition := (SELECT string_agg(format('w.%1$I = (jsonb_populate_record(NULL::%2$s, $1)).%1$I', k, t.source), ' AND ')
                  FROM unnest(t.source_key_columns) AS k);
    answer := (SELECT format('jsonb_build_object(%s)', string_agg(format('%L, w.%I', k, s), ', '))
               FROM unnest(t.key_columns, t.source_key_columns) AS u (k, s));
    BEGIN
        EXECUTE CASE
            WHEN action = 'delete' THEN format('DELETE FROM %s AS w WHERE %s RETURNING %s', t.source, condition, answer)
            WHEN action = 'create' AND listed IS NULL THEN
                format('INSERT INTO %s AS w DEFAULT VALUES RETURNING %s', t.source, answer)
            WHEN action = 'create' THEN
                format('INSERT INTO %1$s AS w (%2$s) SELECT %2$s FROM jsonb_populate_record(NULL::%1$s, $1)'
                       ' RETURNING %3$s', t.source, listed, answer)
            WHEN listed IS NULL THEN
                format('SELECT %s FROM %s AS w WHERE %s', answer, t.source, condition)
            ELSE format('UPDATE %1$s AS w SET (%2$s) = (SELECT %2$s FROM jsonb_populate_record(NULL::%1$s, $1))'
                        ' WHERE %3$s RETURNING %4$s', t.source, listed, condition, answer)
        END INTO key USING input;
    EXCEPTION
        WHEN unique_violation OR exclusion_violation THEN
            RETURN mutation_result(false, 'conflict', 'There is such a one already.');
        WHEN foreign_key_violation OR restrict_violation THEN
            RETURN CASE action
                WHEN 'delete' THEN mutation_result(false, 'conflict', 'It is still in use.')
                ELSE mutation_result(false, 'invalid', 'It refers to something that does not exist.') END;
        WHEN integrity_constraint_violation OR data_exception THEN
            RETURN mutation_result(false, 'invalid', 'The input breaks a rule of the database.');
    END;
    IF key IS NULL THEN
        RETURN mutation_result(false, 'not_found', 'There is no such one.');
    END IF;

    PERFORM sync_row(t.name, key);
    IF action = 'delete' THEN
        RETURN mutation_result(true, 'deleted', 'Deleted.', key);
    END IF;
    EXECUTE format('SELECT data FROM %I AS r WHERE (%s) = (%s)', t.view_name, key_list(t, 'r'), key_values(t, key))
    INTO document;
    RETURN mutation_result(true, action || 'd', initcap(action) || 'd.', jsonb_build_object(entity.name, document));
END
$$;

REVOKE ALL ON FUNCTION mutation_result, is_writable, input_problems, write_row FROM PUBLIC;
