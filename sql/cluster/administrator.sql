-- Prepares a PostgreSQL server for the control plane: its administrative role and the registry's database.
-- Run once, with psql, as the server's superuser or its managed equivalent:
--
--     CP_ADMIN_PASSWORD=… psql --no-psqlrc --file sql/cluster/administrator.sql "$SUPERUSER_DSN"
--
-- A server that only holds tenants (`control-plane cluster add`) needs the role alone; the empty database does no harm.
\set ON_ERROR_STOP on
\set password ''
\getenv password CP_ADMIN_PASSWORD

SELECT set_config('control_plane.password_length', length(:'password')::text, false) AS password_length \gset
DO $$
BEGIN
    IF current_setting('control_plane.password_length')::integer < 16 THEN
        RAISE EXCEPTION 'CP_ADMIN_PASSWORD must be set, to 16 characters or more';
    END IF;
END $$;

-- CREATEROLE and CREATEDB are all it needs: group roles, request roles and databases are its own creations.
CREATE ROLE cp_admin LOGIN CREATEROLE CREATEDB NOSUPERUSER NOBYPASSRLS NOREPLICATION PASSWORD :'password';

-- A managed server's administrator is no superuser: it may give a database away only to a role that it can become.
SELECT NOT rolsuper AS borrow FROM pg_roles WHERE rolname = current_user \gset
\if :borrow
    GRANT cp_admin TO CURRENT_USER;
\endif
CREATE DATABASE control_plane OWNER cp_admin TEMPLATE template0 ENCODING 'UTF8';
REVOKE ALL ON DATABASE control_plane FROM PUBLIC;
\if :borrow
    REVOKE cp_admin FROM CURRENT_USER;
\else
    -- Request roles have no business outside their own database. Only a superuser can see to that here.
    REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
    GRANT CONNECT ON DATABASE postgres TO cp_admin;
\endif
