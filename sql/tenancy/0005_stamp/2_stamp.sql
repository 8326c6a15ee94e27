-- The rows of a home's tables that this transaction, and what the server has not yet counted of those before it in this
-- session, has inserted, updated and deleted. What has no rows has no counters.
CREATE OR REPLACE FUNCTION rows_written(relations oid[]) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    RETURN (
        SELECT coalesce(sum(pg_stat_get_xact_tuples_inserted(r) + pg_stat_get_xact_tuples_updated(r)
                            + pg_stat_get_xact_tuples_deleted(r)), 0)
        FROM unnest(relations) AS r
    );
END
$$;

-- What of a home this transaction has made or changed, by name; API schemas are named api_v1, api_v2, …
DROP FUNCTION touched(uuid);
CREATE FUNCTION touched(base name, relations oid[], changed oid[], routines oid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    rows_before bigint := nullif(current_setting('tenancy.rows_before', true), '');
    objects jsonb;
BEGIN
    SELECT jsonb_object_agg(kind, names) INTO objects
    FROM (
        SELECT found.kind, jsonb_agg(substr(n.nspname, length(base) + 3) || left('.', length(n.nspname) - length(base))
                                     || found.name ORDER BY n.nspname, found.name) AS names
        FROM (
            SELECT CASE c.relkind WHEN 'v' THEN 'views' ELSE 'tables' END, c.relname, c.relnamespace
            FROM pg_class c
            WHERE c.oid = ANY (changed) AND c.relkind IN ('r', 'p', 'v') AND age(c.xmin) <= 0
            UNION ALL
            SELECT 'indexes', x.relname, x.relnamespace
            FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
            WHERE i.indrelid = ANY (changed) AND age(x.xmin) <= 0
              AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid)
            UNION ALL
            SELECT DISTINCT 'functions', p.proname, p.pronamespace
            FROM pg_proc p WHERE p.oid = ANY (routines)
        ) AS found (kind, name, namespace)
        JOIN pg_namespace n ON n.oid = found.namespace
        GROUP BY found.kind
    ) AS named;
    RETURN '{"tables": [], "views": [], "indexes": [], "functions": []}'::jsonb
        || coalesce(objects, '{}')
        || jsonb_build_object('rows', greatest(tenancy.rows_written(relations) - rows_before, 0));
END
$$;

