-- Run one catalogued operation for one tenant. There is no parameter for SQL text.

-- The home that the caller works for: his own, or for a job of the administrative role its context's.
CREATE FUNCTION caller_home() RETURNS uuid
STABLE
RETURN coalesce(
    (SELECT r.home_id FROM tenancy.home_roles r WHERE r.role_name = session_user),
    (SELECT t.home_id FROM tenancy.tenants t
     WHERE t.id = tenancy.current_tenant_id() AND pg_has_role(session_user, 'cp_tenancy', 'MEMBER'))
);

-- What the template of the caller's home declares under a name: kind 'collections' (name '<api>.<resource>'),
-- 'cached_queries', 'projections'; null when there is no such thing.
CREATE FUNCTION declared(kind text, name text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT m.manifest -> kind -> name
        FROM tenancy.homes h
        JOIN tenancy.manifests m ON m.template = h.template AND m.version = h.version
        WHERE h.id = tenancy.caller_home()
    );
END
$$;

-- The deprecation register as it stands for the caller's home. Without a field a whole resource goes away, without a
-- resource an API version; `removed` is what has gone.
CREATE FUNCTION deprecations() RETURNS TABLE (
    api integer, resource text, field text, replacement text, since integer, announced date, sunset date,
    removed_in integer, removed boolean
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.api, d.resource, d.field, d.replacement, d.since, d.announced, d.sunset, d.removed_in,
           coalesce(d.removed_in <= h.version, false)
    FROM tenancy.homes h
    JOIN tenancy.manifests m ON m.template = h.template AND m.version = h.version
    CROSS JOIN jsonb_to_recordset(m.manifest -> 'deprecations') AS d (
        api integer, resource text, field text, replacement text, since integer, announced date, sunset date,
        removed_in integer)
    WHERE h.id = tenancy.caller_home()
    ORDER BY d.api, d.resource NULLS FIRST, d.field NULLS FIRST
$$;

-- What a request role may know of the route to a tenant of its own home.
CREATE FUNCTION find_route(slug text, operation text, OUT tenant uuid, OUT routine text, OUT path text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    home tenancy.homes;
BEGIN
    SELECT t.id INTO tenant
    FROM tenancy.tenants t
    JOIN tenancy.home_roles r ON r.home_id = t.home_id AND r.role_name = session_user
    WHERE t.slug = find_route.slug;
    IF tenant IS NULL THEN
        RAISE EXCEPTION 'no such tenant here' USING ERRCODE = 'TN404';
    END IF;
    SELECT h.* INTO STRICT home FROM tenancy.homes h JOIN tenancy.tenants t ON t.home_id = h.id WHERE t.id = tenant;

    -- Catalogued, and verified to exist: a path with a missing schema would silently fall through to the next one.
    SELECT format('%I.%I', n.nspname, p.proname), concat_ws(', ', n.nspname, home.schema_name, 'extensions', 'pg_temp')
    INTO routine, path
    FROM tenancy.manifests m
    CROSS JOIN jsonb_to_recordset(m.manifest -> 'functions') AS f (api integer, name text)
    JOIN pg_namespace n ON n.nspname = home.schema_name || '__api_v' || f.api
    JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = f.name
    WHERE m.template = home.template AND m.version = home.version
      AND f.api = home.default_api AND f.name = operation;
    IF routine IS NULL THEN
        RAISE EXCEPTION 'no such operation' USING ERRCODE = 'undefined_function';
    END IF;
END
$$;

CREATE FUNCTION route_to_tenant(slug text, operation text, parameters jsonb) RETURNS jsonb
LANGUAGE plpgsql
AS $$
DECLARE
    route record;
    caller_path text := pg_catalog.current_setting('search_path');
    result jsonb;
BEGIN
    SELECT * INTO route FROM tenancy.find_route(slug, operation);
    PERFORM tenancy.set_tenant_context(
        route.tenant,
        coalesce(tenancy.current_user_id(), '00000000-0000-0000-0000-000000000000'),
        roles => tenancy.current_roles());
    PERFORM pg_catalog.set_config('search_path', route.path, true);
    EXECUTE 'SELECT ' || route.routine || '($1)' INTO result USING parameters;
    -- On an error the whole (sub)transaction goes back, and the path with it.
    PERFORM pg_catalog.set_config('search_path', caller_path, true);
    RETURN result;
END
$$;
