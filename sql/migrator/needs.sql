-- Which objects of a home need which others, as addresses of structure.sql: `object` cannot be without `needed`.
-- $1 the home. What pg_depend knows of as a view's rule, a column's default, a table's row type or a constraint's index is
-- told as the view, the column, the table and the constraint.
WITH members AS MATERIALIZED (
    SELECT d.classid, d.objid
    FROM tenancy.home_schemas($1) AS s
    JOIN pg_depend AS d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.schema_oid
),
relations AS MATERIALIZED (
    SELECT c.oid, c.reltype
    FROM members AS m
    JOIN pg_class AS c ON c.oid = m.objid
    WHERE m.classid = 'pg_class'::regclass
),
targets AS (
    SELECT classid, objid, NULL AS address FROM members
    UNION ALL
    SELECT 'pg_type'::regclass, reltype, format('pg_class %s 0', oid) FROM relations WHERE reltype <> 0
    UNION ALL
    SELECT 'pg_type'::regclass, t.typarray, format('pg_type %s 0', t.oid)
    FROM members AS m
    JOIN pg_type AS t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
    WHERE t.typarray <> 0
    UNION ALL
    SELECT 'pg_constraint'::regclass, k.oid, NULL
    FROM relations AS r
    JOIN pg_constraint AS k ON k.conrelid = r.oid
    UNION ALL
    SELECT 'pg_class'::regclass, k.conindid, format('pg_constraint %s 0', k.oid)
    FROM relations AS r
    JOIN pg_constraint AS k ON k.conrelid = r.oid AND k.contype IN ('p', 'u', 'x')
)
SELECT DISTINCT edge.object, edge.needed
FROM targets AS t
JOIN pg_depend AS d ON d.refclassid = t.classid AND d.refobjid = t.objid
LEFT JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid AND w.rulename = '_RETURN'
LEFT JOIN pg_attrdef AS a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid
CROSS JOIN LATERAL (
    SELECT CASE WHEN w.oid IS NOT NULL THEN format('pg_class %s 0', w.ev_class)
                WHEN a.oid IS NOT NULL THEN format('pg_class %s %s', a.adrelid, a.adnum)
                ELSE format('%s %s %s', d.classid::regclass, d.objid, d.objsubid) END AS object,
           coalesce(t.address, format('%s %s %s', d.refclassid::regclass, d.refobjid, d.refobjsubid)) AS needed
) AS edge
WHERE edge.object <> edge.needed AND d.deptype IN ('n', 'a')
