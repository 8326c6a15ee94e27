-- What stands in a home, as far as somebody may rely on it. $1 its schema. `schema` is '' for the base schema, else the API
-- version as in '__api_v2'; `position` orders the columns of a relation. `kind` is column, function, constraint, policy or
-- trigger; `object` is the relation or the function; `holds`: the column is never NULL, the constraint was validated.
WITH schemas AS (
    SELECT n.oid, substr(n.nspname, length($1) + 1) AS schema
    FROM pg_namespace AS n
    WHERE n.nspname = $1 OR n.nspname ~ ('^' || $1 || '__api_v[0-9]+$')
),
relations AS (
    SELECT c.oid, s.schema, c.relname::text AS object, c.relkind = 'v' AS is_view
    FROM schemas AS s
    JOIN pg_class AS c ON c.relnamespace = s.oid AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
)
SELECT 'column' AS kind, r.schema, r.object, r.is_view, a.attname::text AS name,
       format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS holds, a.attnum::integer AS position
FROM relations AS r
JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'function', s.schema, p.proname::text, false,
       pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid), false, 0
FROM schemas AS s
JOIN pg_proc AS p ON p.pronamespace = s.oid
UNION ALL
-- NOT NULL is told by the column, from PostgreSQL 18 on by a constraint too.
SELECT 'constraint', r.schema, r.object, false, k.conname::text,
       replace(pg_get_constraintdef(k.oid), ' NOT VALID', ''), k.convalidated, 0
FROM relations AS r
JOIN pg_constraint AS k ON k.conrelid = r.oid AND k.contype <> 'n'
UNION ALL
SELECT 'policy', r.schema, r.object, false, p.polname::text,
       concat_ws(' ', p.polcmd, p.polpermissive, p.polroles, pg_get_expr(p.polqual, p.polrelid),
                 pg_get_expr(p.polwithcheck, p.polrelid)), false, 0
FROM relations AS r
JOIN pg_policy AS p ON p.polrelid = r.oid
UNION ALL
SELECT 'trigger', r.schema, r.object, false, t.tgname::text, t.tgtype::text, false, 0
FROM relations AS r
JOIN pg_trigger AS t ON t.tgrelid = r.oid AND NOT t.tgisinternal
ORDER BY schema, object, position, name
