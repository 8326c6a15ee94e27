-- One message brings a home from one pattern version to another: begin_migration(), the template's DDL as cp_owner,
-- stamp_migration(). All three in one transaction, so that a stamp never lies.
--
--   CP001  the home is not at the version that the message starts from: plan again
--   CP002  another migration holds the home: come back later
--   CP003  the template breaks an isolation rule
--   CP004  (a message, no error) what the migration touched: {"tables": [], "views": [], "indexes": [],
--          "functions": [], "rows": 0}

-- The rows of a home's tables that this transaction, and what the server has not yet counted of those before it in this
-- session, has inserted, updated and deleted.
CREATE FUNCTION rows_written(relations oid[]) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid)
                            + pg_stat_get_xact_tuples_deleted(c.oid)), 0)
        FROM pg_class c
        WHERE c.oid = ANY (relations) AND c.relkind = 'r'
    );
END
$$;

-- What this transaction has created or changed in a home, by name; API schemas are named api_v1, api_v2, …
-- A function that is made or replaced is recorded anew in pg_depend, one that only changes hands is not.
CREATE FUNCTION touched(home uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    base name;
    schemas oid[];
    relations oid[];
    rows_before bigint := nullif(current_setting('tenancy.rows_before', true), '');
    objects jsonb;
    present xid := pg_current_xact_id()::xid;
BEGIN
    SELECT h.schema_name INTO base FROM tenancy.homes h WHERE h.id = home;
    SELECT array_agg(s.schema_oid) INTO schemas FROM tenancy.home_schemas(home) s;
    relations := tenancy.schema_objects(schemas, 'pg_class');
    SELECT jsonb_object_agg(kind, names) INTO objects
    FROM (
        SELECT found.kind, jsonb_agg(substr(n.nspname, length(base) + 3) || left('.', length(n.nspname) - length(base))
                                     || found.name ORDER BY n.nspname, found.name) AS names
        FROM (
            SELECT CASE WHEN c.relkind = 'v' THEN 'views' WHEN c.relkind IN ('i', 'I') THEN 'indexes' ELSE 'tables' END,
                   c.relname, c.relnamespace
            FROM pg_class c
            WHERE c.oid = ANY (relations) AND c.relkind IN ('r', 'p', 'v', 'i', 'I') AND c.xmin = present
            UNION ALL
            SELECT DISTINCT 'functions', p.proname, p.pronamespace
            FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
            WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = ANY (schemas)
              AND d.classid = 'pg_proc'::regclass AND d.xmin = present
        ) AS found (kind, name, namespace)
        JOIN pg_namespace n ON n.oid = found.namespace
        GROUP BY found.kind
    ) AS named;
    RETURN '{"tables": [], "views": [], "indexes": [], "functions": []}'::jsonb
        || coalesce(objects, '{}')
        || jsonb_build_object('rows', greatest(tenancy.rows_written(relations) - rows_before, 0));
END
$$;

CREATE FUNCTION begin_migration(home uuid, from_version integer, to_version integer, api_versions integer[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    this tenancy.homes;
    api_schema text;
    routines oid[];
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

    IF from_version = 0 THEN
        RETURN;
    END IF;
    -- The DDL runs as cp_owner and may replace a function that the last stamp handed over.
    routines := tenancy.schema_objects(ARRAY(SELECT s.schema_oid FROM tenancy.home_schemas(home) s), 'pg_proc');
    FOR handed_over IN
        SELECT p.oid
        FROM pg_proc p
        WHERE p.oid = ANY (routines)
          AND p.proowner = 'cp_definer'::regrole
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO cp_owner', handed_over);
    END LOOP;
    PERFORM set_config('tenancy.rows_before', tenancy.rows_written(
        tenancy.schema_objects(ARRAY[to_regnamespace(quote_ident(this.schema_name))], 'pg_class'))::text, true);
END
$$;

-- Gives a home's request roles, and cp_definer, what they need and nothing more. Only what lacks a grant is named,
-- and all of it in one statement per kind: each statement and each rewritten catalogue row costs.
CREATE FUNCTION grant_home(home uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    roles oid[];
    role_list text;
    request_list text;
    schemas oid[];
    relations oid[];
    routines oid[];
    views text;
    function_tables text;
    read_tables text;
    objects text;
BEGIN
    SELECT array_agg(r.oid), string_agg(quote_ident(r.rolname), ', '),
           string_agg(quote_ident(r.rolname), ', ') FILTER (WHERE r.rolname <> 'cp_definer')
    INTO roles, role_list, request_list
    FROM pg_roles r
    WHERE r.rolname = 'cp_definer' OR r.rolname IN (SELECT role_name FROM tenancy.home_roles WHERE home_id = home);

    SELECT array_agg(s.schema_oid), string_agg(quote_ident(s.schema_name), ', ') FILTER (
               WHERE NOT roles <@ ARRAY(SELECT g.grantee FROM pg_namespace n, aclexplode(n.nspacl) g
                                        WHERE n.oid = s.schema_oid))
    INTO schemas, objects
    FROM tenancy.home_schemas(home) s;
    relations := tenancy.schema_objects(schemas, 'pg_class');
    routines := tenancy.schema_objects(schemas, 'pg_proc');
    IF objects IS NOT NULL THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', objects, role_list);
    END IF;

    -- Not on partitions: the policies of the parent do not protect one that is named itself.
    SELECT string_agg(c.oid::regclass::text, ', ') FILTER (WHERE c.relkind = 'v'),
           string_agg(c.oid::regclass::text, ', ') FILTER (WHERE c.relkind IN ('r', 'p') AND t.home_id IS NOT NULL),
           string_agg(c.oid::regclass::text, ', ') FILTER (WHERE c.relkind IN ('r', 'p') AND NOT t.private),
           string_agg(c.oid::regclass::text, ', ') FILTER (
               WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND t.home_id IS NULL)
    INTO views, function_tables, read_tables, objects
    FROM pg_class c
    LEFT JOIN tenancy.function_tables t ON t.home_id = home AND t.table_name = c.relname
    WHERE c.oid = ANY (relations)
      AND NOT CASE WHEN t.private THEN ARRAY['cp_definer'::regrole::oid] ELSE roles END
              <@ ARRAY(SELECT g.grantee FROM aclexplode(c.relacl) g);
    IF views IS NOT NULL THEN
        EXECUTE format('GRANT SELECT ON %s TO %s', views, role_list);
    END IF;
    IF objects IS NOT NULL THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %s', objects, role_list);
    END IF;
    IF function_tables IS NOT NULL THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO cp_definer', function_tables);
    END IF;
    IF read_tables IS NOT NULL AND request_list IS NOT NULL THEN  -- a template database has no request role yet
        EXECUTE format('GRANT SELECT ON %s TO %s', read_tables, request_list);
    END IF;

    SELECT string_agg(p.oid::regprocedure::text, ', ') INTO objects
    FROM tenancy.homes h
    JOIN tenancy.manifests m ON m.template = h.template AND m.version = h.version
    CROSS JOIN jsonb_to_recordset(m.manifest -> 'functions') AS f (api integer, name text)
    JOIN pg_namespace n ON n.nspname = h.schema_name || coalesce('__api_v' || f.api, '')
    JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = f.name AND p.oid = ANY (routines)
    WHERE h.id = home AND NOT roles <@ ARRAY(SELECT g.grantee FROM aclexplode(p.proacl) g);
    IF objects IS NOT NULL THEN
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', objects, role_list);
    END IF;
END
$$;

-- Lets cp_support read the tables of a shared home, where its policy decides; no other home has one.
CREATE FUNCTION grant_support(home uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    base name;
    tables text;
BEGIN
    SELECT h.schema_name INTO base FROM tenancy.homes h WHERE h.id = home AND h.isolation = 'shared';
    IF base IS NULL THEN
        RETURN;
    END IF;
    SELECT string_agg(c.oid::regclass::text, ', ') INTO tables
    FROM pg_class c
    WHERE c.relnamespace = to_regnamespace(quote_ident(base)) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND NOT EXISTS (SELECT FROM aclexplode(c.relacl) g WHERE g.grantee = 'cp_support'::regrole);
    IF tables IS NOT NULL THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO cp_support', base);
        EXECUTE format('GRANT SELECT ON %s TO cp_support', tables);
    END IF;
END
$$;

-- The views of some schema with their columns, as one comparable value.
CREATE FUNCTION view_shapes(schema_name text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    relations oid[] := tenancy.schema_objects(ARRAY[to_regnamespace(quote_ident(schema_name))], 'pg_class');
BEGIN
    RETURN (
        SELECT jsonb_object_agg(c.relname, (
            SELECT jsonb_agg(jsonb_build_array(a.attname, a.atttypid) ORDER BY a.attnum)
            FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0
        ))
        FROM pg_class c
        WHERE c.oid = ANY (relations) AND c.relkind = 'v'
    );
END
$$;

-- The views of the default API version under an address that does not change: <schema>__api. `api` is what the default
-- has been so far; while it stays and no view has changed its columns, there is nothing to do.
CREATE FUNCTION alias_default_api(home uuid, api integer) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    this tenancy.homes;
    alias_schema text;
    target_schema text;
    present jsonb;
    wanted jsonb;
    view_name text;
BEGIN
    SELECT h.* INTO STRICT this FROM tenancy.homes h WHERE h.id = home;
    alias_schema := this.schema_name || '__api';
    target_schema := this.schema_name || '__api_v' || this.default_api;
    present := tenancy.view_shapes(alias_schema);
    wanted := tenancy.view_shapes(target_schema);
    IF this.default_api = api AND present = wanted THEN
        RETURN;
    END IF;

    SET LOCAL ROLE cp_owner;
    -- Dropped and made anew, since a view can neither lose nor retype a column in place.
    FOR view_name IN SELECT jsonb_object_keys(present) LOOP
        EXECUTE format('DROP VIEW %I.%I', alias_schema, view_name);
    END LOOP;
    FOR view_name IN SELECT jsonb_object_keys(wanted) LOOP
        EXECUTE format('CREATE VIEW %I.%I WITH (security_invoker = true) AS SELECT %s FROM %I.%I',
                       alias_schema, view_name,
                       (SELECT string_agg(quote_ident(c ->> 0), ', ') FROM jsonb_array_elements(wanted -> view_name) c),
                       target_schema, view_name);
    END LOOP;
    SET LOCAL ROLE NONE;
END
$$;

-- Takes API versions away, in a home that has them. Without CASCADE: the server names what still depends on one, such
-- as the alias of the default version or a view of another API version, and the migration is undone.
CREATE FUNCTION retire_apis(home uuid, apis jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    api_schema name;
    schemas oid[];
    objects text;
BEGIN
    FOR schemas, api_schema IN
        SELECT ARRAY[n.oid], n.nspname
        FROM tenancy.homes h
        CROSS JOIN jsonb_array_elements_text(apis) AS api
        JOIN pg_namespace n ON n.nspname = h.schema_name || '__api_v' || api
        WHERE h.id = home
    LOOP
        SELECT string_agg(r::regprocedure::text, ', ') INTO objects
        FROM unnest(tenancy.schema_objects(schemas, 'pg_proc')) AS r;
        IF objects IS NOT NULL THEN
            EXECUTE 'DROP ROUTINE ' || objects;
        END IF;
        SELECT string_agg(c.oid::regclass::text, ', ') INTO objects
        FROM pg_class c WHERE c.oid = ANY (tenancy.schema_objects(schemas, 'pg_class')) AND c.relkind = 'v';
        IF objects IS NOT NULL THEN
            EXECUTE 'DROP VIEW ' || objects;
        END IF;
        EXECUTE format('DROP SCHEMA %I', api_schema);
    END LOOP;
END
$$;

-- Ends a migration: hands over definer functions, moves the default alias, makes the grants, audits the home and
-- records the version. `manifest`: {"functions": [{"api": 1, "name": "…"}], "default_api": 2, …}, where api is null for
-- helpers, which only views and functions call; the rest is what declared() answers. `script` is the checksum of all that was run: one that has built a home from nothing before need not be audited again.
CREATE FUNCTION stamp_migration(home uuid, version integer, checksum text, manifest jsonb, script text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    this tenancy.homes;
    routines oid[] := tenancy.schema_objects(ARRAY(SELECT s.schema_oid FROM tenancy.home_schemas(home) s), 'pg_proc');
    definer record;
    faults text;
BEGIN
    SELECT h.* INTO STRICT this FROM tenancy.homes h WHERE h.id = home;

    IF this.version > 0 THEN  -- before the grants, which change every new object once more
        RAISE INFO '%', tenancy.touched(home) USING ERRCODE = 'CP004';
    END IF;

    FOR definer IN
        SELECT p.oid::regprocedure AS routine, n.nspname AS schema
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE p.oid = ANY (routines)
          AND p.prosecdef AND p.proowner = 'cp_owner'::regrole
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
    -- The homes of a version share the row, and a conflict would lock it until the audit is over, changed or not.
    IF NOT EXISTS (
        SELECT FROM tenancy.manifests m
        WHERE m.template = this.template AND m.version = stamp_migration.version
          AND m.manifest = stamp_migration.manifest
    ) THEN
        INSERT INTO tenancy.manifests (template, version, manifest)
        VALUES (this.template, stamp_migration.version, stamp_migration.manifest)
        ON CONFLICT ON CONSTRAINT manifests_pkey DO UPDATE SET manifest = excluded.manifest;
    END IF;

    PERFORM tenancy.alias_default_api(home, this.default_api);
    PERFORM tenancy.retire_apis(home, manifest -> 'retired');
    PERFORM tenancy.grant_home(home);
    PERFORM tenancy.grant_support(home);

    IF this.version = 0 AND EXISTS (
        SELECT FROM tenancy.audited_scripts a
        WHERE a.script = stamp_migration.script AND a.isolation = this.isolation
    ) THEN
        RETURN;
    END IF;
    SELECT string_agg(format('%s %s; %s', f.object, f.problem, f.fix), E'\n' ORDER BY f.object, f.problem) INTO faults
    FROM tenancy.isolation_faults(home) AS f;
    IF faults IS NOT NULL THEN
        RAISE EXCEPTION '%', faults USING ERRCODE = 'CP003', HINT = 'Correct the template version.';
    ELSIF this.version = 0 AND script IS NOT NULL THEN
        INSERT INTO tenancy.audited_scripts (script, isolation) VALUES (script, this.isolation) ON CONFLICT DO NOTHING;
    END IF;
END
$$;
