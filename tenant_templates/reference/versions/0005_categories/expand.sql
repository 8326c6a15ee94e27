-- Categories: one tree in two forms. `parent_id` serves whoever walks it step by step and in the order that people gave
-- it; `path` serves whoever wants a whole branch by one range of an index.

-- Only `slug` and `path` are written, the other forms of the path follow from it. Of these `path_text` is what is
-- searched: the operators of ltree are not leakproof and could use no index under row-level security.
CREATE TABLE tb_category (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    parent_id uuid,
    slug text NOT NULL CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(slug) <= 100),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    sort_order integer NOT NULL DEFAULT 0,
    path ltree NOT NULL,
    path_text text COLLATE "C" NOT NULL GENERATED ALWAYS AS (ltree2text(path)) STORED,
    path_above text COLLATE "C" GENERATED ALWAYS AS (
        CASE WHEN nlevel(path) > 1 THEN ltree2text(subpath(path, 0, -1)) END
    ) STORED,
    depth integer NOT NULL GENERATED ALWAYS AS (nlevel(path) - 1) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, path_text) DEFERRABLE,  -- so that the paths of a branch may change places within a statement
    UNIQUE NULLS NOT DISTINCT (tenant_id, parent_id, slug),
    UNIQUE (tenant_id, id, path_text),
    CHECK (depth BETWEEN 0 AND 31 AND length(path_text) <= 1000),
    -- The label of a slug: hyphens are no part of one before PostgreSQL 16, underscores are no part of a slug.
    CHECK (path_text = coalesce(path_above || '.', '') || translate(slug, '-', '_')),
    CHECK ((parent_id IS NULL) = (path_above IS NULL)),
    -- At commit each parent is there, and the path is the parent's with one label more: a parent and a path that do
    -- not belong together, a gap in a path and a ring of parents can be written, but not committed.
    FOREIGN KEY (tenant_id, parent_id) REFERENCES tb_category (tenant_id, id) DEFERRABLE INITIALLY DEFERRED,
    FOREIGN KEY (tenant_id, parent_id, path_above) REFERENCES tb_category (tenant_id, id, path_text)
        DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX tb_category_siblings ON tb_category (tenant_id, parent_id, sort_order, name, id);
CREATE INDEX tb_category_depth ON tb_category (tenant_id, depth, path_text);
SELECT tenancy.protect_table('tb_category');

CREATE VIEW v_category WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    parent_id,
    slug,
    name,
    sort_order,
    depth,
    path_text,
    created_at,
    jsonb_build_object(
        '__typename', 'Category',
        'id', id,
        'parent_id', parent_id,
        'slug', slug,
        'name', name,
        'sort_order', sort_order,
        'depth', depth,
        'path', path_text,
        'created_at', created_at
    ) AS data
FROM tb_category;
