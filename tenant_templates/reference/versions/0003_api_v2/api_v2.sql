-- API version 2, beside version 1 and over the same rows: `name` and `profile` take the place of `fullName`.

CREATE VIEW users WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    email,
    created_at,
    data - ARRAY['bio', 'avatar_url', 'settings'] || jsonb_build_object(
        'profile', jsonb_build_object('bio', data -> 'bio', 'avatarUrl', data -> 'avatar_url')
    ) AS data
FROM v_user;

CREATE VIEW projects WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    name,
    owner_id,
    created_at,
    data || jsonb_build_object('description', description) AS data
FROM v_project;

CREATE FUNCTION create_user(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    result jsonb := fn_create_user(input);
BEGIN
    RETURN result || jsonb_build_object('data', (
        SELECT jsonb_build_object('user', r.data)
        FROM users AS r
        WHERE r.tenant_id = tenancy.current_tenant_id() AND r.id = (result -> 'data' ->> 'id')::uuid
    ));
END
$$;

CREATE FUNCTION create_project(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    result jsonb := fn_create_project(input);
BEGIN
    RETURN result || jsonb_build_object('data', (
        SELECT jsonb_build_object('project', r.data)
        FROM projects AS r
        WHERE r.tenant_id = tenancy.current_tenant_id() AND r.id = (result -> 'data' ->> 'id')::uuid
    ));
END
$$;

CREATE FUNCTION rename_project(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    result jsonb := fn_rename_project(input);
BEGIN
    RETURN result || jsonb_build_object('data', (
        SELECT jsonb_build_object('project', r.data)
        FROM projects AS r
        WHERE r.tenant_id = tenancy.current_tenant_id() AND r.id = (result -> 'data' ->> 'id')::uuid
    ));
END
$$;
