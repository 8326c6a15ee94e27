-- The group roles of a cluster. Run by its administrative role (CREATEROLE, no superuser); safe to run again.
--
--   cp_owner    owns tables, views and invoker functions of every home; no request ever runs as it
--   cp_definer  owns the SECURITY DEFINER functions of templates and obeys the tenant policies
--   cp_tenancy  owns the schema `tenancy`, which decides who may be served
--   cp_request  what every login role of a home may call in `tenancy`
--   cp_pooler   asks for the SCRAM verifiers of login roles; for the login role of a connection pooler
--   cp_support  reads across the tenants of shared homes, within a support session; for people's own login roles
--
-- Roles are server-wide, so two sessions may create them at the same moment: the loser's error is the winner's success.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['cp_owner', 'cp_definer', 'cp_tenancy', 'cp_request', 'cp_support', 'cp_pooler'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;

    -- Without options, because PostgreSQL 15 has none. From 16 on this adds SET and INHERIT to the creator's ADMIN.
    FOREACH role_name IN ARRAY ARRAY['cp_owner', 'cp_definer', 'cp_tenancy'] LOOP
        IF NOT pg_has_role(current_user, role_name, 'USAGE') THEN
            EXECUTE format('GRANT %I TO %I', role_name, current_user);
        END IF;
    END LOOP;
END
$$;
