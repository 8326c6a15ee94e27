-- The contract of functions that change data: validated input, one shape of result.

-- {success, code, message, data, errors}. Expected failures are results; `code` is one of
-- invalid, not_found, conflict, forbidden. Anything unexpected is an exception.
CREATE FUNCTION mutation_result(
    success boolean, code text, message text, data jsonb DEFAULT NULL, errors jsonb DEFAULT '[]'
) RETURNS jsonb
IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_object('success', success, 'code', code, 'message', message, 'data', data, 'errors', errors);

-- Checks `input` against `fields` and returns the problems as [{path, code, message}], [] when there are none.
-- `fields`: {"name": {"type": "string", "required": true, "min": 1, "max": 200}, "id": {"type": "uuid"}, …}
-- `min` and `max` bound the length of strings and the value of integers; `pattern` is a regular expression.
CREATE FUNCTION input_problems(input jsonb, fields jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    problems jsonb := '[]';
    field text;
    rule jsonb;
    value jsonb;
    problem text;
BEGIN
    IF input IS NULL OR jsonb_typeof(input) <> 'object' THEN
        RETURN '[{"path": "", "code": "type", "message": "must be an object"}]';
    END IF;

    FOR field IN SELECT key FROM jsonb_object_keys(input) AS key WHERE NOT fields ? key ORDER BY key LOOP
        problems := problems || jsonb_build_object('path', field, 'code', 'unknown', 'message', 'is not a known field');
    END LOOP;

    FOR field, rule IN SELECT * FROM jsonb_each(fields) LOOP
        value := input -> field;
        problem := NULL;
        IF value IS NULL OR value = 'null' THEN
            IF coalesce((rule ->> 'required')::boolean, false) THEN
                problems := problems || jsonb_build_object('path', field, 'code', 'required', 'message', 'is required');
            END IF;
            CONTINUE;
        END IF;

        CASE rule ->> 'type'
        WHEN 'string' THEN
            IF jsonb_typeof(value) <> 'string' THEN
                problem := 'must be a string';
            ELSIF length(input ->> field) < coalesce((rule ->> 'min')::integer, 0)
               OR (coalesce((rule ->> 'min')::integer, 0) > 0 AND btrim(input ->> field) = '') THEN
                problem := format('must have at least %s characters', rule ->> 'min');
            ELSIF length(input ->> field) > (rule ->> 'max')::integer THEN
                problem := format('must have at most %s characters', rule ->> 'max');
            ELSIF (input ->> field) !~ coalesce(rule ->> 'pattern', '') THEN
                problem := coalesce(rule ->> 'message', 'has the wrong form');
            END IF;
        WHEN 'uuid' THEN
            IF jsonb_typeof(value) <> 'string'
               OR (input ->> field) !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
                problem := 'must be a uuid';
            END IF;
        WHEN 'integer' THEN
            IF jsonb_typeof(value) <> 'number' OR (input ->> field)::numeric % 1 <> 0 THEN
                problem := 'must be a whole number';
            ELSIF (input ->> field)::numeric < (rule ->> 'min')::numeric
               OR (input ->> field)::numeric > (rule ->> 'max')::numeric THEN
                problem := format('must be between %s and %s', rule ->> 'min', rule ->> 'max');
            END IF;
        WHEN 'boolean', 'object', 'array' THEN
            IF jsonb_typeof(value) <> (rule ->> 'type') THEN
                problem := format('must be of type %s', rule ->> 'type');
            END IF;
        END CASE;
        IF problem IS NOT NULL THEN
            problems := problems || jsonb_build_object('path', field, 'code', 'invalid', 'message', problem);
        END IF;
    END LOOP;
    RETURN problems;
END
$$;
