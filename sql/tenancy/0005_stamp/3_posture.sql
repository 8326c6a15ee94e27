-- Can this database isolate tenants at all? Asked before a cluster is accepted, at every start and by `cp doctor`, which
-- alone asks about `every_home`. A start asks about shared ones: they are few, and tenants have nothing but their policies
-- between them. To audit ten thousand homes would take minutes, in which nobody is served.
DROP FUNCTION posture();
CREATE FUNCTION posture(every_home boolean DEFAULT true)
RETURNS TABLE (code text, object text, problem text, fix text)
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

    -- From role to role, and not each pair of them asked about: there may be as many as tenants.
    RETURN QUERY
    WITH RECURSIVE acts AS (
        SELECT r.oid AS member, m.roleid AS powerful
        FROM pg_roles r JOIN pg_auth_members m ON m.member = r.oid
        WHERE r.rolname IN (SELECT role_name FROM tenancy.home_roles) AND NOT r.rolsuper
        UNION
        SELECT a.member, m.roleid FROM acts a JOIN pg_auth_members m ON m.member = a.powerful
    )
    SELECT 'request_role', r.rolname::text, format('can act as %s', p.rolname), format('REVOKE %I FROM %I', p.rolname, r.rolname)
    FROM acts a JOIN pg_roles r ON r.oid = a.member JOIN pg_roles p ON p.oid = a.powerful
    WHERE p.rolsuper OR p.rolbypassrls OR p.rolcreaterole
       OR p.rolname IN ('cp_owner', 'cp_definer', 'cp_tenancy')
       OR p.rolname IN (SELECT role_name FROM tenancy.home_roles);

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

    FOR home IN SELECT h.id FROM tenancy.homes h WHERE every_home OR h.isolation = 'shared' ORDER BY h.schema_name LOOP
        RETURN QUERY SELECT f.code, f.object, f.problem, f.fix FROM tenancy.isolation_faults(home.id) AS f;
    END LOOP;
END
$$;
