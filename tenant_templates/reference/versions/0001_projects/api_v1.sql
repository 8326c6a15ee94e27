-- API version 1. It stays as it is for as long as it is served.

CREATE VIEW users WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    email,
    created_at,
    jsonb_build_object(
        '__typename', 'User',
        'id', id,
        'email', email,
        'fullName', data ->> 'username',
        'created_at', created_at
    ) AS data
FROM v_user;

CREATE VIEW projects WITH (security_invoker = true) AS
SELECT tenant_id, id, name, owner_id, created_at, data
FROM v_project;

-- A failed mutation has no data: the sub-select finds no row and leaves null.
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
