-- Changing the tree. Every change keeps both forms in step, in one statement per branch.

-- The lock of the tenant's tree. Whoever moves, renames or removes holds it alone, since his path may run through any
-- row; whoever adds a leaf shares it with others who do.
CREATE FUNCTION fn_category_lock() RETURNS bigint
STABLE
RETURN hashtextextended(concat_ws(':', 'categories', tenancy.current_tenant_id()), 0);

-- A slug from a name: what is left of it in ASCII. The name itself stays as it is written.
CREATE FUNCTION fn_category_slug(name text) RETURNS text
IMMUTABLE
RETURN rtrim(left(btrim(regexp_replace(lower(name COLLATE "C"), '[^a-z0-9]+', '-', 'g'), '-'), 100), '-');

-- The refusal of a place that is too deep, or a path that is too long; null when the place will do.
CREATE FUNCTION fn_category_bounds(depth integer, path_length integer) RETURNS jsonb
IMMUTABLE
RETURN CASE
    WHEN depth > 31 THEN tenancy.mutation_result(
        false, 'invalid', 'The tree would be deeper than 32 levels.',
        errors => jsonb_build_array(jsonb_build_object(
            'path', 'parent_id', 'code', 'invalid', 'message', 'would make the tree deeper than 32 levels')))
    WHEN path_length > 1000 THEN tenancy.mutation_result(
        false, 'invalid', 'The path would be longer than 1000 characters.',
        errors => jsonb_build_array(jsonb_build_object(
            'path', 'slug', 'code', 'invalid', 'message', 'would make a path longer than 1000 characters')))
END;

CREATE FUNCTION fn_create_category(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "name": {"type": "string", "required": true, "min": 1, "max": 200},
        "slug": {"type": "string", "max": 100, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$",
                 "message": "must be lower-case letters and digits, with single hyphens between them"},
        "parent_id": {"type": "uuid"},
        "sort_order": {"type": "integer", "min": 0, "max": 1000000}
    }');
    new_slug text;
    new_path ltree;
    parent tb_category;
    refusal jsonb;
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    new_slug := coalesce(input ->> 'slug', fn_category_slug(input ->> 'name'));
    IF new_slug = '' THEN
        RETURN tenancy.mutation_result(
            false, 'invalid', 'The input is not valid.', errors => jsonb_build_array(jsonb_build_object(
                'path', 'slug', 'code', 'required', 'message', 'is required: the name holds no letter from a to z')));
    END IF;

    PERFORM pg_advisory_xact_lock_shared(fn_category_lock());
    IF input ->> 'parent_id' IS NOT NULL THEN
        SELECT * INTO parent
        FROM tb_category
        WHERE tenant_id = tenancy.current_tenant_id() AND id = (input ->> 'parent_id')::uuid;
        IF parent.id IS NULL THEN
            RETURN tenancy.mutation_result(false, 'not_found', 'There is no such parent.');
        END IF;
    END IF;
    new_path := text2ltree(concat_ws('.', parent.path_text, translate(new_slug, '-', '_')));
    refusal := fn_category_bounds(nlevel(new_path) - 1, length(new_path::text));
    IF refusal IS NOT NULL THEN
        RETURN refusal;
    END IF;

    INSERT INTO tb_category (parent_id, slug, name, path, sort_order)
    VALUES (parent.id, new_slug, input ->> 'name', new_path,
            coalesce((input ->> 'sort_order')::integer, fn_last_category(parent.id) + 1))
    ON CONFLICT (tenant_id, parent_id, slug) DO NOTHING
    RETURNING id INTO new_id;
    IF new_id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'A category beside it has the same slug.');
    END IF;
    RETURN tenancy.mutation_result(true, 'created', 'The category was created.', jsonb_build_object('id', new_id));
END
$$;

-- The highest sort_order among the children of `parent`, or among the roots; 0 when there are none.
CREATE FUNCTION fn_last_category(parent uuid) RETURNS integer
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(max(c.sort_order), 0)
    FROM tb_category AS c
    WHERE c.tenant_id = tenancy.current_tenant_id() AND (c.parent_id = parent OR (parent IS NULL AND c.parent_id IS NULL));
END;

-- Gives a category another place and slug, and all below it the paths that follow from it: one statement over the
-- branch. The caller holds the lock. Returns a refusal, or null when it is done; ids never change.
CREATE FUNCTION fn_place_category(moved tb_category, parent tb_category, new_slug text) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    new_path ltree := text2ltree(concat_ws('.', parent.path_text, translate(new_slug, '-', '_')));
    refusal jsonb;
