-- Users, projects and who works on which project.
-- Every key is led by tenant_id, so that no constraint can tell one tenant of another's rows.

CREATE TABLE tb_user (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    email text NOT NULL CHECK (email ~ '^[^@\s]+@[^@\s]+$'),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX tb_user_email ON tb_user (tenant_id, lower(email));
CREATE INDEX tb_user_created_at ON tb_user (tenant_id, created_at, id);
SELECT tenancy.protect_table('tb_user');

CREATE TABLE tb_project (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    owner_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, owner_id) REFERENCES tb_user (tenant_id, id)
);
CREATE INDEX tb_project_created_at ON tb_project (tenant_id, created_at, id);
CREATE INDEX tb_project_owner_id ON tb_project (tenant_id, owner_id);
SELECT tenancy.protect_table('tb_project');

CREATE TABLE tb_project_member (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    project_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'member', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, project_id, user_id),
    FOREIGN KEY (tenant_id, project_id) REFERENCES tb_project (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES tb_user (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX tb_project_member_user_id ON tb_project_member (tenant_id, user_id);
SELECT tenancy.protect_table('tb_project_member');

-- The only shape of a user that other documents may embed.
CREATE VIEW v_user_card WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    jsonb_build_object('__typename', 'UserCard', 'id', id, 'name', name) AS data
FROM tb_user;

CREATE VIEW v_user WITH (security_invoker = true) AS
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
        'created_at', created_at
    ) AS data
FROM tb_user;

CREATE VIEW v_project WITH (security_invoker = true) AS
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
    ) AS data
FROM tb_project AS p;

-- Each function answers a mutation result whose data holds the id; the function of the same name in an API schema
-- puts the document of its own version in its place.

CREATE FUNCTION fn_create_user(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "email": {"type": "string", "required": true, "max": 320, "pattern": "^[^@\\s]+@[^@\\s]+$",
                  "message": "must be an e-mail address"},
        "name": {"type": "string", "required": true, "min": 1, "max": 200}
    }');
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    INSERT INTO tb_user (email, name) VALUES (input ->> 'email', input ->> 'name')
    ON CONFLICT (tenant_id, lower(email)) DO NOTHING
    RETURNING id INTO new_id;
    IF new_id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'The e-mail address is taken.');
    END IF;
    RETURN tenancy.mutation_result(true, 'created', 'The user was created.', jsonb_build_object('id', new_id));
END
$$;

CREATE FUNCTION fn_create_project(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "name": {"type": "string", "required": true, "min": 1, "max": 200},
        "owner_id": {"type": "uuid"}
    }');
    project_owner uuid;
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    -- Locked, so that the owner cannot vanish before the project refers to it.
    SELECT u.id INTO project_owner
    FROM tb_user AS u
    WHERE u.tenant_id = tenancy.current_tenant_id() AND u.id = (input ->> 'owner_id')::uuid
    FOR KEY SHARE;
    IF project_owner IS NULL AND input ->> 'owner_id' IS NOT NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such owner.');
    END IF;

    INSERT INTO tb_project (name, owner_id) VALUES (input ->> 'name', project_owner) RETURNING id INTO new_id;
    INSERT INTO tb_project_member (project_id, user_id, role)
    SELECT new_id, project_owner, 'owner' WHERE project_owner IS NOT NULL;
    RETURN tenancy.mutation_result(true, 'created', 'The project was created.', jsonb_build_object('id', new_id));
END
$$;

CREATE FUNCTION fn_rename_project(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "name": {"type": "string", "required": true, "min": 1, "max": 200}
    }');
    renamed uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    UPDATE tb_project SET name = input ->> 'name'
    WHERE tenant_id = tenancy.current_tenant_id() AND id = (input ->> 'id')::uuid
    RETURNING id INTO renamed;
    IF renamed IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such project.');
    END IF;
    RETURN tenancy.mutation_result(true, 'updated', 'The project was renamed.', jsonb_build_object('id', renamed));
END
$$;
