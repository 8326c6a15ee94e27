-- One message brings a home from one pattern version to another: begin_migration(), the template's DDL as cp_owner,
-- stamp_migration(). All three in one transaction, so that a stamp never lies.
--
--   CP001  the home is not at the version that the message starts from: plan again
--   CP002  another migration holds the home: come back later
--   CP003  the template breaks an isolation rule

CREATE FUNCTION begin_migration(home uuid, from_version integer, to_version integer, api_versions integer[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this tenancy.homes;
    api_schema text;
    handed_over regprocedure;
BEGIN
    -- Never wait for an advisory lock while holding a snapshot: CREATE INDEX CONCURRENTLY would wait for us.
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tenancy.home:' || home::text, 0)) THEN
        RAISE EXCEPTION 'another migration holds the home' USING ERRCODE = 'CP002';
    END IF;
    SELECT h.* INTO this FROM tenancy.homes h WHERE h.id = home;
    IF this.version IS DISTINCT FROM from_version THEN
        RAISE EXCEPTION 'the home is at version %, not %', coalesce(this.version::text, '(none)'), from_version
            USING ERRCODE = 'CP001';
    END IF;
    IF to_version <= from_version THEN
        RAISE EXCEPTION 'version % is not later than %', to_version, from_version USING ERRCODE = 'CP001';
    END IF;

    FOREACH api_schema IN ARRAY
        ARRAY(SELECT this.schema_name || '__api_v' || api FROM unnest(api_versions) AS api)
        || (this.schema_name || '__api')
    LOOP
        IF to_regnamespace(quote_ident(api_schema)) IS NULL THEN
            EXECUTE format('CREATE SCHEMA %I AUTHORIZATION cp_owner', api_schema);
        END IF;
    END LOOP;

    -- The DDL runs as cp_owner and may replace a function that the last stamp handed over.
    FOR handed_over IN
        SELECT p.oid
        FROM pg_proc p
        JOIN tenancy.home_schemas(home) s ON s.schema_oid = p.pronamespace
        WHERE p.proowner = 'cp_definer'::regrole
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO cp_owner', handed_over);
    END LOOP;
END
$$;

-- Gives a home's request roles, and cp_definer, what they need and nothing more. Only missing grants are made:
-- each GRANT rewrites a catalogue row.
CREATE FUNCTION grant_home(home uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reader name;
    missing record;
BEGIN
    FOR reader IN
        SELECT role_name FROM tenancy.home_roles WHERE home_id = home UNION ALL SELECT 'cp_definer'
    LOOP
        FOR missing IN
            SELECT format('GRANT USAGE ON SCHEMA %I TO %I', s.schema_name, reader) AS statement
            FROM tenancy.home_schemas(home) s
            WHERE NOT has_schema_privilege(reader, s.schema_oid, 'USAGE')
            UNION ALL
            SELECT format('GRANT %s ON %s TO %I', wanted.privileges, c.oid::regclass, reader)
            FROM tenancy.home_schemas(home) s
            JOIN pg_class c ON c.relnamespace = s.schema_oid
            CROSS JOIN LATERAL (
                SELECT CASE c.relkind WHEN 'v' THEN 'SELECT' ELSE 'SELECT, INSERT, UPDATE, DELETE' END
            ) AS wanted (privileges)
            WHERE c.relkind IN ('r', 'p', 'v')
              AND NOT c.relispartition  -- the policies of the parent do not protect a partition that is named itself
              AND (SELECT count(*) FROM aclexplode(c.relacl) g WHERE g.grantee = reader::text::regrole)
                  < cardinality(string_to_array(wanted.privileges, ','))
            UNION ALL
            SELECT format('GRANT EXECUTE ON ROUTINE %s TO %I', p.oid::regprocedure, reader)
            FROM tenancy.homes h
            JOIN tenancy.home_functions f ON f.home_id = h.id
            JOIN pg_namespace n ON n.nspname = h.schema_name || coalesce('__api_v' || f.api, '')
            JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = f.function_name
            WHERE h.id = home AND NOT has_function_privilege(reader, p.oid, 'EXECUTE')
        LOOP
            EXECUTE missing.statement;
        END LOOP;
    END LOOP;
END
$$;

-- The views of the default API version under an address that does not change: <schema>__api.
CREATE FUNCTION alias_default_api(home uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this tenancy.homes;
    alias_schema text;
    target_schema text;
    alias record;
BEGIN
    SELECT h.* INTO STRICT this FROM tenancy.homes h WHERE h.id = home;
    alias_schema := this.schema_name || '__api';
    target_schema := this.schema_name || '__api_v' || this.default_api;

    -- Dropped and made anew, since a view can neither lose nor retype a column in place.
    FOR alias IN
        SELECT c.relname FROM pg_class c
        WHERE c.relnamespace = to_regnamespace(quote_ident(alias_schema)) AND c.relkind = 'v'
    LOOP
        EXECUTE format('DROP VIEW %I.%I', alias_schema, alias.relname);
    END LOOP;
    FOR alias IN
        SELECT c.oid, c.relname, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = to_regnamespace(quote_ident(target_schema)) AND c.relkind = 'v'
        GROUP BY c.oid, c.relname
    LOOP
        EXECUTE format('CREATE VIEW %I.%I WITH (security_invoker = true) AS SELECT %s FROM %I.%I',
                       alias_schema, alias.relname, alias.columns, target_schema, alias.relname);
        EXECUTE format('ALTER VIEW %I.%I OWNER TO cp_owner', alias_schema, alias.relname);
    END LOOP;
END
$$;

-- Ends a migration: hands over definer functions, moves the default alias, makes the grants, audits the home and
-- records the version. `manifest`: {"functions": [{"api": 1 | null, "name": "…"}], "default_api": 2}
CREATE FUNCTION stamp_migration(home uuid, version integer, checksum text, manifest jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this tenancy.homes;
    definer record;
    faults text;
BEGIN
    SELECT h.* INTO STRICT this FROM tenancy.homes h WHERE h.id = home;

    FOR definer IN
        SELECT p.oid::regprocedure AS routine, s.schema_name AS schema
        FROM pg_proc p JOIN tenancy.home_schemas(home) s ON s.schema_oid = p.pronamespace
        WHERE p.prosecdef AND p.proowner = 'cp_owner'::regrole
    LOOP
        -- The new owner must be able to create in the schema for the length of this statement.
        EXECUTE format('GRANT CREATE, USAGE ON SCHEMA %I TO cp_definer', definer.schema);
        EXECUTE format('ALTER ROUTINE %s OWNER TO cp_definer', definer.routine);
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM cp_definer', definer.schema);
    END LOOP;

    UPDATE tenancy.homes AS h
    SET version = stamp_migration.version, checksum = stamp_migration.checksum, updated_at = now(),
        default_api = (manifest ->> 'default_api')::integer
    WHERE h.id = home;

    DELETE FROM tenancy.home_functions WHERE home_id = home;
    INSERT INTO tenancy.home_functions (home_id, api, function_name)
    SELECT home, (f ->> 'api')::integer, f ->> 'name' FROM jsonb_array_elements(manifest -> 'functions') AS f;

    PERFORM tenancy.alias_default_api(home);
    PERFORM tenancy.grant_home(home);

    SELECT string_agg(format('%s %s; %s', f.object, f.problem, f.fix), E'\n' ORDER BY f.object, f.problem) INTO faults
    FROM tenancy.isolation_faults(home) AS f;
    IF faults IS NOT NULL THEN
        RAISE EXCEPTION '%', faults USING ERRCODE = 'CP003', HINT = 'Correct the template version.';
    END IF;
END
$$;
