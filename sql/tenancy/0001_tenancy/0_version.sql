-- `tenancy` has a version of its own: migrate-all brings it up first, in every database.

CREATE TABLE versions (
    version integer PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION installed_version() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER  -- request roles may ask, and may read no table of this schema
SET search_path = pg_catalog, pg_temp
AS $$ SELECT max(version) FROM tenancy.versions $$;
