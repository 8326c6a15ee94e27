-- The homes of one database that are built, owe no steps and are not on their way out, and how many locks a transaction
-- of this server may hold before others go short. $1 homes, joined by commas (null = all). `relations` is how many
-- tables, views and sequences a home has.
SELECT h.id AS home_id, h.isolation, h.template, h.schema_name, h.tenant_id, h.version, t.slug, t.tenants, r.relations,
       current_setting('max_locks_per_transaction')::bigint
           * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint) AS locks
FROM tenancy.homes AS h
CROSS JOIN LATERAL (
    SELECT min(slug) AS slug, count(*) AS tenants, coalesce(bool_and(state = 'deleting'), false) AS deleting
    FROM tenancy.tenants
    WHERE home_id = h.id
) AS t
CROSS JOIN LATERAL (
    SELECT count(*) AS relations
    FROM tenancy.home_schemas(h.id) AS s
    JOIN pg_depend AS d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.schema_oid
                       AND d.classid = 'pg_class'::regclass
) AS r
WHERE h.version > 0
  AND ($1::text IS NULL OR h.id = ANY (string_to_array($1, ',')::uuid[]))
  AND NOT (t.deleting AND h.isolation <> 'shared')
  AND NOT EXISTS (SELECT FROM tenancy.open_steps AS o WHERE o.home_id = h.id)
ORDER BY h.schema_name
