-- The tables and views of a home that somebody may be using. $1 its schema. `name` is qualified but for the base schema's:
-- 'api_v2.projects'; `root` is the table whose partition it is, by name; `own` is false for what the stamp alone makes.
WITH schemas AS (
    SELECT n.oid, substr(n.nspname, length($1) + 3) AS prefix, n.nspname !~ '__api$' AS own
    FROM pg_namespace AS n
    WHERE n.nspname = $1 OR n.nspname ~ ('^' || $1 || '__api(_v[0-9]+)?$')
)
SELECT c.oid, s.prefix || left('.', length(s.prefix)) || c.relname AS name, root.relname::text AS root, s.own,
       c.relfilenode AS file, pg_stat_get_xact_numscans(c.oid) AS scans
FROM schemas AS s
JOIN pg_class AS c ON c.relnamespace = s.oid AND c.relkind IN ('r', 'p', 'v')
LEFT JOIN pg_class AS root ON c.relispartition AND root.oid = pg_partition_root(c.oid)
