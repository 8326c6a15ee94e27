-- Everything that makes up a home, one line of text per fact, with the names that differ between homes taken out.
-- $1 the home's schema, $2 its login role
WITH spaces AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname = $1 OR starts_with(nspname, $1 || '__api')
), home AS (
    SELECT * FROM tenancy.homes WHERE schema_name = $1
), relations AS (
    SELECT c.*, s.nspname FROM pg_class AS c JOIN spaces AS s ON s.oid = c.relnamespace WHERE c.relkind IN ('r', 'v', 'i')
), facts AS (
    SELECT format('schema %s owner %s comment %s', nspname, nspowner::regrole,
                  obj_description(oid, 'pg_namespace') IS NOT NULL) AS fact FROM spaces
    UNION ALL
    SELECT format('schema %s grants %s to %s', nspname, g.privilege_type, g.grantee::regrole)
    FROM spaces, aclexplode(nspacl) AS g
    UNION ALL
    SELECT format('relation %s.%s kind %s owner %s options %s security %s %s', nspname, relname, relkind, relowner::regrole,
                  reloptions, relrowsecurity, relforcerowsecurity) FROM relations
    UNION ALL
    SELECT format('relation %s.%s grants %s to %s', nspname, relname, g.privilege_type, g.grantee::regrole)
    FROM relations, aclexplode(relacl) AS g
    UNION ALL
    SELECT format('column %s.%s %s %s %s not null %s default %s', r.nspname, r.relname, a.attnum, a.attname,
                  format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
    FROM relations AS r
    JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    UNION ALL
    SELECT format('constraint %s.%s %s %s valid %s', r.nspname, r.relname, k.conname, pg_get_constraintdef(k.oid), k.convalidated)
    FROM relations AS r JOIN pg_constraint AS k ON k.conrelid = r.oid
    UNION ALL
    SELECT format('index %s', pg_get_indexdef(i.indexrelid)) FROM relations AS r JOIN pg_index AS i ON i.indexrelid = r.oid
    UNION ALL
    SELECT format('view %s.%s %s', nspname, relname, pg_get_viewdef(oid)) FROM relations WHERE relkind = 'v'
    UNION ALL
    SELECT format('function %s owner %s', pg_get_functiondef(p.oid), p.proowner::regrole)
    FROM pg_proc AS p JOIN spaces AS s ON s.oid = p.pronamespace
    UNION ALL
    SELECT format('function %s grants %s to %s', p.oid::regprocedure, g.privilege_type, g.grantee::regrole)
    FROM pg_proc AS p JOIN spaces AS s ON s.oid = p.pronamespace, aclexplode(p.proacl) AS g
    UNION ALL
    SELECT format('role login %s inherit %s settings %s', r.rolcanlogin, r.rolinherit, r.rolconfig)
    FROM pg_roles AS r WHERE r.rolname = $2
    UNION ALL
    SELECT format('member %s of %s inherit %s set %s admin %s', m.member::regrole, m.roleid::regrole, m.inherit_option,
                  m.set_option, m.admin_option)
    FROM pg_auth_members AS m WHERE m.member = $2::regrole OR m.roleid = $2::regrole
    UNION ALL
    SELECT format('database grants %s to %s', g.privilege_type, g.grantee::regrole)
    FROM pg_database AS d, aclexplode(d.datacl) AS g
    WHERE d.datname = current_database() AND g.grantee <> 0
      AND (g.grantee = $2::regrole OR pg_has_role($2, g.grantee, 'MEMBER'))
    UNION ALL
    SELECT format('home %s', to_jsonb(home) - ARRAY['id', 'tenant_id', 'updated_at']) FROM home
    UNION ALL
    SELECT format('home tenant %s', tenant_id) FROM home
    UNION ALL
    SELECT format('home role %s', role_name) FROM tenancy.home_roles JOIN home ON home.id = home_id
    UNION ALL
    SELECT format('tenant %s state %s epoch %s', t.id, t.state, t.epoch)
    FROM tenancy.tenants AS t JOIN home ON home.id = t.home_id AND home.tenant_id = t.id
)
SELECT replace(replace(replace(fact, $2, '<role>'), $1, '<schema>'), (SELECT tenant_id::text FROM home), '<tenant>') AS fact
FROM facts
ORDER BY 1;