BEGIN
    IF new_path = moved.path THEN
        RETURN NULL;
    END IF;
    IF parent.path <@ moved.path THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'A category cannot be moved below itself.');
    END IF;
    SELECT fn_category_bounds(max(depth) - moved.depth + nlevel(new_path) - 1,
                              max(length(path_text)) - length(moved.path_text) + length(new_path::text)) INTO refusal
    FROM tb_category
    WHERE tenant_id = tenancy.current_tenant_id()
      AND path_text >= moved.path_text AND path_text < moved.path_text || '/';
    IF refusal IS NOT NULL THEN
        RETURN refusal;
    END IF;
    IF EXISTS (SELECT FROM tb_category WHERE tenant_id = tenancy.current_tenant_id() AND path_text = new_path::text) THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'A category beside it has the same slug.');
    END IF;

    UPDATE tb_category
    SET path = CASE WHEN id = moved.id THEN new_path ELSE new_path || subpath(path, nlevel(moved.path)) END,
        parent_id = CASE WHEN id = moved.id THEN parent.id ELSE parent_id END,
        slug = CASE WHEN id = moved.id THEN new_slug ELSE slug END
    WHERE tenant_id = tenancy.current_tenant_id()
      AND path_text >= moved.path_text AND path_text < moved.path_text || '/';
    RETURN NULL;
END
$$;

-- Without `slug` the path stays, and with it every address that was built on it.
CREATE FUNCTION fn_rename_category(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "name": {"type": "string", "required": true, "min": 1, "max": 200},
        "slug": {"type": "string", "max": 100, "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$",
                 "message": "must be lower-case letters and digits, with single hyphens between them"}
    }');
    renamed tb_category;
    parent tb_category;
    refusal jsonb;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    PERFORM pg_advisory_xact_lock(fn_category_lock());
    SELECT * INTO renamed
    FROM tb_category
    WHERE tenant_id = tenancy.current_tenant_id() AND id = (input ->> 'id')::uuid;
    IF renamed.id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;
    SELECT * INTO parent FROM tb_category WHERE tenant_id = tenancy.current_tenant_id() AND id = renamed.parent_id;
    refusal := fn_place_category(renamed, parent, coalesce(input ->> 'slug', renamed.slug));
    IF refusal IS NOT NULL THEN
        RETURN refusal;
    END IF;
    UPDATE tb_category SET name = input ->> 'name'
    WHERE tenant_id = tenancy.current_tenant_id() AND id = renamed.id;
    RETURN tenancy.mutation_result(true, 'updated', 'The category was renamed.', jsonb_build_object('id', renamed.id));
END
$$;

-- Under another parent, or without `parent_id` to the root; as the last among its new siblings.
CREATE FUNCTION fn_move_category(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "parent_id": {"type": "uuid"}
    }');
    moved tb_category;
    parent tb_category;
    refusal jsonb;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    -- Two moves that are right by themselves can make a ring together: the second has to see what the first did.
    PERFORM pg_advisory_xact_lock(fn_category_lock());
    SELECT * INTO moved
    FROM tb_category
    WHERE tenant_id = tenancy.current_tenant_id() AND id = (input ->> 'id')::uuid;
    IF moved.id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;
    SELECT * INTO parent
    FROM tb_category
    WHERE tenant_id = tenancy.current_tenant_id() AND id = (input ->> 'parent_id')::uuid;
    IF parent.id IS NULL AND input ->> 'parent_id' IS NOT NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such parent.');
    END IF;

    IF parent.id IS DISTINCT FROM moved.parent_id THEN
        refusal := fn_place_category(moved, parent, moved.slug);
        IF refusal IS NOT NULL THEN
            RETURN refusal;
        END IF;
        UPDATE tb_category SET sort_order = fn_last_category(parent.id) + 1
        WHERE tenant_id = tenancy.current_tenant_id() AND id = moved.id;
    END IF;
    RETURN tenancy.mutation_result(true, 'updated', 'The category was moved.', jsonb_build_object('id', moved.id));
END
$$;