-- `replaces_routines`: whether the DDL may replace functions, which only their owner may: cp_owner has them meanwhile.
DROP FUNCTION begin_migration(uuid, integer, integer, integer[]);
CREATE FUNCTION begin_migration(
    home uuid, from_version integer, to_version integer, api_versions integer[], replaces_routines boolean DEFAULT true
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    this tenancy.homes;
    api_schema text;
    handed_over oid[];
    routine regprocedure;
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
    IF replaces_routines THEN
        handed_over := tenancy.schema_objects(
            ARRAY(SELECT s.schema_oid FROM tenancy.home_schemas(home) s), 'pg_proc');
        handed_over := ARRAY(SELECT p.oid FROM pg_proc p
                             WHERE p.oid = ANY (handed_over) AND p.proowner = 'cp_definer'::regrole);
        FOREACH routine IN ARRAY handed_over LOOP
            EXECUTE format('ALTER ROUTINE %s OWNER TO cp_owner', routine);
        END LOOP;
    END IF;
    PERFORM set_config('tenancy.handed_over', coalesce(handed_over, '{}')::text, true);
    PERFORM set_config('tenancy.rows_before', tenancy.rows_written(
        tenancy.schema_objects(ARRAY[to_regnamespace(quote_ident(this.schema_name))], 'pg_class'))::text, true);
END
$$;

-- Gives the definer functions among `routines` to cp_definer, who must be able to create in their schemas for as long as
-- that takes.
CREATE FUNCTION hand_over(routines oid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    definers oid[];
    schemas text;
    routine regprocedure;
BEGIN
    SELECT array_agg(p.oid), string_agg(DISTINCT quote_ident(n.nspname), ', ') INTO definers, schemas
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.oid = ANY (routines) AND p.prosecdef AND p.proowner = 'cp_owner'::regrole;
    IF definers IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('GRANT CREATE, USAGE ON SCHEMA %s TO cp_definer', schemas);
    FOREACH routine IN ARRAY definers LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO cp_definer', routine);
    END LOOP;
    EXECUTE format('REVOKE CREATE ON SCHEMA %s FROM cp_definer', schemas);
END
$$;

-- Gives a home's request roles, and cp_definer, what they need and nothing more. Only what lacks a grant is named,
-- and all of it in one statement per kind: each statement and each rewritten catalogue row costs. `relations` and
-- `routines`: those that may lack one, all of the home's when NULL.
DROP FUNCTION grant_home(uuid);
CREATE FUNCTION grant_home(home uuid, relations oid[] DEFAULT NULL, routines oid[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    roles oid[];
    role_list text;
    request_list text;
    schemas oid[];
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
    relations := coalesce(relations, tenancy.schema_objects(schemas, 'pg_class'));
    routines := coalesce(routines, tenancy.schema_objects(schemas, 'pg_proc'));
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

-- Ends a migration: hands over definer functions, moves the default alias, makes the grants, audits what was touched and
-- records the version. `manifest`: {"functions": [{"api": 1, "name": "…"}], "default_api": 2, …}, where api is null for
-- helpers, which only views and functions call; the rest is what declared() answers. `script` is the checksum of all that
-- was run: one that has built a home from nothing before need not be audited again.
CREATE OR REPLACE FUNCTION stamp_migration(
    home uuid, version integer, checksum text, manifest jsonb, script text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    this tenancy.homes;
    schemas oid[] := ARRAY(SELECT s.schema_oid FROM tenancy.home_schemas(home) s);
    relations oid[] := tenancy.schema_objects(schemas, 'pg_class');
    changed oid[] := tenancy.touched_relations(relations);
    routines oid[] := tenancy.touched_routines(schemas);
    listed jsonb;  -- the functions that requests may call, as of the version before
    noted jsonb;
    default_now integer := (manifest ->> 'default_api')::integer;
    faults text;
BEGIN
    SELECT h.* INTO STRICT this FROM tenancy.homes h WHERE h.id = home;
    SELECT m.manifest -> 'functions' INTO listed
    FROM tenancy.manifests m WHERE m.template = this.template AND m.version = this.version;

    IF this.version > 0 THEN  -- before the grants, which change every new object once more
        RAISE INFO '%', tenancy.touched(this.schema_name, relations, changed, routines) USING ERRCODE = 'CP004';
    END IF;
    PERFORM tenancy.hand_over(routines || nullif(current_setting('tenancy.handed_over', true), '')::oid[]);

    UPDATE tenancy.homes AS h
    SET version = stamp_migration.version, checksum = stamp_migration.checksum, updated_at = now(),
        default_api = default_now
    WHERE h.id = home;
    -- The homes of a version share the row, and a conflict would lock it until the audit is over, changed or not.
    SELECT m.manifest INTO noted
    FROM tenancy.manifests m WHERE m.template = this.template AND m.version = stamp_migration.version;
    IF noted IS DISTINCT FROM manifest THEN
        INSERT INTO tenancy.manifests (template, version, manifest)
        VALUES (this.template, stamp_migration.version, stamp_migration.manifest)
        ON CONFLICT ON CONSTRAINT manifests_pkey DO UPDATE SET manifest = excluded.manifest;
    END IF;

    IF this.default_api IS DISTINCT FROM default_now OR EXISTS (
        SELECT FROM pg_class c
        WHERE c.oid = ANY (changed) AND c.relkind = 'v'
          AND c.relnamespace = to_regnamespace(quote_ident(this.schema_name || '__api_v' || default_now))
    ) THEN
        PERFORM tenancy.alias_default_api(home, this.default_api);
        relations := tenancy.schema_objects(schemas, 'pg_class');
        changed := tenancy.touched_relations(relations);
    END IF;
    PERFORM tenancy.retire_apis(home, manifest -> 'retired');
    -- What stood before has its grants, unless it is listed only now.
    PERFORM tenancy.grant_home(home, changed, CASE WHEN listed = manifest -> 'functions' THEN routines END);
    PERFORM tenancy.grant_support(home);

    IF this.version = 0 AND EXISTS (
        SELECT FROM tenancy.audited_scripts a
        WHERE a.script = stamp_migration.script AND a.isolation = this.isolation
    ) THEN
        RETURN;
    END IF;
    SELECT string_agg(format('%s %s; %s', f.object, f.problem, f.fix), E'\n' ORDER BY f.object, f.problem) INTO faults
    FROM tenancy.audit(home, relations, changed, routines) AS f;
    IF faults IS NOT NULL THEN
        RAISE EXCEPTION '%', faults USING ERRCODE = 'CP003', HINT = 'Correct the template version.';
    ELSIF this.version = 0 AND script IS NOT NULL THEN
        INSERT INTO tenancy.audited_scripts (script, isolation) VALUES (script, this.isolation) ON CONFLICT DO NOTHING;
    END IF;
END
$$;
