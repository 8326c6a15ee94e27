-- What stands on a legacy table and would keep its columns from being dropped or retyped, nearest first.
-- $1 = schema, $2 = table, $3 = schema of the adoption.
WITH RECURSIVE edge AS (
    -- A view or materialised view, through its rule; a function with a body in SQL; a table of a composite type.
    SELECT DISTINCT coalesce(r.ev_class, d.objid) AS oid,
           CASE WHEN r.ev_class IS NULL THEN 'pg_proc' ELSE 'pg_class' END::regclass AS class,
           d.refobjid AS on_oid,
           d.refobjsubid AS on_column
    FROM pg_depend AS d
    LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    WHERE d.refclassid = 'pg_class'::regclass AND d.deptype = 'n'
      AND (r.ev_class IS NOT NULL AND r.ev_class <> d.refobjid OR d.classid = 'pg_proc'::regclass)
),
found AS (
    SELECT e.oid, e.class, e.on_oid, 1 AS depth
    FROM edge AS e
    WHERE e.on_oid = to_regclass(format('%I.%I', $1::text, $2::text))
    UNION
    SELECT e.oid, e.class, e.on_oid, f.depth + 1
    FROM found AS f JOIN edge AS e ON e.on_oid = f.oid AND f.class = 'pg_class'::regclass
    WHERE f.depth < 50
)
SELECT identity.type AS kind,
       identity.identity AS name,
       pg_get_userbyid(coalesce(c.relowner, p.proowner)) AS owner,
       coalesce(n.nspname = $3::text, false) AS ours,
       min(f.depth) AS depth,
       array_agg(DISTINCT f.on_oid::regclass::text) AS stands_on,
       (SELECT coalesce(array_agg(DISTINCT a.attname::text), '{}') FROM edge AS e JOIN pg_attribute AS a
            ON a.attrelid = e.on_oid AND a.attnum = e.on_column AND a.attnum > 0
        WHERE e.oid = f.oid AND e.on_oid = to_regclass(format('%I.%I', $1::text, $2::text))) AS columns
FROM found AS f
LEFT JOIN pg_class AS c ON f.class = 'pg_class'::regclass AND c.oid = f.oid
LEFT JOIN pg_proc AS p ON f.class = 'pg_proc'::regclass AND p.oid = f.oid
LEFT JOIN pg_namespace AS n ON n.oid = coalesce(c.relnamespace, p.pronamespace)
CROSS JOIN LATERAL pg_identify_object(f.class, f.oid, 0) AS identity
GROUP BY f.oid, identity.type, identity.identity, c.relowner, p.proowner, n.nspname
ORDER BY depth, name