-- To the place before the sibling `before`, or to the last.
CREATE FUNCTION fn_reorder_category(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "before": {"type": "uuid"}
    }');
    moved tb_category;
    sibling tb_category;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    PERFORM pg_advisory_xact_lock(fn_category_lock());
    SELECT * INTO moved
    FROM tb_category
    WHERE tenant_id = tenancy.current_tenant_id() AND id = (input ->> 'id')::uuid;
    IF moved.id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;
    SELECT * INTO sibling
    FROM tb_category
    WHERE tenant_id = tenancy.current_tenant_id() AND id = (input ->> 'before')::uuid
      AND parent_id IS NOT DISTINCT FROM moved.parent_id;
    IF sibling.id IS NULL AND input ->> 'before' IS NOT NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category beside it.');
    END IF;

    -- All siblings are numbered anew; the category takes the place of `before` and comes first there.
    UPDATE tb_category AS c
    SET sort_order = line.place
    FROM (
        SELECT s.id, row_number() OVER (
            ORDER BY (s.id = moved.id AND sibling.id IS NULL),
                     CASE WHEN s.id = moved.id THEN sibling.sort_order ELSE s.sort_order END,
                     CASE WHEN s.id = moved.id THEN sibling.name ELSE s.name END,
                     CASE WHEN s.id = moved.id THEN sibling.id ELSE s.id END,
                     s.id <> moved.id
        ) AS place
        FROM tb_category AS s
        WHERE s.tenant_id = tenancy.current_tenant_id()
          AND (s.parent_id = moved.parent_id OR (moved.parent_id IS NULL AND s.parent_id IS NULL))
    ) AS line
    WHERE c.tenant_id = tenancy.current_tenant_id() AND c.id = line.id AND c.sort_order <> line.place;
    RETURN tenancy.mutation_result(true, 'updated', 'The category was moved.', jsonb_build_object('id', moved.id));
END
$$;

-- `policy` says what becomes of the children: restrict refuses to delete a category that has any, cascade deletes the
-- branch, reparent puts them in the place of their parent, in their order.
CREATE FUNCTION fn_delete_category(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "policy": {"type": "string", "values": ["restrict", "cascade", "reparent"]}
    }');
    policy text;
    gone tb_category;
    children uuid[];
    deleted integer := 1;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    policy := coalesce(input ->> 'policy', 'restrict');
    PERFORM pg_advisory_xact_lock(fn_category_lock());
    SELECT * INTO gone
    FROM tb_category
    WHERE tenant_id = tenancy.current_tenant_id() AND id = (input ->> 'id')::uuid;
    IF gone.id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;
    SELECT coalesce(array_agg(id), '{}') INTO children
    FROM tb_category
    WHERE tenant_id = tenancy.current_tenant_id() AND parent_id = gone.id;
    IF children <> '{}' AND policy = 'restrict' THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'The category has others below it.');
    ELSIF policy = 'reparent' AND EXISTS (
        SELECT FROM tb_category AS child
        JOIN tb_category AS beside ON beside.tenant_id = child.tenant_id AND beside.slug = child.slug
            AND beside.parent_id IS NOT DISTINCT FROM gone.parent_id AND beside.id <> gone.id
        WHERE child.tenant_id = tenancy.current_tenant_id() AND child.parent_id = gone.id
    ) THEN
        RETURN tenancy.mutation_result(
            false, 'conflict', 'A category beside it has the same slug as one of those below it.');
    END IF;

    BEGIN
        DELETE FROM tb_category
        WHERE tenant_id = tenancy.current_tenant_id()
          AND (id = gone.id
               OR (policy = 'cascade' AND path_text >= gone.path_text AND path_text < gone.path_text || '/'));
        GET DIAGNOSTICS deleted = ROW_COUNT;
    EXCEPTION WHEN foreign_key_violation THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'The category is in use.');
    END;
    IF policy = 'reparent' AND children <> '{}' THEN
        PERFORM fn_lift_categories(gone, children);
    END IF;
    RETURN tenancy.mutation_result(
        true, 'deleted', 'The category was deleted.', jsonb_build_object('id', gone.id, 'deleted', deleted));
END
$$;

-- Puts the children of a category that is gone, with all below them, in its place.
CREATE FUNCTION fn_lift_categories(gone tb_category, children uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    UPDATE tb_category
    SET path = subpath(gone.path, 0, -1) || subpath(path, nlevel(gone.path)),
        parent_id = CASE WHEN id = ANY (children) THEN gone.parent_id ELSE parent_id END
    WHERE tenant_id = tenancy.current_tenant_id()
      AND path_text >= gone.path_text AND path_text < gone.path_text || '/';
    UPDATE tb_category AS c
    SET sort_order = line.place
    FROM (
        SELECT s.id, row_number() OVER (
            ORDER BY CASE WHEN s.id = ANY (children) THEN gone.sort_order ELSE s.sort_order END,
                     CASE WHEN s.id = ANY (children) THEN gone.name ELSE s.name END,
                     CASE WHEN s.id = ANY (children) THEN gone.id ELSE s.id END,
                     s.sort_order, s.name, s.id
        ) AS place
        FROM tb_category AS s
        WHERE s.tenant_id = tenancy.current_tenant_id()
          AND (s.parent_id = gone.parent_id OR (gone.parent_id IS NULL AND s.parent_id IS NULL))
    ) AS line
    WHERE c.tenant_id = tenancy.current_tenant_id() AND c.id = line.id AND c.sort_order <> line.place;
END
$$;
