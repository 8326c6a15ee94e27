-- Homes and tenants come and go. Called by provisioning, as the cluster's administrative role.

-- The grammar of a slug; the service has the same one and asks first.
CREATE FUNCTION require_slug(slug text) RETURNS void
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF slug IS NULL
       OR length(slug) NOT BETWEEN 2 AND 40
       OR slug !~ '^[a-z][a-z0-9]*(-[a-z0-9]+)*$'
       OR slug ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
       OR slug = ANY (tenancy.reserved_slugs()) THEN
        RAISE EXCEPTION 'invalid slug' USING
            ERRCODE = 'invalid_parameter_value',
            HINT = '2 to 40 characters: lower-case letters, digits, single hyphens; starts with a letter; not reserved';
    END IF;
END
$$;

CREATE FUNCTION reserved_slugs() RETURNS text[]
IMMUTABLE PARALLEL SAFE
RETURN ARRAY[
    'admin', 'administrator', 'all', 'api', 'app', 'auth', 'billing', 'cluster', 'clusters', 'console', 'control-plane',
    'default', 'docs', 'health', 'healthz', 'home', 'homes', 'information-schema', 'internal', 'login', 'logout',
    'metrics', 'migrations', 'new', 'none', 'null', 'oauth', 'openapi', 'operations', 'pg-catalog', 'platform',
    'postgres', 'public', 'readyz', 'registry', 'root', 'schema', 'security', 'self', 'shared', 'static', 'status',
    'support', 'system', 'template', 'templates', 'tenancy', 'tenant', 'tenants', 'test', 'undefined', 'www'];

-- The name never changes and is recorded, because functions keep the path they were created with.
CREATE FUNCTION schema_name_of(home uuid) RETURNS text
IMMUTABLE PARALLEL SAFE
RETURN 't_' || left(replace(home::text, '-', ''), 12);

-- Creates a home's login role, or gives it a new password. `verifier` is the SCRAM form, so that no password reaches a
-- log. Its settings hold for every session, whatever a client asks for at the start; `members_of` lets it connect.
CREATE FUNCTION put_request_role(role_name text, verifier text, path text, statement_timeout interval, members_of text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    setting record;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
        EXECUTE format('ALTER ROLE %I LOGIN PASSWORD %L', role_name, verifier);
        RETURN;
    END IF;
    -- The administrative role becomes a member, since without that it could not end this role's sessions.
    EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L IN ROLE %s ROLE %I', role_name, verifier,
                   (SELECT string_agg(quote_ident(name), ', ') FROM unnest(members_of) AS name), current_user);
    FOR setting IN
        SELECT * FROM (VALUES
            ('search_path', path),
            ('statement_timeout', quote_literal((extract(epoch FROM statement_timeout) * 1000)::integer)),
            ('idle_in_transaction_session_timeout', '''60s'''),
            ('timezone', '''UTC''')  -- one instant, one text: documents render timestamps in the session's zone
        ) AS s (name, value)
    LOOP
        EXECUTE format('ALTER ROLE %I SET %s = %s', role_name, setting.name, setting.value);
    END LOOP;
END
$$;

