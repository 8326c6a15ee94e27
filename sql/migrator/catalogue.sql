-- What stands in a home, as far as somebody may rely on it. $1 its schema. `schema` is '' for the base schema, else the API
-- version as in '__api_v2'; `position` orders the columns of a relation.
WITH schemas AS (
    SELECT n.oid, substr(n.nspname, length($1) + 1) AS schema
    FROM pg_namespace AS n
    WHERE n.nspname = $1 OR n.nspname ~ ('^' || $1 || '__api_v[0-9]+$')
)
SELECT 'column' AS kind, s.schema, c.relname::text AS object, c.relkind = 'v' AS is_view, a.attname::text AS name,
       format_type(a.atttypid, a.atttypmod) AS type, a.attnum::integer AS position
FROM schemas AS s
JOIN pg_class AS c ON c.relnamespace = s.oid AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'function', s.schema, p.proname::text, false,
       pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid), 0
FROM schemas AS s
JOIN pg_proc AS p ON p.pronamespace = s.oid
ORDER BY schema, object, position, name
