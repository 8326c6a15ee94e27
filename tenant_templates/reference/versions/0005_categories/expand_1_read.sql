-- Reading the tree: by parent, and by path.

-- The way from a category up to its root. `repeated` marks a row that closes a ring, which ends the way.
CREATE FUNCTION fn_category_line(category uuid)
RETURNS TABLE (id uuid, parent_id uuid, slug text, name text, distance integer, repeated boolean)
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH RECURSIVE line AS (
        SELECT c.id, c.parent_id, c.slug, c.name, 0 AS distance
        FROM tb_category AS c
        WHERE c.tenant_id = tenancy.current_tenant_id() AND c.id = category
        UNION ALL
        SELECT c.id, c.parent_id, c.slug, c.name, line.distance + 1
        FROM line
        JOIN tb_category AS c ON c.tenant_id = tenancy.current_tenant_id() AND c.id = line.parent_id
    ) CYCLE id SET repeated USING visited
    SELECT line.id, line.parent_id, line.slug, line.name, line.distance, line.repeated FROM line;
END;

-- A category and all below it, or the whole tree when `top` is null: parents before their children, siblings in the
-- order that people gave them. `ids` and `names` lead from the root of the tree to the category.
CREATE FUNCTION fn_category_nodes(top uuid)
RETURNS TABLE (
    id uuid, parent_id uuid, slug text, name text, sort_order integer, ids uuid[], names text[], repeated boolean,
    place bigint
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH RECURSIVE tops AS (
        SELECT c.id, c.parent_id, c.slug, c.name, c.sort_order, ARRAY[c.id] AS ids, ARRAY[c.name] AS names
        FROM tb_category AS c
        WHERE top IS NULL AND c.tenant_id = tenancy.current_tenant_id() AND c.parent_id IS NULL
        UNION ALL
        SELECT c.id, c.parent_id, c.slug, c.name, c.sort_order, line.ids, line.names
        FROM tb_category AS c
        CROSS JOIN (
            SELECT array_agg(l.id ORDER BY l.distance DESC) AS ids, array_agg(l.name ORDER BY l.distance DESC) AS names
            FROM fn_category_line(top) AS l
            WHERE NOT l.repeated
        ) AS line
        WHERE c.tenant_id = tenancy.current_tenant_id() AND c.id = top
    ), tree AS (
        SELECT t.id, t.parent_id, t.slug, t.name, t.sort_order, t.ids, t.names FROM tops AS t
        UNION ALL
        SELECT c.id, c.parent_id, c.slug, c.name, c.sort_order, tree.ids || c.id, tree.names || c.name
        FROM tree
        JOIN tb_category AS c ON c.tenant_id = tenancy.current_tenant_id() AND c.parent_id = tree.id
    ) SEARCH DEPTH FIRST BY sort_order, name, id SET position
      CYCLE id SET repeated USING visited
    SELECT t.id, t.parent_id, t.slug, t.name, t.sort_order, t.ids, t.names, t.repeated,
           row_number() OVER (ORDER BY t.position)
    FROM tree AS t;
END;

-- The tree, or the branch from `id` on, as one list in the order of display. `corrupt` says that rows form a ring: they
-- hang below no root, so the whole tree does not show them, and their branch ends where it began.
CREATE FUNCTION fn_category_tree(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{"id": {"type": "uuid"}}');
    top uuid;
    listed jsonb;
    reached bigint;
    corrupt boolean;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    top := input ->> 'id';
    WITH nodes AS MATERIALIZED (
        SELECT * FROM fn_category_nodes(top)
    ), families AS (
        SELECT n.parent_id,
               jsonb_agg(jsonb_build_object('id', n.id, 'slug', n.slug, 'name', n.name) ORDER BY n.place) AS children
        FROM nodes AS n
        WHERE NOT n.repeated
        GROUP BY n.parent_id
    )
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               '__typename', 'CategoryNode',
               'id', n.id,
               'parent_id', n.parent_id,
               'slug', n.slug,
               'name', n.name,
               'sort_order', n.sort_order,
               'depth', cardinality(n.ids) - 1,
               'path', n.ids,
               'breadcrumb', n.names,
               'children', coalesce(f.children, '[]')
           ) ORDER BY n.place) FILTER (WHERE NOT n.repeated), '[]'),
           count(*) FILTER (WHERE NOT n.repeated),
           coalesce(bool_or(n.repeated), false)
    INTO listed, reached, corrupt
    FROM nodes AS n
    LEFT JOIN families AS f ON f.parent_id = n.id;

    IF top IS NULL THEN
        corrupt := corrupt OR reached <> (SELECT count(*) FROM tb_category WHERE tenant_id = tenancy.current_tenant_id());
    ELSIF reached = 0 THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    ELSE
        corrupt := corrupt OR EXISTS (SELECT FROM fn_category_line(top) AS l WHERE l.repeated);
    END IF;
    RETURN tenancy.mutation_result(
        true, 'ok', 'The tree of categories.', jsonb_build_object('categories', listed, 'corrupt', corrupt));
END
$$;

