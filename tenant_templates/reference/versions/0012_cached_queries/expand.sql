-- Answers that are kept until a source changes, and pages of every collection.

SELECT tenancy.create_cache();

-- The posts with the most comments, the newer first among equals. It reads what its entry in the catalogue names as
-- sources and nothing else, and it is for everybody: private posts are not among them.
CREATE FUNCTION fn_popular_posts(parameters jsonb) RETURNS jsonb
STABLE
RETURN (
    SELECT coalesce(jsonb_agg(top.data ORDER BY top.comment_count DESC, top.created_at DESC, top.id DESC), '[]')
    FROM (
        SELECT
            s.id,
            (s.data ->> 'comment_count')::bigint AS comment_count,
            s.data ->> 'created_at' AS created_at,
            jsonb_build_object(
                '__typename', 'PopularPost',
                'id', s.id,
                'title', s.data -> 'title',
                'author', s.data -> 'author',
                'comment_count', s.data -> 'comment_count',
                'created_at', s.data -> 'created_at'
            ) AS data
        FROM tv_post_stats AS s
        WHERE s.tenant_id = tenancy.current_tenant_id()
          AND s.data IS NOT NULL
          AND NOT (s.data ->> 'is_private')::boolean
        ORDER BY comment_count DESC, created_at DESC, s.id DESC
        LIMIT coalesce((parameters ->> 'limit')::integer, 10)
    ) AS top
);

-- A query of the catalogue by its name. What is wrong with the question is an error of the request (400, 403 or 404).
CREATE FUNCTION fn_read_query(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "name": {"type": "string", "required": true},
        "parameters": {"type": "object"},
        "bypass": {"type": "boolean"}
    }');
BEGIN
    IF problems <> '[]' THEN
        RAISE EXCEPTION 'the question is not valid' USING
            ERRCODE = 'invalid_parameter_value', DETAIL = problems::text;
    END IF;
    RETURN tenancy.mutation_result(true, 'read', 'This is the answer of the query.', fn_cached_query(
        input ->> 'name', input -> 'parameters', coalesce((input ->> 'bypass')::boolean, false)));
END
$$;

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
