-- One timeline over several tables.

-- Called by the template's author, as cp_owner and with the home's schema first on the path: creates a view over all
-- `branches`, or replaces it by one with more of them.
--   branches   {"<type>": {"table": "tb_…", "user_column": "…", "details": ["…", …]}, …}
--   columns    tenant_id, type, id, user_id, created_at, details: the listed columns of the table and no others
-- Each table has tenant_id, id uuid, created_at timestamptz and two indexes, (tenant_id, created_at, id) and
-- (tenant_id, <user_column>, created_at, id). The view has no order of its own: asked for the newest, the planner merges
-- the branches from their indexes.
CREATE FUNCTION create_union_feed(name text, branches jsonb) RETURNS void
LANGUAGE plpgsql  -- without a path of its own, because it asks for the caller's
AS $$
BEGIN
    EXECUTE pg_catalog.format(
        'CREATE OR REPLACE VIEW %I.%I WITH (security_invoker = true) AS %s',
        pg_catalog.current_schema(), name, (
            SELECT pg_catalog.string_agg(pg_catalog.format(
                'SELECT b.tenant_id, %L::text AS type, b.id, b.%I AS user_id, b.created_at,
                        pg_catalog.jsonb_build_object(%s) AS details
                 FROM %I.%I AS b',
                type, branch ->> 'user_column', (
                    SELECT pg_catalog.string_agg(pg_catalog.format('%L, b.%I', detail, detail), ', ' ORDER BY position)
                    FROM pg_catalog.jsonb_array_elements_text(branch -> 'details')
                         WITH ORDINALITY AS d (detail, position)
                ), pg_catalog.current_schema(), branch ->> 'table'
            ), ' UNION ALL ' ORDER BY type)
            FROM pg_catalog.jsonb_each(branches) AS b (type, branch)
        ));
END
$$;

GRANT EXECUTE ON FUNCTION create_union_feed(text, jsonb) TO cp_owner;
