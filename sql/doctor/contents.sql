-- What one database of tenants holds: homes, tenants and schemas that look like homes.
SELECT 'home' AS kind, id, schema_name AS name, version, NULL AS state
FROM tenancy.homes
UNION ALL
SELECT 'tenant', id, slug, NULL, state
FROM tenancy.tenants
UNION ALL
SELECT 'schema', NULL, nspname, NULL, NULL
FROM pg_namespace
WHERE nspname ~ '^t_[0-9a-f]{12}(__api(_v[0-9]+)?)?$'