-- From the root to the category itself.
CREATE FUNCTION fn_category_ancestors(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{"id": {"type": "uuid", "required": true}}');
    listed jsonb;
    corrupt boolean;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT jsonb_agg(v.data ORDER BY l.distance DESC) FILTER (WHERE NOT l.repeated), bool_or(l.repeated)
    INTO listed, corrupt
    FROM fn_category_line((input ->> 'id')::uuid) AS l
    JOIN v_category AS v ON v.tenant_id = tenancy.current_tenant_id() AND v.id = l.id;
    IF listed IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;
    RETURN tenancy.mutation_result(
        true, 'ok', 'The category and all above it.', jsonb_build_object('categories', listed, 'corrupt', corrupt));
END
$$;

-- The children of `id`, or the roots.
CREATE FUNCTION fn_category_children(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{"id": {"type": "uuid"}}');
    parent uuid;
    listed jsonb;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    parent := input ->> 'id';
    IF parent IS NOT NULL
       AND NOT EXISTS (SELECT FROM tb_category WHERE tenant_id = tenancy.current_tenant_id() AND id = parent) THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;
    SELECT coalesce(jsonb_agg(v.data ORDER BY v.sort_order, v.name, v.id), '[]') INTO listed
    FROM v_category AS v
    WHERE v.tenant_id = tenancy.current_tenant_id()
      AND (v.parent_id = parent OR (parent IS NULL AND v.parent_id IS NULL));
    RETURN tenancy.mutation_result(true, 'ok', 'The children.', jsonb_build_object('categories', listed));
END
$$;

-- A category and what is at most `levels` below it; null means all. "/" follows "." and no label holds a character
-- before it, so the range is the branch and nothing else. It is in the order of the paths: parents before children.
CREATE FUNCTION fn_categories_under(top text, levels integer) RETURNS TABLE (path_text text, data jsonb)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT v.path_text, v.data
    FROM v_category AS v
    WHERE v.tenant_id = tenancy.current_tenant_id()
      AND v.path_text >= top AND v.path_text < top || '/'
      AND (levels IS NULL OR v.depth <= nlevel(text2ltree(top)) - 1 + levels);
END;

-- The categories that a path leads through, itself included.
CREATE FUNCTION fn_categories_along(way text) RETURNS TABLE (path_text text, data jsonb)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT v.path_text, v.data
    FROM v_category AS v
    WHERE v.tenant_id = tenancy.current_tenant_id()
      AND v.path_text = ANY (ARRAY(
          SELECT ltree2text(subpath(text2ltree(way), 0, n)) FROM generate_series(1, nlevel(text2ltree(way))) AS n));
END;

CREATE FUNCTION fn_category_subtree(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "path": {"type": "string", "required": true, "max": 1000, "pattern": "^[a-z0-9_]{1,100}(\\.[a-z0-9_]{1,100})*$",
                 "message": "must be labels with dots between them"},
        "levels": {"type": "integer", "min": 0, "max": 31}
    }');
    listed jsonb;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT jsonb_agg(u.data ORDER BY u.path_text) INTO listed
    FROM fn_categories_under(input ->> 'path', (input ->> 'levels')::integer) AS u;
    IF listed IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;
    RETURN tenancy.mutation_result(
        true, 'ok', 'The category and what is below it.', jsonb_build_object('categories', listed));
END
$$;

CREATE FUNCTION fn_category_breadcrumb(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "path": {"type": "string", "required": true, "max": 1000, "pattern": "^[a-z0-9_]{1,100}(\\.[a-z0-9_]{1,100})*$",
                 "message": "must be labels with dots between them"}
    }');
    listed jsonb;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT jsonb_agg(a.data ORDER BY a.path_text) INTO listed FROM fn_categories_along(input ->> 'path') AS a;
    IF listed IS NULL OR listed -> -1 ->> 'path' <> input ->> 'path' THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;
    RETURN tenancy.mutation_result(
        true, 'ok', 'The categories on the path.', jsonb_build_object('categories', listed));
END
$$;

-- All categories of one depth; the roots have depth 0.
CREATE FUNCTION fn_category_level(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "depth": {"type": "integer", "required": true, "min": 0, "max": 31}
    }');
    listed jsonb;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT coalesce(jsonb_agg(v.data ORDER BY v.path_text), '[]') INTO listed
    FROM v_category AS v
    WHERE v.tenant_id = tenancy.current_tenant_id() AND v.depth = (input ->> 'depth')::integer;
    RETURN tenancy.mutation_result(true, 'ok', 'The categories of the level.', jsonb_build_object('categories', listed));
END
$$;

-- Where the two forms disagree: `unreachable` from any root by parent, or a `path` that is not its parent's and one
-- label more. Transactions cannot commit either; a restore of single tables can.
CREATE FUNCTION fn_check_categories(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{}');
    found jsonb;
    number bigint;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT coalesce(jsonb_agg(jsonb_build_object('id', f.id, 'code', f.code) ORDER BY f.path_text), '[]') INTO found
    FROM (
        SELECT c.id, c.path_text, CASE WHEN n.id IS NULL THEN 'unreachable' ELSE 'path' END AS code
        FROM tb_category AS c
        LEFT JOIN tb_category AS p ON p.tenant_id = c.tenant_id AND p.id = c.parent_id
        LEFT JOIN fn_category_nodes(NULL) AS n ON n.id = c.id
        WHERE c.tenant_id = tenancy.current_tenant_id()
          AND (n.id IS NULL OR c.path_above IS DISTINCT FROM p.path_text OR c.depth <> cardinality(n.ids) - 1)
        ORDER BY c.path_text
        LIMIT 100
    ) AS f;
    SELECT count(*) INTO number FROM tb_category WHERE tenant_id = tenancy.current_tenant_id();
    RETURN tenancy.mutation_result(
        true, 'ok', 'What was found.',
        jsonb_build_object('consistent', found = '[]', 'problems', found, 'categories', number));
END
$$;
