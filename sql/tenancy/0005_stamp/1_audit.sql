-- A stamp costs what the migration has changed, not what the home holds: it neither reads nor audits the rest, which may
-- be a thousand catalogue rows on as many pages. `cp doctor` audits the whole.

-- Those of `relations` that this transaction has made or changed: their rows are its own (a number of its own is of age 0,
-- those of its subtransactions are younger), or it holds a lock that only DDL takes, such as for a new index or key.
CREATE FUNCTION touched_relations(relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    locked oid[];
BEGIN
    SELECT coalesce(array_agg(l.relation), '{}') INTO locked
    FROM pg_locks l
    WHERE l.pid = pg_backend_pid() AND l.relation = ANY (relations)
      AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock');
    RETURN (
        SELECT coalesce(array_agg(c.oid), '{}')
        FROM pg_class c
        WHERE c.oid = ANY (relations) AND (age(c.xmin) <= 0 OR c.oid = ANY (locked))
    );
END
$$;

-- The routines that this transaction has made or replaced: they are recorded anew in pg_depend, which one that only
-- changes hands is not. Their own catalogue is the largest of a home, and is not read.
CREATE FUNCTION touched_routines(schemas oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT coalesce(array_agg(DISTINCT d.objid), '{}')
        FROM pg_depend d
        WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = ANY (schemas)
          AND d.classid = 'pg_proc'::regclass AND age(d.xmin) <= 0
    );
END
$$;

-- Every way in which some of a home breaks an isolation rule; no rows when it breaks none. `relations` are all of
-- the home's; `audited`, some of these, and `routines` are looked at.
CREATE FUNCTION audit(home uuid, relations oid[], audited oid[], routines oid[])
RETURNS TABLE (code text, object text, problem text, fix text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    this tenancy.homes;
    request_roles oid[];
    owner_role oid := 'cp_owner'::regrole;
    definer_role oid := 'cp_definer'::regrole;
    support_role oid := 'cp_support'::regrole;
    base oid;
BEGIN
    SELECT h.* INTO STRICT this FROM tenancy.homes h WHERE h.id = home;
    base := to_regnamespace(quote_ident(this.schema_name));
    SELECT coalesce(array_agg(r.oid), '{}') INTO request_roles
    FROM tenancy.home_roles hr JOIN pg_roles r ON r.rolname = hr.role_name
    WHERE hr.home_id = home;

    -- Few queries: their plans do not survive a change of a schema or of its grants. And a name is printed only of what
    -- is at fault: to find the name of each object would cost more than the whole audit.
    RETURN QUERY
    SELECT fault.code, c.oid::regclass::text, fault.problem, replace(fault.fix, '%s', c.oid::regclass::text)
    FROM pg_class c
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    CROSS JOIN LATERAL (VALUES
        (c.relkind IN ('m', 'f'),
         'kind', 'materialized views and foreign tables cannot be isolated', 'use a table that is kept in step'),
        (c.relkind IN ('r', 'p', 'v') AND c.relowner <> owner_role,
         'owner', 'is not owned by cp_owner', 'ALTER TABLE %s OWNER TO cp_owner'),
        (c.relkind IN ('r', 'p') AND NOT coalesce(a.atttypid = 'uuid'::regtype AND a.attnotnull, false),
         'tenant_id', 'has no column tenant_id uuid NOT NULL',
         'add tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id()'),
        (c.relkind = 'v' AND NOT coalesce(c.reloptions @> '{security_invoker=true}', false),
         'view', 'does not run with the rights of its caller',
         'CREATE OR REPLACE VIEW … WITH (security_invoker = true): the option must be restated each time'),
        (c.relkind = 'v' AND a.attname IS NULL,
         'view', 'does not expose tenant_id', 'select tenant_id first')
    ) AS fault (found, code, problem, fix)
    WHERE c.oid = ANY (audited) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND fault.found;

    -- The schema of a view leads the path while it is replaced: the second time such a view would select from itself.
    RETURN QUERY
    SELECT 'name', c.oid::regclass::text, 'bears the name of a relation of the base schema',
           'name tables tb_… and base views v_…'
    FROM pg_class c
    JOIN pg_class b ON b.relname = c.relname AND b.oid = ANY (relations) AND b.relnamespace = base
    WHERE c.oid = ANY (relations) AND c.relkind = 'v' AND c.relnamespace <> base
      AND (c.oid = ANY (audited) OR b.oid = ANY (audited));

    -- Printing an expression locks its table. CASE keeps the planner from printing those of all homes and filtering
    -- afterwards, which would make migrations of different homes wait for each other, and deadlock.
    IF this.isolation = 'shared' THEN
        RETURN QUERY
        SELECT 'protection', c.oid::regclass::text, 'is not protected',
               format('SELECT tenancy.protect_table(%L)', c.relname)
        FROM pg_class c
        WHERE c.oid = ANY (audited) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND (NOT (c.relrowsecurity AND c.relforcerowsecurity)
               -- exactly one restrictive policy, for all commands, for everybody who may ask
               OR (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive) <> 1
               OR NOT EXISTS (
                   SELECT FROM pg_policy p
                   WHERE p.polrelid = c.oid AND NOT p.polpermissive AND p.polcmd = '*'
                     AND p.polroles @> (request_roles || definer_role)
                     AND CASE WHEN p.polrelid = ANY (audited) THEN
                             pg_get_expr(p.polqual, p.polrelid)
                                 = '(tenant_id = ( SELECT tenancy.current_tenant_id() AS current_tenant_id))'
                             AND pg_get_expr(p.polwithcheck, p.polrelid)
                                 = '(tenant_id = ( SELECT tenancy.current_tenant_id() AS current_tenant_id))'
                         END)
               -- without it FORCE would make upgrades and backfills silently touch nothing
               OR NOT EXISTS (
                   SELECT FROM pg_policy p
                   WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd = '*' AND p.polroles = ARRAY[owner_role]
                     AND CASE WHEN p.polrelid = ANY (audited) THEN
                             pg_get_expr(p.polqual, p.polrelid) = 'true'
                             AND pg_get_expr(p.polwithcheck, p.polrelid) = 'true'
                         END)
               -- a policy for PUBLIC (role 0) or for a stranger opens the table past the restrictive one
               OR EXISTS (
                   SELECT FROM pg_policy p
                   WHERE p.polrelid = c.oid
                     AND NOT p.polroles <@ (request_roles || definer_role || owner_role)
                     AND NOT (
                         p.polroles = ARRAY[support_role] AND p.polcmd = 'r'
                         AND CASE WHEN p.polrelid = ANY (audited) THEN
                                 pg_get_expr(p.polqual, p.polrelid)
                                     = '( SELECT tenancy.in_support_session() AS in_support_session)'
                             END)));
    ELSE
        RETURN QUERY
        SELECT 'protection', c.oid::regclass::text, 'is not protected',
               format('SELECT tenancy.protect_table(%L)', c.relname)
        FROM pg_class c
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        WHERE c.oid = ANY (audited) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND NOT EXISTS (
              SELECT FROM pg_constraint k
              WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.convalidated AND k.conkey = ARRAY[a.attnum]
                AND CASE WHEN k.conrelid = ANY (audited) THEN
                        pg_get_constraintdef(k.oid) = format('CHECK ((tenant_id = %L::uuid))', this.tenant_id)
                    END);
    END IF;

    RETURN QUERY
    SELECT 'index', i.indexrelid::regclass::text, 'is not led by tenant_id',
           'put tenant_id first, so that no key tells of another tenant and no scan reads its rows'
    FROM pg_index i
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_am am ON am.oid = x.relam
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND i.indkey[0] <> 0
    WHERE i.indrelid = ANY (audited) AND (i.indisunique OR am.amname = 'btree')
      AND a.attname IS DISTINCT FROM 'tenant_id';

    RETURN QUERY
    SELECT 'foreign_key', format('%s on %s', k.conname, k.conrelid::regclass),
           'does not carry tenant_id to a table of the same home',
           'FOREIGN KEY (tenant_id, …) REFERENCES … (tenant_id, …)'
    FROM pg_constraint k
    WHERE k.contype = 'f' AND k.conrelid = ANY (audited)
      AND (NOT k.confrelid = ANY (relations)
           OR NOT EXISTS (
               SELECT FROM unnest(k.conkey, k.confkey) AS pair (near, far)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = pair.near
               JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = pair.far
               WHERE a.attname = 'tenant_id' AND b.attname = 'tenant_id'));

    RETURN QUERY
    SELECT 'function', p.oid::regprocedure::text, fault.problem, replace(fault.fix, '%s', p.oid::regprocedure::text)
    FROM pg_proc p
    CROSS JOIN LATERAL (VALUES
        (p.prosqlbody IS NULL
             AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS setting WHERE setting LIKE 'search_path=%'),
         'does not pin its search_path', 'SET search_path FROM CURRENT, or a body of BEGIN ATOMIC'),
        (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) g WHERE g.grantee = 0),
         'can be executed by PUBLIC', 'REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC'),
        (p.prosecdef AND p.proowner <> definer_role,
         'runs with the rights of another role than cp_definer', 'let the stamp hand it over: create it as cp_owner')
    ) AS fault (found, problem, fix)
    WHERE p.oid = ANY (routines) AND fault.found;

    RETURN QUERY
    SELECT DISTINCT 'grant', c.oid::regclass::text, format('%s is granted to %s', g.privilege_type,
               CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END),
           'requests may SELECT, INSERT, UPDATE and DELETE, only SELECT what functions write, and nothing what is private'
    FROM pg_class c, aclexplode(c.relacl) g
    WHERE c.oid = ANY (audited) AND c.relkind IN ('r', 'p', 'v') AND g.grantee <> owner_role
      AND (g.privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
           OR NOT (g.grantee = ANY (request_roles || definer_role)
                   OR this.isolation = 'shared' AND c.relkind <> 'v'
                      AND g.grantee = support_role AND g.privilege_type = 'SELECT')
           OR c.relispartition
           OR (g.grantee = ANY (request_roles)
               AND EXISTS (SELECT FROM tenancy.function_tables t
                           WHERE t.home_id = home AND t.table_name = c.relname
                             AND (t.private OR g.privilege_type <> 'SELECT'))));
END
$$;

-- Every way in which a home breaks an isolation rule; no rows when it breaks none.
CREATE OR REPLACE FUNCTION isolation_faults(home uuid)
RETURNS TABLE (code text, object text, problem text, fix text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    schemas oid[] := ARRAY(SELECT s.schema_oid FROM tenancy.home_schemas(home) s);
    relations oid[] := tenancy.schema_objects(schemas, 'pg_class');
BEGIN
    RETURN QUERY
    SELECT f.code, f.object, f.problem, f.fix
    FROM tenancy.audit(home, relations, relations, tenancy.schema_objects(schemas, 'pg_proc')) AS f;
END
$$;
