-- Prepares a database that will hold tenants, before anything of `tenancy` stands in it. Safe to run again.
-- Copies of a template database inherit all of this but the privileges of the database itself.

-- From PostgreSQL 15 on PUBLIC may not create here, but may look; tenants' roles have no business here at all.
REVOKE ALL ON SCHEMA public FROM PUBLIC;

CREATE SCHEMA IF NOT EXISTS tenancy AUTHORIZATION cp_tenancy;

-- An extension exists once per database; templates find it here, last but one on the path.
CREATE SCHEMA IF NOT EXISTS extensions AUTHORIZATION cp_owner;
GRANT USAGE ON SCHEMA extensions TO cp_definer, cp_request;

-- Only the form without IN SCHEMA takes the right away that functions are born with.
ALTER DEFAULT PRIVILEGES FOR ROLE cp_owner, cp_definer, cp_tenancy REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
