-- Pages of every collection.

-- Each sort that template.toml allows has an index (tenant, sort, key): any page is one range of it, in either direction.
CREATE INDEX tb_user_email_id ON tb_user (tenant_id, email, id);
CREATE INDEX tb_project_name ON tb_project (tenant_id, name, id);

-- A page of one collection of an API version. What is wrong with a request for a page is an error of the request (400
-- or 404), not a refusal: nothing is done that could be refused.
CREATE FUNCTION fn_read_page(api integer, input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "resource": {"type": "string", "required": true},
        "sort": {"type": "string"},
        "direction": {"type": "string", "values": ["asc", "desc"]},
        "filters": {"type": "object"},
        "limit": {"type": "integer", "min": 1, "max": 100},
        "cursor": {"type": "string"}
    }');
BEGIN
    IF problems <> '[]' THEN
        RAISE EXCEPTION 'the request for a page is not valid' USING
            ERRCODE = 'invalid_parameter_value', DETAIL = problems::text;
    END IF;
    RETURN tenancy.mutation_result(true, 'read', 'This is a page of the collection.', tenancy.read_page(
        api || '.' || (input ->> 'resource'), input ->> 'sort', input ->> 'direction', input -> 'filters',
        (input ->> 'limit')::integer, input ->> 'cursor'));
END
$$;
