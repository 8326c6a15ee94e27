-- `username` is deprecated in favour of `name`. Both stand in the document, from one column, until the sunset that
-- template.toml announces.

CREATE OR REPLACE VIEW v_user WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    email,
    created_at,
    jsonb_build_object(
        '__typename', 'User',
        'id', id,
        'email', email,
        'name', name,
        'username', name,
        'bio', bio,
        'avatar_url', avatar_url,
        'settings', settings,
        'created_at', created_at
    ) AS data
FROM tb_user;
