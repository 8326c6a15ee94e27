-- What stands in homes, a row per object: $1 the ids of the homes, joined by commas.
--   schema    'base', or the API schema as in 'api_v2'; `relation` is the table or view that a part belongs to, else ''
--   address   where pg_depend finds it: catalogue, oid, number of the column
--   aspects   what must be equal where homes are, as JSON; `owner` and `grants` (grantee → privileges) are that, too
-- The home's login role is '<login>'. Other names and ids of the home stand as they are: whoever compares homes replaces
-- them. Indexes that constraints made, and NOT NULL, which is a constraint from PostgreSQL 18 on, are told of once.
-- Run with the search_path pg_catalog, so that all names of a home are qualified, and with nothing but nested loops: the
-- catalogues are large, and few of their rows are of these homes.
WITH homes AS MATERIALIZED (
    SELECT h.id AS home_id, h.schema_name, ARRAY(
        SELECT r.oid FROM tenancy.home_roles AS l JOIN pg_roles AS r ON r.rolname = l.role_name WHERE l.home_id = h.id
    ) AS logins
    FROM tenancy.homes AS h
    WHERE h.id = ANY (string_to_array($1, ',')::uuid[])
),
schemas AS MATERIALIZED (
    SELECT h.home_id, h.logins, s.schema_oid,
           CASE WHEN s.is_api THEN substr(s.schema_name, length(h.schema_name) + 3) ELSE 'base' END AS schema
    FROM homes AS h
    CROSS JOIN LATERAL tenancy.home_schemas(h.home_id) AS s
),
members AS MATERIALIZED (
    SELECT s.home_id, s.logins, s.schema, d.classid, d.objid
    FROM schemas AS s
    JOIN pg_depend AS d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.schema_oid
),
relations AS MATERIALIZED (
    SELECT m.home_id, m.logins, m.schema, c.relkind IN ('r', 'p') AS is_table, c.*
    FROM members AS m
    JOIN pg_class AS c ON c.oid = m.objid
    WHERE m.classid = 'pg_class'::regclass
),
routines AS MATERIALIZED (
    SELECT m.home_id, m.logins, m.schema, p.*
    FROM members AS m
    JOIN pg_proc AS p ON p.oid = m.objid
    WHERE m.classid = 'pg_proc'::regclass
),
types AS MATERIALIZED (
    SELECT m.home_id, m.logins, m.schema, t.*
    FROM members AS m
    JOIN pg_type AS t ON t.oid = m.objid
    WHERE m.classid = 'pg_type'::regclass AND t.typtype IN ('c', 'd', 'e', 'r')
),
objects AS (
    SELECT s.home_id, s.logins, 'schema' AS kind, s.schema, ''::text AS relation, ''::text AS name,
           'pg_namespace ' || s.schema_oid || ' 0' AS address,
           n.nspowner AS owner, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl, NULL::json AS aspects
    FROM schemas AS s
    JOIN pg_namespace AS n ON n.oid = s.schema_oid
    UNION ALL
    SELECT r.home_id, r.logins, CASE WHEN r.relkind = 'f' THEN 'foreign-table' ELSE 'table' END, r.schema, '', r.relname,
           'pg_class ' || r.oid || ' 0', r.relowner, coalesce(r.relacl, acldefault('r', r.relowner)),
           json_build_object(
               'columns', (SELECT json_agg(a.attname ORDER BY a.attnum)
                           FROM pg_attribute AS a WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped),
               'persistence', r.relpersistence,
               'options', (SELECT json_agg(o ORDER BY o COLLATE "C") FROM unnest(r.reloptions) AS o),
               'row security', r.relrowsecurity,
               'forced row security', r.relforcerowsecurity,
               'partitioned by', CASE WHEN r.relkind = 'p' THEN pg_get_partkeydef(r.oid) END,
               'partition', CASE WHEN r.relispartition THEN pg_get_expr(r.relpartbound, r.oid) END,
               'parents', (SELECT json_agg(i.inhparent::regclass::text ORDER BY i.inhseqno)
                           FROM pg_inherits AS i WHERE i.inhrelid = r.oid),
               'written by', (SELECT CASE WHEN f.private THEN 'functions alone' ELSE 'functions' END
                              FROM tenancy.function_tables AS f
                              WHERE f.home_id = r.home_id AND f.table_name = r.relname AND r.schema = 'base'))
    FROM relations AS r
    WHERE r.is_table OR r.relkind = 'f'
    UNION ALL
    SELECT r.home_id, r.logins, 'column', r.schema, r.relname, a.attname, format('pg_class %s %s', r.oid, a.attnum),
           NULL, a.attacl,
           json_build_object(
               'type', format_type(a.atttypid, a.atttypmod),
               'not null', a.attnotnull,
               'unchecked', a.attnotnull AND EXISTS (
                   SELECT FROM pg_constraint AS k
                   WHERE k.conrelid = r.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated),
               'default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, r.oid) END,
               'generated', CASE a.attgenerated WHEN 's' THEN pg_get_expr(d.adbin, r.oid) || ' STORED'
                                                WHEN 'v' THEN pg_get_expr(d.adbin, r.oid) || ' VIRTUAL' END,
               'identity', CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END,
               'collation', CASE WHEN a.attcollation NOT IN (0, 'pg_catalog."default"'::regcollation)
                                 THEN a.attcollation::regcollation::text END)
    FROM relations AS r
    JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS d ON d.adrelid = r.oid AND d.adnum = a.attnum
    WHERE r.is_table
    UNION ALL
    -- An internal trigger that is off leaves a foreign key without effect.
    SELECT r.home_id, r.logins, 'constraint', r.schema, r.relname, k.conname, 'pg_constraint ' || k.oid || ' 0',
           NULL, NULL,
           json_build_object(
               'definition', replace(pg_get_constraintdef(k.oid), ' NOT VALID', ''),
               'validated', k.convalidated,
               'inherited', k.coninhcount > 0,
               'off', EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgconstraint = k.oid AND t.tgenabled = 'D'))
    FROM relations AS r
    JOIN pg_constraint AS k ON k.conrelid = r.oid AND k.contype IN ('c', 'f', 'p', 'u', 'x')
    WHERE r.is_table
    UNION ALL
    SELECT r.home_id, r.logins, 'index', r.schema, r.relname, x.relname, 'pg_class ' || x.oid || ' 0', NULL, NULL,
           json_build_object(
               'definition', pg_get_indexdef(x.oid),
               'valid', i.indisvalid AND i.indisready AND i.indislive,
               'inherited', x.relispartition)
    FROM relations AS r
    JOIN pg_index AS i ON i.indrelid = r.oid
    JOIN pg_class AS x ON x.oid = i.indexrelid
    WHERE NOT EXISTS (
        SELECT FROM pg_constraint AS k
        WHERE k.conrelid = r.oid AND k.conindid = x.oid AND k.contype IN ('p', 'u', 'x')
    )
    UNION ALL
    SELECT r.home_id, r.logins, CASE r.relkind WHEN 'v' THEN 'view' ELSE 'materialized-view' END, r.schema, '', r.relname,
           'pg_class ' || r.oid || ' 0', r.relowner, coalesce(r.relacl, acldefault('r', r.relowner)),
           json_build_object(
               'definition', rtrim(pg_get_viewdef(r.oid), ';'),
               'columns', (SELECT json_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)
                           FROM pg_attribute AS a WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped),
               'options', (SELECT json_agg(o ORDER BY o COLLATE "C") FROM unnest(r.reloptions) AS o))
    FROM relations AS r
    WHERE r.relkind IN ('v', 'm')
    UNION ALL
    SELECT r.home_id, r.logins, 'policy', r.schema, r.relname, p.polname, 'pg_policy ' || p.oid || ' 0', NULL, NULL,
           json_build_object(
               'command', CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                        WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
               'form', CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
               'roles', (SELECT json_agg(DISTINCT (CASE WHEN role = 0 THEN 'PUBLIC' WHEN role = ANY (r.logins) THEN '<login>'
                                                        ELSE role::regrole::text END) COLLATE "C")
                         FROM unnest(p.polroles) AS role),
               'using', pg_get_expr(p.polqual, r.oid),
               'check', pg_get_expr(p.polwithcheck, r.oid))
    FROM relations AS r
    JOIN pg_policy AS p ON p.polrelid = r.oid
    UNION ALL
    SELECT r.home_id, r.logins, 'trigger', r.schema, r.relname, t.tgname, 'pg_trigger ' || t.oid || ' 0', NULL, NULL,
           json_build_object(
               'definition', pg_get_triggerdef(t.oid),
               'fires', CASE t.tgenabled WHEN 'O' THEN 'on' WHEN 'D' THEN 'off' WHEN 'R' THEN 'on replicas' ELSE 'always' END,
               'inherited', t.tgparentid <> 0)
    FROM relations AS r
    JOIN pg_trigger AS t ON t.tgrelid = r.oid AND NOT t.tgisinternal
    UNION ALL
    SELECT r.home_id, r.logins, 'rule', r.schema, r.relname, w.rulename, 'pg_rewrite ' || w.oid || ' 0', NULL, NULL,
           json_build_object('definition', pg_get_ruledef(w.oid), 'off', w.ev_enabled = 'D')
    FROM relations AS r
    JOIN pg_rewrite AS w ON w.ev_class = r.oid AND w.rulename <> '_RETURN'
    UNION ALL
    SELECT r.home_id, r.logins, 'sequence', r.schema, '', r.relname, 'pg_class ' || r.oid || ' 0', r.relowner,
           coalesce(r.relacl, acldefault('s', r.relowner)),
           json_build_object(
               'type', format_type(q.seqtypid, NULL), 'start', q.seqstart, 'increment', q.seqincrement, 'min', q.seqmin,
               'max', q.seqmax, 'cache', q.seqcache, 'cycle', q.seqcycle,
               'owned by', (SELECT json_build_array(c.relname, a.attname)
                            FROM pg_depend AS d
                            JOIN pg_class AS c ON c.oid = d.refobjid
                            JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
                            WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i')
                              AND d.refclassid = 'pg_class'::regclass),
               'identity', EXISTS (SELECT FROM pg_depend AS d
                                   WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype = 'i'))
    FROM relations AS r
    JOIN pg_sequence AS q ON q.seqrelid = r.oid
    UNION ALL
    SELECT f.home_id, f.logins, 'function', f.schema, '', f.proname || '(' || oidvectortypes(f.proargtypes) || ')',
           'pg_proc ' || f.oid || ' 0', f.proowner, coalesce(f.proacl, acldefault('f', f.proowner)),
           json_build_object(
               'form', f.prokind,
               'arguments', pg_get_function_arguments(f.oid),
               'result', pg_get_function_result(f.oid),
               'language', (SELECT l.lanname FROM pg_language AS l WHERE l.oid = f.prolang),
               'security', CASE WHEN f.prosecdef THEN 'definer' ELSE 'invoker' END,
               'settings', to_json(f.proconfig),
               'traits', concat_ws(' ', f.provolatile, f.proparallel, f.proisstrict, f.proleakproof, f.procost, f.prorows),
               'body', coalesce(pg_get_function_sqlbody(f.oid), f.prosrc))
    FROM routines AS f
    UNION ALL
    SELECT t.home_id, t.logins, 'type', t.schema, '', t.typname, 'pg_type ' || t.oid || ' 0', t.typowner,
           coalesce(t.typacl, acldefault('T', t.typowner)),
           json_build_object(
               'form', CASE t.typtype WHEN 'c' THEN 'composite' WHEN 'd' THEN 'domain' WHEN 'e' THEN 'enum' ELSE 'range' END,
               'labels', (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid),
               'columns', (SELECT json_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
                                            ORDER BY a.attnum)
                           FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
               'type', CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
               'not null', CASE WHEN t.typtype = 'd' THEN t.typnotnull END,
               'default', CASE WHEN t.typtype = 'd' THEN t.typdefault END,
               'checks', (SELECT json_object_agg(k.conname, pg_get_constraintdef(k.oid) ORDER BY k.conname)
                          FROM pg_constraint AS k WHERE k.contypid = t.oid AND k.contype = 'c'),
               'range of', (SELECT format_type(g.rngsubtype, NULL) FROM pg_range AS g WHERE g.rngtypid = t.oid))
    FROM types AS t
    UNION ALL
    SELECT m.home_id, m.logins, 'statistics', m.schema, c.relname, x.stxname, 'pg_statistic_ext ' || x.oid || ' 0',
           NULL, NULL, json_build_object('definition', pg_get_statisticsobjdef(x.oid))
    FROM members AS m
    JOIN pg_statistic_ext AS x ON x.oid = m.objid
    JOIN pg_class AS c ON c.oid = x.stxrelid
    WHERE m.classid = 'pg_statistic_ext'::regclass
)
SELECT o.home_id, o.kind, o.schema, o.relation, o.name, o.address, o.aspects::text,
       CASE WHEN o.owner = ANY (o.logins) THEN '<login>' ELSE o.owner::regrole::text END AS owner,
       CASE WHEN o.acl IS NOT NULL THEN (
           SELECT json_object_agg(g.grantee, g.privileges ORDER BY g.grantee COLLATE "C")
           FROM (
               SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' WHEN a.grantee = ANY (o.logins) THEN '<login>'
                           ELSE a.grantee::regrole::text END AS grantee,
                      json_agg(DISTINCT (a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END) COLLATE "C")
                          AS privileges
               FROM aclexplode(o.acl) AS a
               GROUP BY 1
           ) AS g
       ) END::text AS grants
FROM objects AS o
