-- Can this database isolate tenants at all? Asked before a cluster is accepted, at every start and by `cp doctor`.

-- Readiness is more than SELECT 1: after a swap of the server's binaries plain SQL goes on working while new sessions
-- can no longer load PL/pgSQL, or the libraries of the extensions that templates use. To validate a function loads its
-- library and looks it up there; one function per library will do.
CREATE FUNCTION ready() RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM fmgr_c_validator(library.sample)
    FROM (
        SELECT min(p.oid) AS sample
        FROM pg_proc p
        JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
        JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'extensions'
        GROUP BY p.probin
    ) AS library;
    RETURN true;
END
$$;

CREATE FUNCTION posture() RETURNS TABLE (code text, object text, problem text, fix text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    home record;
BEGIN
    IF current_setting('server_version_num')::integer < 150000 THEN
        RETURN QUERY SELECT 'server_version', current_setting('server_version'),
            'views cannot run with the rights of their caller before PostgreSQL 15', 'upgrade the server';
    END IF;

    RETURN QUERY
    SELECT 'request_role', r.rolname::text,
           CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'has BYPASSRLS'
                ELSE 'may create roles or databases' END,
           format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB', r.rolname)
    FROM pg_roles r
    WHERE r.rolname IN (SELECT role_name FROM tenancy.home_roles)
      AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb);

    RETURN QUERY
    SELECT 'request_role', r.rolname::text, format('can act as %s', powerful.rolname),
           format('REVOKE %I FROM %I', powerful.rolname, r.rolname)
    FROM pg_roles r
    JOIN pg_roles powerful
      ON powerful.oid <> r.oid AND pg_has_role(r.oid, powerful.oid, 'MEMBER')
     AND (powerful.rolsuper OR powerful.rolbypassrls OR powerful.rolcreaterole
          OR powerful.rolname IN ('cp_owner', 'cp_definer', 'cp_tenancy')
          OR powerful.rolname IN (SELECT role_name FROM tenancy.home_roles))
    WHERE r.rolname IN (SELECT role_name FROM tenancy.home_roles) AND NOT r.rolsuper;

    RETURN QUERY
    SELECT 'group_role', r.rolname::text, 'is a superuser, has BYPASSRLS or can log in',
           format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS NOLOGIN', r.rolname)
    FROM pg_roles r
    WHERE r.rolname IN ('cp_owner', 'cp_definer', 'cp_tenancy', 'cp_request', 'cp_support')
      AND (r.rolsuper OR r.rolbypassrls OR r.rolcanlogin);

    IF pg_has_role('cp_owner', 'cp_definer', 'MEMBER') THEN
        RETURN QUERY SELECT 'group_role', 'cp_owner', 'can act as cp_definer', 'REVOKE cp_definer FROM cp_owner';
    END IF;

    RETURN QUERY
    SELECT 'database', d.datname::text, format('%s is granted to PUBLIC', g.privilege_type),
           format('REVOKE %s ON DATABASE %I FROM PUBLIC', g.privilege_type, d.datname)
    FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) g
    WHERE d.datname = current_database() AND g.grantee = 0;

    RETURN QUERY
    SELECT 'schema', n.nspname::text, 'PUBLIC may create objects in it',
           format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', n.nspname)
    FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) g
    WHERE g.grantee = 0 AND g.privilege_type = 'CREATE';

    RETURN QUERY
    SELECT 'tenancy', p.oid::regprocedure::text, 'is not what this release installed',
           'restore it from sql/tenancy'
    FROM pg_proc p
    WHERE p.pronamespace = 'tenancy'::regnamespace
      AND (p.proowner <> 'cp_tenancy'::regrole
           OR (p.proname IN ('current_tenant_id', 'current_user_id', 'current_roles') AND p.provolatile <> 's')
           OR (p.proname = 'set_tenant_context' AND (p.provolatile <> 'v' OR NOT p.prosecdef))
           OR EXISTS (SELECT FROM aclexplode(p.proacl) g WHERE g.grantee = 0)
           OR p.proacl IS NULL);

    FOR home IN SELECT h.id FROM tenancy.homes h ORDER BY h.schema_name LOOP
        RETURN QUERY SELECT f.code, f.object, f.problem, f.fix FROM tenancy.isolation_faults(home.id) AS f;
    END LOOP;
END
$$;
