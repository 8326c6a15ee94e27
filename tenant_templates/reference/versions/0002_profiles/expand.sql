-- Profiles, and descriptions of projects: new columns with constant defaults, so no table is rewritten and no reader
-- of the present documents sees a difference.

ALTER TABLE tb_user
    ADD COLUMN bio text NOT NULL DEFAULT '',
    ADD COLUMN avatar_url text,
    ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';

ALTER TABLE tb_project
    ADD COLUMN description text NOT NULL DEFAULT '';

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
        'username', name,
        'bio', bio,
        'avatar_url', avatar_url,
        'settings', settings,
        'created_at', created_at
    ) AS data
FROM tb_user;

-- A new column of a view goes to its end.
CREATE OR REPLACE VIEW v_project WITH (security_invoker = true) AS
SELECT
    p.tenant_id,
    p.id,
    p.name,
    p.owner_id,
    p.created_at,
    jsonb_build_object(
        '__typename', 'Project',
        'id', p.id,
        'name', p.name,
        'owner', (SELECT c.data FROM v_user_card AS c WHERE c.tenant_id = p.tenant_id AND c.id = p.owner_id),
        'member_count', (
            SELECT count(*) FROM tb_project_member AS m WHERE m.tenant_id = p.tenant_id AND m.project_id = p.id
        ),
        'created_at', p.created_at
    ) AS data,
    p.description
FROM tb_project AS p;
