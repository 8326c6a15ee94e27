-- What a connection pooler needs to let the login roles of this database in: PgBouncer's auth_query. It runs in the
-- database that is asked for, so each one answers for its own homes. A SCRAM verifier is no password: whoever has it can
-- check one, and cannot log in.

CREATE TABLE logins (
    role_name text PRIMARY KEY REFERENCES home_roles (role_name) ON UPDATE CASCADE ON DELETE CASCADE,
    verifier text NOT NULL  -- the same as in pg_authid, which only superusers may read
);

CREATE FUNCTION put_verifier(request_role text, verifier text) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO tenancy.logins (role_name, verifier) VALUES (request_role, verifier)
    ON CONFLICT (role_name) DO UPDATE SET verifier = excluded.verifier
$$;

CREATE FUNCTION pooler_login(request_role text) RETURNS TABLE (username text, password text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT role_name, verifier FROM tenancy.logins WHERE role_name = request_role
$$;

GRANT USAGE ON SCHEMA tenancy TO cp_pooler;
GRANT EXECUTE ON FUNCTION pooler_login(text) TO cp_pooler;
