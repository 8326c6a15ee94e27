-- The one query that a plan asks each database: how far its homes are, and which of them need work or a second look.
-- $1 template, $2 target version, $3 homes whose copy in the registry differs from the target, $4 slugs (null = all);
-- lists are joined by commas, because the driver asks the server for the definition of each array type it meets.
-- Always at least one row; home_id is null when no home needs anything, and then no catalogue is looked into.
-- `owed` are the steps that a home owes of its version, joined by commas.
WITH owing AS MATERIALIZED (
    SELECT s.home_id, string_agg(s.step, ',') AS owed FROM tenancy.open_steps AS s GROUP BY s.home_id
),
due AS MATERIALIZED (
    SELECT h.id AS home_id, h.isolation, h.schema_name, h.version, o.owed, t.slug, t.tenants, t.deleting
    FROM tenancy.homes AS h
    LEFT JOIN owing AS o ON o.home_id = h.id
    CROSS JOIN LATERAL (
        SELECT min(slug) FILTER (WHERE $4::text IS NULL OR slug = ANY (string_to_array($4, ','))) AS slug,
               count(*) AS tenants,
               coalesce(bool_and(state = 'deleting'), false) AS deleting
        FROM tenancy.tenants
        WHERE home_id = h.id
    ) AS t
    WHERE h.template = $1
      AND CASE WHEN $4 IS NULL THEN h.version < $2 OR (h.version = $2 AND o.owed IS NOT NULL)
                                  OR h.id = ANY (string_to_array($3::text, ',')::uuid[])
               ELSE h.id IN (SELECT home_id FROM tenancy.tenants WHERE slug = ANY (string_to_array($4, ','))) END
),
-- pg_class has no index by schema: one pass for all homes. As of the last VACUUM or ANALYZE, in pages of 8 KiB.
sizes AS MATERIALIZED (
    SELECT relnamespace, sum(relpages) AS pages
    FROM pg_class
    WHERE relkind = 'r' AND (SELECT count(*) FROM due) > 0
    GROUP BY relnamespace
)
SELECT summary.tenancy_version, summary.current, summary.ahead, due.*, coalesce(sizes.pages, 0)::bigint AS pages
FROM (
    SELECT tenancy.installed_version() AS tenancy_version,
           count(*) FILTER (WHERE version = $2 AND o.owed IS NULL) AS current,
           count(*) FILTER (WHERE version > $2) AS ahead
    FROM tenancy.homes AS h
    LEFT JOIN owing AS o ON o.home_id = h.id
    WHERE template = $1
) AS summary
LEFT JOIN due ON true
LEFT JOIN pg_namespace AS n ON n.nspname = due.schema_name
LEFT JOIN sizes ON sizes.relnamespace = n.oid
