-- The objects of one home as statements in an order in which they can be run again, without what tenancy adds:
-- (rank, position, statement). Run with an empty search_path, so that every name is written out.
-- $1 the home's schema
WITH spaces AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname, $1 || '__api')
)
SELECT 1 AS rank, s.nspname::text AS position, format('CREATE SCHEMA %I AUTHORIZATION cp_owner', s.nspname) AS statement
FROM spaces AS s
UNION ALL
SELECT 2, lpad(c.oid::text, 12, '0'), format('CREATE TABLE %s (%s)', c.oid::regclass, concat_ws(', ', columns.list, checks.list))
FROM pg_class AS c
JOIN spaces AS s ON s.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT string_agg(
        format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
        || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
        || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END, ', ' ORDER BY a.attnum) AS list
    FROM pg_attribute AS a
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
) AS columns
CROSS JOIN LATERAL (
    SELECT string_agg(format('CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), ', ' ORDER BY k.oid) AS list
    FROM pg_constraint AS k
    WHERE k.conrelid = c.oid AND k.contype IN ('c', 'p', 'u', 'f')
) AS checks
WHERE c.relkind = 'r'
UNION ALL
SELECT 3, lpad(i.indexrelid::text, 12, '0'), pg_get_indexdef(i.indexrelid)
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indrelid
JOIN spaces AS s ON s.oid = c.relnamespace
WHERE c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
UNION ALL
SELECT 4, lpad(c.oid::text, 12, '0'),
       format('CREATE VIEW %s WITH (%s) AS %s', c.oid::regclass, array_to_string(c.reloptions, ', '),
              rtrim(pg_get_viewdef(c.oid), ';'))
FROM pg_class AS c
JOIN spaces AS s ON s.oid = c.relnamespace
WHERE c.relkind = 'v'
UNION ALL
SELECT 5, lpad(p.oid::text, 12, '0'), pg_get_functiondef(p.oid)
FROM pg_proc AS p
JOIN spaces AS s ON s.oid = p.pronamespace
ORDER BY rank, position;
