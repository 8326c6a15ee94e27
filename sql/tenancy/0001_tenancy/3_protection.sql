-- What makes a table a tenant's table, and the audit of it.

-- Called by the template's author after each CREATE TABLE, as cp_owner.
--   shared home     row-level security, for the table's owner too
--   dedicated home  a check that no row of another tenant can be smuggled in before a later move
-- `written_by`: 'requests', or 'functions' for a table that requests only read and SECURITY DEFINER functions write,
-- or 'functions alone' for one that requests do not read either.
CREATE FUNCTION protect_table(table_name regclass, written_by text DEFAULT 'requests') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    home tenancy.homes;
    bare_name text;
    request_roles text;
BEGIN
    SELECT h.* INTO home
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN tenancy.homes h ON h.schema_name = n.nspname
    WHERE c.oid = table_name;
    IF home.id IS NULL THEN
        RAISE EXCEPTION 'table % does not stand in a home', table_name USING ERRCODE = 'CP003';
    END IF;
    SELECT relname INTO bare_name FROM pg_class WHERE oid = table_name;
    IF written_by IN ('functions', 'functions alone') THEN
        INSERT INTO tenancy.function_tables (home_id, table_name, private)
        VALUES (home.id, bare_name, written_by = 'functions alone');
    ELSIF written_by <> 'requests' THEN
        RAISE EXCEPTION 'a table is written by requests or by functions, not by %', written_by USING ERRCODE = 'CP003';
    END IF;

    IF home.isolation <> 'shared' THEN
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (tenant_id = %L::uuid)',
                       table_name, left(bare_name, 50) || '_tenant', home.tenant_id);
        RETURN;
    END IF;

    SELECT string_agg(format('%I', role_name), ', ' ORDER BY role_name) INTO request_roles
    FROM (SELECT role_name FROM tenancy.home_roles WHERE home_id = home.id UNION SELECT 'cp_definer') AS roles;

    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', table_name);
    -- The sub-select is evaluated once per query, and its operator is leakproof: the index is used.
    EXECUTE format(
        'CREATE POLICY tenant_only ON %s AS RESTRICTIVE FOR ALL TO %s
             USING (tenant_id = (SELECT tenancy.current_tenant_id()))
             WITH CHECK (tenant_id = (SELECT tenancy.current_tenant_id()))', table_name, request_roles);
    EXECUTE format('CREATE POLICY request_access ON %s FOR ALL TO %s USING (true) WITH CHECK (true)',
                   table_name, request_roles);
    -- Upgrades and backfills run as cp_owner; without a policy FORCE would make them silently touch nothing.
    EXECUTE format('CREATE POLICY owner_access ON %s FOR ALL TO cp_owner USING (true) WITH CHECK (true)', table_name);
    EXECUTE format('CREATE POLICY support_access ON %s FOR SELECT TO cp_support
                        USING ((SELECT tenancy.in_support_session()))', table_name);
END
$$;

-- The schemas of a home: its own and one per API version, with the alias of the default version.
CREATE FUNCTION home_schemas(home uuid) RETURNS TABLE (schema_oid oid, schema_name name, is_api boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN QUERY
    SELECT n.oid, n.nspname, n.nspname <> h.schema_name
    FROM tenancy.homes h
    JOIN pg_namespace n ON n.nspname >= h.schema_name AND n.nspname < h.schema_name || '__apj'  -- one range of the index
    WHERE h.id = home AND (n.nspname = h.schema_name OR n.nspname >= h.schema_name || '__api');
END
$$;

-- The objects of one catalogue (pg_class or pg_proc) that stand in `schemas`. Neither catalogue has an index that is led
-- by the schema, pg_depend has: an audit costs what the home is large, not what the database is.
CREATE FUNCTION schema_objects(schemas oid[], catalogue regclass) RETURNS oid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT array_agg(objid)
        FROM pg_depend
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = ANY (schemas) AND classid = catalogue
    );
END
$$;

-- Every way in which a home breaks an isolation rule; no rows when it breaks none.
CREATE FUNCTION isolation_faults(home uuid) RETURNS TABLE (code text, object text, problem text, fix text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    this tenancy.homes;
    schemas oid[];
    relations oid[];
    routines oid[];
    request_roles oid[];
    owner_role oid := 'cp_owner'::regrole;
    base oid;
BEGIN
    SELECT h.* INTO STRICT this FROM tenancy.homes h WHERE h.id = home;
    base := to_regnamespace(quote_ident(this.schema_name));
    SELECT array_agg(s.schema_oid) INTO schemas FROM tenancy.home_schemas(home) s;
    relations := tenancy.schema_objects(schemas, 'pg_class');
    routines := tenancy.schema_objects(schemas, 'pg_proc');
    SELECT coalesce(array_agg(r.oid), '{}') INTO request_roles
    FROM tenancy.home_roles hr JOIN pg_roles r ON r.rolname = hr.role_name
    WHERE hr.home_id = home;

    -- Few queries: their plans rarely survive, since every change of a schema or of its grants discards all plans.
    RETURN QUERY
    SELECT fault.code, c.oid::regclass::text, fault.problem, fault.fix
    FROM pg_class c
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    CROSS JOIN LATERAL (VALUES
        (c.relkind IN ('m', 'f'),
         'kind', 'materialized views and foreign tables cannot be isolated', 'use a table that is kept in step'),
        (c.relkind IN ('r', 'p', 'v') AND c.relowner <> owner_role,
         'owner', 'is not owned by cp_owner', format('ALTER TABLE %s OWNER TO cp_owner', c.oid::regclass)),
        (c.relkind IN ('r', 'p') AND NOT coalesce(a.atttypid = 'uuid'::regtype AND a.attnotnull, false),
         'tenant_id', 'has no column tenant_id uuid NOT NULL',
         'add tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id()'),
        (c.relkind = 'v' AND NOT coalesce(c.reloptions @> '{security_invoker=true}', false),
         'view', 'does not run with the rights of its caller',
         'CREATE OR REPLACE VIEW … WITH (security_invoker = true): the option must be restated each time'),
        (c.relkind = 'v' AND a.attname IS NULL,
         'view', 'does not expose tenant_id', 'select tenant_id first'),
        -- Its schema leads the path while it is replaced: the second time such a view would select from itself.
        (c.relkind = 'v' AND c.relnamespace <> base
             AND EXISTS (SELECT FROM pg_class b WHERE b.relnamespace = base AND b.relname = c.relname),
         'name', 'bears the name of a relation of the base schema', 'name tables tb_… and base views v_…')
    ) AS fault (found, code, problem, fix)
    WHERE c.oid = ANY (relations) AND fault.found;

    -- Printing an expression locks its table. CASE keeps the planner from printing those of all homes and filtering
    -- afterwards, which would make migrations of different homes wait for each other, and deadlock.
    RETURN QUERY
    SELECT 'protection', c.oid::regclass::text, 'is not protected',
           format('SELECT tenancy.protect_table(%L)', c.relname)
    FROM pg_class c
    WHERE c.oid = ANY (relations) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND CASE WHEN this.isolation = 'shared' THEN
              NOT (c.relrowsecurity AND c.relforcerowsecurity)
              -- exactly one restrictive policy, for all commands, for everybody who may ask
              OR (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive) <> 1
              OR NOT EXISTS (
                  SELECT FROM pg_policy p
                  WHERE p.polrelid = c.oid AND NOT p.polpermissive AND p.polcmd = '*'
                    AND p.polroles @> (request_roles || 'cp_definer'::regrole::oid)
                    AND CASE WHEN p.polrelid = ANY (relations) THEN
                            pg_get_expr(p.polqual, p.polrelid)
                                = '(tenant_id = ( SELECT tenancy.current_tenant_id() AS current_tenant_id))'
                            AND pg_get_expr(p.polwithcheck, p.polrelid)
                                = '(tenant_id = ( SELECT tenancy.current_tenant_id() AS current_tenant_id))'
                        END)
              -- without it FORCE would make upgrades and backfills silently touch nothing
              OR NOT EXISTS (
                  SELECT FROM pg_policy p
                  WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd = '*' AND p.polroles = ARRAY[owner_role]
                    AND CASE WHEN p.polrelid = ANY (relations) THEN
                            pg_get_expr(p.polqual, p.polrelid) = 'true'
                            AND pg_get_expr(p.polwithcheck, p.polrelid) = 'true'
                        END)
              -- a policy for PUBLIC (role 0) or for a stranger opens the table past the restrictive one
              OR EXISTS (
                  SELECT FROM pg_policy p
                  WHERE p.polrelid = c.oid
                    AND NOT p.polroles <@ (request_roles || 'cp_definer'::regrole::oid || owner_role)
                    AND NOT (
                        p.polroles = ARRAY['cp_support'::regrole::oid] AND p.polcmd = 'r'
                        AND CASE WHEN p.polrelid = ANY (relations) THEN
                                pg_get_expr(p.polqual, p.polrelid)
                                    = '( SELECT tenancy.in_support_session() AS in_support_session)'
                            END))
          ELSE
              NOT EXISTS (
                  SELECT FROM pg_constraint k
                  WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.convalidated
                    AND CASE WHEN k.conrelid = ANY (relations) THEN
                            pg_get_constraintdef(k.oid) = format('CHECK ((tenant_id = %L::uuid))', this.tenant_id)
                        END)
          END;

    RETURN QUERY
    SELECT 'index', i.indexrelid::regclass::text, 'is not led by tenant_id',
           'put tenant_id first, so that no key tells of another tenant and no scan reads its rows'
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_am am ON am.oid = x.relam
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND i.indkey[0] <> 0
    WHERE c.oid = ANY (relations) AND (i.indisunique OR am.amname = 'btree')
      AND a.attname IS DISTINCT FROM 'tenant_id';

    RETURN QUERY
    SELECT 'foreign_key', format('%s on %s', k.conname, k.conrelid::regclass),
           'does not carry tenant_id to a table of the same home',
           'FOREIGN KEY (tenant_id, …) REFERENCES … (tenant_id, …)'
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_class f ON f.oid = k.confrelid
    WHERE k.contype = 'f' AND c.oid = ANY (relations)
      AND (NOT f.relnamespace = ANY (schemas)
           OR NOT EXISTS (
               SELECT FROM unnest(k.conkey, k.confkey) AS pair (near, far)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = pair.near
               JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = pair.far
               WHERE a.attname = 'tenant_id' AND b.attname = 'tenant_id'));

    RETURN QUERY
    SELECT 'function', p.oid::regprocedure::text, fault.problem, fault.fix
    FROM pg_proc p
    CROSS JOIN LATERAL (VALUES
        (p.prosqlbody IS NULL
             AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS setting WHERE setting LIKE 'search_path=%'),
         'does not pin its search_path', 'SET search_path FROM CURRENT, or a body of BEGIN ATOMIC'),
        (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) g WHERE g.grantee = 0),
         'can be executed by PUBLIC', format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', p.oid::regprocedure)),
        (p.prosecdef AND p.proowner NOT IN ('cp_definer'::regrole, owner_role),
         'runs with the rights of another role than cp_definer', 'let the stamp hand it over: create it as cp_owner')
    ) AS fault (found, problem, fix)
    WHERE p.oid = ANY (routines) AND fault.found;

    RETURN QUERY
    SELECT DISTINCT 'grant', c.oid::regclass::text, format('%s is granted to %s', g.privilege_type,
               CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END),
           'requests may SELECT, INSERT, UPDATE and DELETE, only SELECT what functions write, and nothing what is private'
    FROM pg_class c, aclexplode(c.relacl) g
    WHERE c.oid = ANY (relations) AND c.relkind IN ('r', 'p', 'v') AND g.grantee <> owner_role
      AND (g.privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
           OR NOT (g.grantee = ANY (request_roles || 'cp_definer'::regrole::oid)
                   OR this.isolation = 'shared' AND c.relkind <> 'v'
                      AND g.grantee = 'cp_support'::regrole AND g.privilege_type = 'SELECT')
           OR c.relispartition
           OR (g.grantee = ANY (request_roles)
               AND EXISTS (SELECT FROM tenancy.function_tables t
                           WHERE t.home_id = home AND t.table_name = c.relname
                             AND (t.private OR g.privilege_type <> 'SELECT'))));
END
$$;
