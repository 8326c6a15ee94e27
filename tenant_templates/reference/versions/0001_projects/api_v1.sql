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

-- The functions of this version answer with its own documents.

CREATE FUNCTION create_user(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_create_user(input), 'user', 'users');

CREATE FUNCTION create_project(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_create_project(input), 'project', 'projects');

CREATE FUNCTION rename_project(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_rename_project(input), 'project', 'projects');
