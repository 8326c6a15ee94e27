-- The one query that a plan asks each database: how far its homes are, and which of them need work or a second look.
-- $1 template, $2 target version, $3 homes whose copy in the registry differs from the target, $4 slugs (null = all);
-- lists are joined by commas, because the driver asks the server for the definition of each array type it meets.
-- Always at least one row; home_id is null when no home needs anything.
SELECT summary.tenancy_version, summary.current, summary.ahead, home.*
FROM (
    SELECT tenancy.installed_version() AS tenancy_version,
           count(*) FILTER (WHERE version = $2) AS current,
           count(*) FILTER (WHERE version > $2) AS ahead
    FROM tenancy.homes
    WHERE template = $1
) AS summary
LEFT JOIN (
    SELECT h.id AS home_id, h.isolation, h.schema_name, h.version, t.slug, t.tenants, t.deleting
    FROM tenancy.homes AS h
    CROSS JOIN LATERAL (
        SELECT min(slug) FILTER (WHERE $4::text IS NULL OR slug = ANY (string_to_array($4, ','))) AS slug,
               count(*) AS tenants,
               coalesce(bool_and(state = 'deleting'), false) AS deleting
        FROM tenancy.tenants
        WHERE home_id = h.id
    ) AS t
    WHERE h.template = $1
      AND CASE WHEN $4 IS NULL THEN h.version < $2 OR h.id = ANY (string_to_array($3::text, ',')::uuid[])
               ELSE h.id IN (SELECT home_id FROM tenancy.tenants WHERE slug = ANY (string_to_array($4, ','))) END
) AS home ON true
