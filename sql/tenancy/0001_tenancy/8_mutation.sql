-- The contract of functions that change data: validated input, one shape of result.

-- {success, code, message, data, errors}. Expected failures are results; `code` is one of
-- invalid, not_found, conflict, forbidden. Anything unexpected is an exception.
CREATE FUNCTION mutation_result(
    success boolean, code text, message text, data jsonb DEFAULT NULL, errors jsonb DEFAULT '[]'
) RETURNS jsonb
IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_object('success', success, 'code', code, 'message', message, 'data', data, 'errors', errors);

-- The answer of a function of an API version: the document that its own view shows takes the place of the id in
-- `data`. A result without an id, such as a refusal, stays as it is.
CREATE FUNCTION with_document(result jsonb, name text, view_name regclass) RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id uuid := result -> 'data' ->> 'id';
    document jsonb;
BEGIN
    IF id IS NULL THEN
        RETURN result;
    END IF;
    EXECUTE format('SELECT data FROM %s WHERE tenant_id = $1 AND id = $2', view_name) INTO document
    USING tenancy.current_tenant_id(), id;
    RETURN jsonb_set(result, '{data}', (result -> 'data') - 'id' || jsonb_build_object(name, document));
END
$$;

-- Whether a text can be read as a value of a type; PostgreSQL 16 has a function for it, 15 has not.
CREATE FUNCTION is_valid(value text, type_name regtype) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL UNSAFE  -- a handler for exceptions is a subtransaction
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('SELECT $1::%s', type_name) USING value;
    RETURN true;
EXCEPTION WHEN data_exception THEN
    RETURN false;
END
$$;

-- Checks `input` against `fields` and returns the problems as [{path, code, message}], [] when there are none.
-- `fields`: {"name": {"type": "string", "required": true, "min": 1, "max": 200}, "id": {"type": "uuid"}, …}
--   type     string, uuid, integer, decimal, boolean, date, timestamp, object, array
--   min max  the length of strings and arrays, the value of integers and decimals
--   values   the strings that are allowed; pattern: a regular expression, which `message` puts into words
--   fields   of an object; items: the rule of an array's elements
CREATE FUNCTION input_problems(input jsonb, fields jsonb, path text DEFAULT '') RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    problems jsonb := '[]';
    field text;
    rule jsonb;
BEGIN
    IF input IS NULL OR jsonb_typeof(input) <> 'object' THEN
        RETURN jsonb_build_array(
            jsonb_build_object('path', rtrim(path, '.'), 'code', 'type', 'message', 'must be an object'));
    END IF;

    FOR field IN SELECT key FROM jsonb_object_keys(input) AS key WHERE NOT fields ? key ORDER BY key LOOP
        problems := problems
            || jsonb_build_object('path', path || field, 'code', 'unknown', 'message', 'is not a known field');
    END LOOP;
    FOR field, rule IN SELECT * FROM jsonb_each(fields) LOOP
        IF coalesce(input -> field, 'null') <> 'null' THEN
            problems := problems || tenancy.value_problems(input -> field, rule, path || field);
        ELSIF (rule ->> 'required')::boolean THEN
            problems := problems
                || jsonb_build_object('path', path || field, 'code', 'required', 'message', 'is required');
        END IF;
    END LOOP;
    RETURN problems;
END
$$;

-- The problems of one value that is there.
CREATE FUNCTION value_problems(value jsonb, rule jsonb, path text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind text := jsonb_typeof(value);
    content text := value #>> '{}';
    low numeric := rule ->> 'min';
    high numeric := rule ->> 'max';
    problem text;
BEGIN
    CASE rule ->> 'type'
    WHEN 'string' THEN
        problem := CASE
            WHEN kind <> 'string' THEN 'must be a string'
            WHEN length(content) < low OR (low > 0 AND btrim(content) = '')
                THEN format('must have at least %s characters', low)
            WHEN length(content) > high THEN format('must have at most %s characters', high)
            WHEN rule ? 'values' AND NOT rule -> 'values' ? content
                THEN 'must be one of ' || (SELECT string_agg(v, ', ') FROM jsonb_array_elements_text(rule -> 'values') v)
            WHEN content !~ (rule ->> 'pattern') THEN coalesce(rule ->> 'message', 'has the wrong form')
        END;
    WHEN 'uuid' THEN
        IF kind <> 'string' OR content !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
            problem := 'must be a uuid';
        END IF;
    WHEN 'integer', 'decimal' THEN
        -- Decimals come as strings too: not every client writes 1.10 without making it 1.1.
        IF kind <> 'number'
           AND NOT (rule ->> 'type' = 'decimal' AND kind = 'string' AND content ~ '^-?\d{1,30}(\.\d{1,30})?$') THEN
            problem := 'must be a number';
        ELSIF rule ->> 'type' = 'integer' AND content ~ '\.' THEN  -- not 1.0 either: no cast to integer takes it
            problem := 'must be a whole number, without a decimal point';
        ELSIF content::numeric < low OR content::numeric > high THEN
            problem := concat_ws(' and ', 'must be at least ' || (rule ->> 'min'), 'must be at most ' || (rule ->> 'max'));
        END IF;
    WHEN 'date', 'timestamp' THEN
        IF kind <> 'string' OR content !~ '^\d{4}-\d{2}-\d{2}' OR NOT tenancy.is_valid(
               content, CASE rule ->> 'type' WHEN 'date' THEN 'date'::regtype ELSE 'timestamptz'::regtype END)
        THEN
            problem := CASE rule ->> 'type' WHEN 'date' THEN 'must be a date such as 2026-03-01'
                                            ELSE 'must be a time such as 2026-03-01T09:30:00Z' END;
        ELSIF rule ->> 'type' = 'date' AND length(content) <> 10 THEN
            problem := 'must be a date such as 2026-03-01';
        END IF;
    WHEN 'boolean' THEN
        problem := CASE WHEN kind <> 'boolean' THEN 'must be true or false' END;
    WHEN 'object' THEN
        IF kind <> 'object' THEN
            problem := 'must be an object';
        ELSIF rule ? 'fields' THEN
            RETURN tenancy.input_problems(value, rule -> 'fields', path || '.');
        END IF;
    WHEN 'array' THEN
        problem := CASE
            WHEN kind <> 'array' THEN 'must be an array'
            WHEN jsonb_array_length(value) < low THEN format('must have at least %s elements', low)
            WHEN jsonb_array_length(value) > high THEN format('must have at most %s elements', high)
        END;
        IF problem IS NULL AND rule ? 'items' THEN
            RETURN (
                SELECT coalesce(jsonb_agg(entry), '[]')
                FROM jsonb_array_elements(value) WITH ORDINALITY AS e (element, position)
                CROSS JOIN LATERAL jsonb_array_elements(
                    tenancy.value_problems(element, rule -> 'items', path || '.' || position - 1)) AS entry
            );
        END IF;
    END CASE;
    IF problem IS NULL THEN
        RETURN '[]';
    END IF;
    RETURN jsonb_build_array(jsonb_build_object('path', path, 'code', 'invalid', 'message', problem));
END
$$;