-- Records a home and creates its empty schema; does nothing when the home is recorded.
CREATE FUNCTION register_home(
    home uuid, isolation text, template text, tenant uuid DEFAULT NULL, request_role text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text := tenancy.schema_name_of(home);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tenancy.home:' || home::text, 0));
    IF NOT EXISTS (SELECT FROM tenancy.homes h WHERE h.id = home) THEN
        INSERT INTO tenancy.homes (id, isolation, template, schema_name, tenant_id)
        VALUES (home, isolation, template, name, tenant);
        EXECUTE format('CREATE SCHEMA %I AUTHORIZATION cp_owner', name);
    END IF;
    IF request_role IS NOT NULL THEN
        INSERT INTO tenancy.home_roles (home_id, role_name) VALUES (home, request_role) ON CONFLICT DO NOTHING;
    END IF;
    RETURN name;
END
$$;

-- Registers a schema home for a new tenant and returns the name of its schema. A repeated call with the same
-- arguments returns the same name; a slug of another tenant is a unique violation.
CREATE FUNCTION create_tenant_schema(
    slug text,
    tenant uuid DEFAULT gen_random_uuid(),
    home uuid DEFAULT gen_random_uuid(),
    template text DEFAULT 'reference',
    request_role text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present record;
    name text;
BEGIN
    PERFORM tenancy.require_slug(slug);
    PERFORM pg_advisory_xact_lock(hashtextextended('tenancy.slug:' || slug, 0));

    SELECT t.id, t.home_id, h.schema_name, h.isolation INTO present
    FROM tenancy.tenants t JOIN tenancy.homes h ON h.id = t.home_id
    WHERE t.slug = create_tenant_schema.slug;
    IF found THEN
        IF present.isolation = 'schema' AND (present.id = tenant OR request_role IS NULL) THEN
            RETURN present.schema_name;
        END IF;
        RAISE EXCEPTION 'the slug is taken' USING ERRCODE = 'unique_violation';
    END IF;

    name := tenancy.register_home(home, 'schema', template, tenant, request_role);
    EXECUTE format('COMMENT ON SCHEMA %I IS %L', name, slug);
    INSERT INTO tenancy.tenants (id, home_id, slug, state) VALUES (tenant, home, slug, 'provisioning');
    RETURN name;
END
$$;

-- Drops a home with all that is in it. Schemas first: without the row nobody would find them again.
CREATE FUNCTION drop_home(home uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tenancy.home:' || home::text, 0));
    FOR name IN SELECT s.schema_name FROM tenancy.home_schemas(home) s ORDER BY s.is_api DESC, s.schema_name LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    DELETE FROM tenancy.homes WHERE id = home;
END
$$;

-- The counterpart of create_tenant_schema; refuses a tenant that is being served.
CREATE FUNCTION drop_tenant_schema(slug text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    present record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tenancy.slug:' || slug, 0));
    SELECT t.home_id, t.state, h.isolation INTO present
    FROM tenancy.tenants t JOIN tenancy.homes h ON h.id = t.home_id
    WHERE t.slug = drop_tenant_schema.slug;
    IF NOT found OR present.isolation <> 'schema' THEN
        RAISE EXCEPTION 'no tenant schema of that name' USING ERRCODE = 'no_data_found';
    ELSIF present.state IN ('active', 'moving') THEN
        RAISE EXCEPTION 'the tenant is %', present.state USING
            ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Suspend it first.';
    END IF;
    PERFORM tenancy.drop_home(present.home_id);
END
$$;

-- Records a tenant's state. The epoch never goes back, so that a late writer cannot revive an old placement.
CREATE FUNCTION put_tenant(tenant uuid, home uuid, slug text, state text, epoch bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM tenancy.require_slug(slug);
    INSERT INTO tenancy.tenants AS t (id, home_id, slug, state, epoch, arrival)
    VALUES (tenant, home, slug, state, epoch, epoch)
    ON CONFLICT (id) DO UPDATE SET
        state = excluded.state, epoch = excluded.epoch,
        arrival = CASE WHEN t.state = 'provisioning' THEN excluded.arrival ELSE t.arrival END
    WHERE t.epoch <= excluded.epoch;
    IF NOT found THEN
        RAISE EXCEPTION 'the tenant has a later epoch' USING ERRCODE = 'TN409';
    END IF;
END
$$;

-- Removes up to about `max_rows` rows of a tenant of a shared home and returns how many; 0 when erase_tenant() may end it.
-- A batch that other rows still refer to waits for those; what refers to itself is left to erase_tenant().
CREATE FUNCTION erase_rows(tenant uuid, max_rows integer) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target regclass;
    deleted bigint := 0;
    removed bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM tenancy.homes h JOIN tenancy.tenants t ON t.home_id = h.id
                   WHERE t.id = tenant AND h.isolation = 'shared') THEN
        RETURN 0;
    END IF;
    FOR target IN
        SELECT c.oid
        FROM tenancy.tenants t
        JOIN tenancy.homes h ON h.id = t.home_id
        JOIN pg_namespace n ON n.nspname = h.schema_name
        JOIN pg_class c ON c.relnamespace = n.oid
        WHERE t.id = tenant AND c.relkind = 'r'
        ORDER BY c.relname
    LOOP
        EXIT WHEN deleted >= max_rows;
        SET LOCAL ROLE cp_owner;  -- its policy sees all rows, whoever calls
        BEGIN
            EXECUTE format('DELETE FROM %1$s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$s WHERE tenant_id = $1 LIMIT $2))',
                           target)
            USING tenant, max_rows - deleted;
            GET DIAGNOSTICS removed = ROW_COUNT;
            deleted := deleted + removed;
        EXCEPTION WHEN foreign_key_violation THEN
            NULL;
        END;
        SET LOCAL ROLE NONE;
    END LOOP;
    RETURN deleted;
END
$$;

-- Removes a tenant and, in a shared home, the rest of its rows from every table.
CREATE FUNCTION erase_tenant(tenant uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    home tenancy.homes;
    waiting regclass[];
    blocked regclass[];
    target regclass;
BEGIN
    SELECT h.* INTO home FROM tenancy.homes h JOIN tenancy.tenants t ON t.home_id = h.id WHERE t.id = tenant;
    IF home.isolation = 'shared' THEN
        SELECT array_agg(c.oid::regclass) INTO waiting
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = home.schema_name AND c.relkind IN ('r', 'p') AND NOT c.relispartition;

        SET LOCAL ROLE cp_owner;  -- its policy sees all rows, whoever calls
        WHILE cardinality(waiting) > 0 LOOP  -- parents are tried again once their children are gone
            blocked := '{}';
            FOREACH target IN ARRAY waiting LOOP
                BEGIN
                    EXECUTE format('DELETE FROM %s WHERE tenant_id = $1', target) USING tenant;
                EXCEPTION WHEN foreign_key_violation THEN
                    blocked := blocked || target;
                END;
            END LOOP;
            IF blocked = waiting THEN
                RAISE EXCEPTION 'the foreign keys of % form a ring', blocked USING ERRCODE = 'CP003';
            END IF;
            waiting := blocked;
        END LOOP;
        SET LOCAL ROLE NONE;
    END IF;
    DELETE FROM tenancy.tenants WHERE id = tenant;
END
$$;

-- Turns a copy of a template database into the home of a tenant; does nothing when that has been done.
CREATE FUNCTION claim_home(home uuid, tenant uuid, slug text, request_role text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this tenancy.homes;
    kept record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('tenancy.home:' || home::text, 0));
    SELECT h.* INTO STRICT this FROM tenancy.homes h;  -- a database home is the only one of its database
    IF this.id = home THEN
        RETURN;
    END IF;

    FOR kept IN
        SELECT k.conrelid::regclass AS table_name, k.conname AS name
        FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
        WHERE n.nspname = this.schema_name AND k.contype = 'c'
          AND pg_get_constraintdef(k.oid) = format('CHECK ((tenant_id = %L::uuid))', this.tenant_id)
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I CHECK (tenant_id = %L::uuid)',
                       kept.table_name, kept.name, kept.name, tenant);
    END LOOP;

    UPDATE tenancy.homes SET id = home, tenant_id = tenant, updated_at = now();
    INSERT INTO tenancy.home_roles (home_id, role_name) VALUES (home, request_role);
    INSERT INTO tenancy.tenants (id, home_id, slug, state) VALUES (tenant, home, slug, 'provisioning');
    EXECUTE format('COMMENT ON SCHEMA %I IS %L', this.schema_name, slug);
    PERFORM tenancy.renew_cursor_secret();
    PERFORM tenancy.grant_home(home);
END
$$;
