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
RETURN tenancy.with_document(fn_create_user(input), 'user', 'users');

CREATE FUNCTION create_project(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_create_project(input), 'project', 'projects');

CREATE FUNCTION rename_project(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_rename_project(input), 'project', 'projects');
