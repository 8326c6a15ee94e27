-- Who sees what of whom: telephone numbers, private notes, and a directory that shows each viewer what is his to see.

ALTER TABLE tb_user
    ADD COLUMN phone text CHECK (length(phone) BETWEEN 1 AND 40),
    ADD COLUMN private_notes text NOT NULL DEFAULT '' CHECK (length(private_notes) <= 10000),
    ADD COLUMN listed boolean NOT NULL DEFAULT true,
    ADD COLUMN suspended boolean NOT NULL DEFAULT false;
CREATE INDEX tb_user_name ON tb_user (tenant_id, name, id);

-- The visibility matrix: group of fields → who sees it. The same stands in template.toml, [visibility.people].
-- `hidden` is a rule about rows: who sees people that are suspended or do not want to be listed.
CREATE FUNCTION fn_people_visibility() RETURNS jsonb
IMMUTABLE PARALLEL SAFE
RETURN '{
    "card": ["public", "self", "moderator", "admin"],
    "email": ["self", "moderator", "admin"],
    "phone": ["self", "admin"],
    "stats": ["self", "moderator", "admin"],
    "listed": ["self", "admin"],
    "suspended": ["moderator", "admin"],
    "private_notes": ["admin"],
    "hidden": ["self", "moderator", "admin"]
}'::jsonb;

-- What the caller is to a person: exactly one of self, admin, moderator, public. An admin is `self` to himself, so that
-- nobody reads the notes about himself. Roles are those of the verified token, letter for letter: `Admin` is no role.
CREATE FUNCTION fn_person_viewer(person_id uuid) RETURNS text
STABLE PARALLEL SAFE
RETURN CASE
    WHEN person_id = tenancy.current_user_id() THEN 'self'
    WHEN 'admin' = ANY (tenancy.current_roles()) THEN 'admin'
    WHEN 'moderator' = ANY (tenancy.current_roles()) THEN 'moderator'
    ELSE 'public'
END;

-- The people whom the caller may know of. What he may not see of one is absent from the document and null as a column.
CREATE VIEW v_person WITH (security_invoker = true) AS
SELECT
    u.tenant_id,
    u.id,
    u.name,
    CASE WHEN fn_people_visibility() -> 'email' ? v.viewer THEN u.email END AS email,
    CASE WHEN fn_people_visibility() -> 'phone' ? v.viewer THEN u.phone END AS phone,
    u.created_at,
    jsonb_build_object(
        '__typename', 'Person',
        'id', u.id,
        'name', u.name,
        'avatar_url', u.avatar_url,
        'bio', u.bio,
        'created_at', u.created_at
    )
    || CASE WHEN fn_people_visibility() -> 'email' ? v.viewer
        THEN jsonb_build_object('email', u.email) ELSE '{}' END
    || CASE WHEN fn_people_visibility() -> 'phone' ? v.viewer
        THEN jsonb_build_object('phone', u.phone) ELSE '{}' END
    || CASE WHEN fn_people_visibility() -> 'stats' ? v.viewer
        THEN jsonb_build_object('stats', jsonb_build_object(
            'projects_owned', (
                SELECT count(*) FROM tb_project AS p WHERE p.tenant_id = u.tenant_id AND p.owner_id = u.id
            ),
            'memberships', (
                SELECT count(*) FROM tb_project_member AS m WHERE m.tenant_id = u.tenant_id AND m.user_id = u.id
            )
        )) ELSE '{}' END
    || CASE WHEN fn_people_visibility() -> 'listed' ? v.viewer
        THEN jsonb_build_object('listed', u.listed) ELSE '{}' END
    || CASE WHEN fn_people_visibility() -> 'suspended' ? v.viewer
        THEN jsonb_build_object('suspended', u.suspended) ELSE '{}' END
    || CASE WHEN fn_people_visibility() -> 'private_notes' ? v.viewer
        THEN jsonb_build_object('private_notes', u.private_notes) ELSE '{}' END AS data
FROM tb_user AS u
CROSS JOIN LATERAL (SELECT fn_person_viewer(u.id) AS viewer) AS v
WHERE (u.listed AND NOT u.suspended) OR fn_people_visibility() -> 'hidden' ? v.viewer;

-- The card of an author, for documents that are made anew for each caller: who is hidden from him has none. A stored
-- document must be the same for everybody, and embeds v_user_card.
CREATE VIEW v_author_card WITH (security_invoker = true) AS
SELECT c.tenant_id, c.id, c.data
FROM v_user_card AS c
JOIN v_person AS p ON p.tenant_id = c.tenant_id AND p.id = c.id;

-- People write of themselves what they see of themselves; an admin writes notes about others and suspends them.
-- A person who is hidden from the caller is not found, exactly as one who does not exist.
CREATE FUNCTION fn_update_person(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "name": {"type": "string", "min": 1, "max": 200},
        "bio": {"type": "string", "max": 2000},
        "avatar_url": {"type": "string", "max": 2000, "pattern": "^https://", "message": "must be an https address"},
        "phone": {"type": "string", "min": 1, "max": 40},
        "listed": {"type": "boolean"},
        "private_notes": {"type": "string", "max": 10000},
        "suspended": {"type": "boolean"}
    }');
    person_id uuid;
    writable text[];
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT p.id INTO person_id
    FROM v_person AS p
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = (input ->> 'id')::uuid;
    IF person_id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such person.');
    END IF;
    writable := CASE fn_person_viewer(person_id)
        WHEN 'self' THEN ARRAY['name', 'bio', 'avatar_url', 'phone', 'listed']
        WHEN 'admin' THEN ARRAY['private_notes', 'suspended']
        ELSE '{}'
    END;
    IF writable = '{}' OR input - 'id' - writable <> '{}' THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'These fields of this person are not yours to write.');
    END IF;

    -- A field that is left out stays; null empties one that may be empty.
    UPDATE tb_user AS u
    SET name = coalesce(input ->> 'name', u.name),
        bio = CASE WHEN input ? 'bio' THEN coalesce(input ->> 'bio', '') ELSE u.bio END,
        avatar_url = CASE WHEN input ? 'avatar_url' THEN input ->> 'avatar_url' ELSE u.avatar_url END,
        phone = CASE WHEN input ? 'phone' THEN input ->> 'phone' ELSE u.phone END,
        listed = coalesce((input ->> 'listed')::boolean, u.listed),
        private_notes = CASE WHEN input ? 'private_notes'
            THEN coalesce(input ->> 'private_notes', '') ELSE u.private_notes END,
        suspended = coalesce((input ->> 'suspended')::boolean, u.suspended)
    WHERE u.tenant_id = tenancy.current_tenant_id() AND u.id = person_id;
    IF NOT found THEN  -- deleted since
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such person.');
    END IF;
    RETURN tenancy.mutation_result(true, 'updated', 'The person was updated.', jsonb_build_object('id', person_id));
END
$$;
