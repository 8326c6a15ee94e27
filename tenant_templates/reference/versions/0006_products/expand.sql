-- Products with their stock and their reviews, in three layers of detail. Each layer is the one below and a few keys
-- more, so what is added to a product shows in all of them.

-- `price_cents` is the price for sorting and for cursors: the comparison of bigints is leakproof, that of numerics is
-- not and could use no index under row-level security.
CREATE TABLE tb_product (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    sku text NOT NULL CHECK (length(sku) BETWEEN 1 AND 100),
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    price numeric(12, 2) NOT NULL CHECK (price >= 0),
    price_cents bigint NOT NULL GENERATED ALWAYS AS ((price * 100)::bigint) STORED,
    category_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, category_id) REFERENCES tb_category (tenant_id, id) ON DELETE SET NULL (category_id)
);
-- The index of each order holds only what is for sale: the SKU of a deleted product is free again.
CREATE UNIQUE INDEX tb_product_sku ON tb_product (tenant_id, sku) WHERE deleted_at IS NULL;
CREATE INDEX tb_product_created_at ON tb_product (tenant_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX tb_product_name ON tb_product (tenant_id, name, id) WHERE deleted_at IS NULL;
CREATE INDEX tb_product_price ON tb_product (tenant_id, price_cents, id) WHERE deleted_at IS NULL;
CREATE INDEX tb_product_category_id ON tb_product (tenant_id, category_id, created_at, id);
SELECT tenancy.protect_table('tb_product');

-- What lies where. The key serves the sum over a product's locations.
CREATE TABLE tb_inventory (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    product_id uuid NOT NULL,
    location text NOT NULL CHECK (length(location) BETWEEN 1 AND 100),
    in_stock integer NOT NULL CHECK (in_stock >= 0),
    reserved integer NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    PRIMARY KEY (tenant_id, product_id, location),
    FOREIGN KEY (tenant_id, product_id) REFERENCES tb_product (tenant_id, id) ON DELETE CASCADE,
    CHECK (reserved <= in_stock)
);
SELECT tenancy.protect_table('tb_inventory');

-- A review outlives its author.
CREATE TABLE tb_review (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    product_id uuid NOT NULL,
    author_id uuid,
    rating integer NOT NULL CHECK (rating BETWEEN 1 AND 5),
    content text NOT NULL CHECK (length(content) BETWEEN 1 AND 5000),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- several of one transaction keep their order
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, product_id) REFERENCES tb_product (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, author_id) REFERENCES tb_user (tenant_id, id) ON DELETE SET NULL (author_id)
);
CREATE INDEX tb_review_product_id ON tb_review (tenant_id, product_id, created_at, id);
CREATE INDEX tb_review_author_id ON tb_review (tenant_id, author_id);
SELECT tenancy.protect_table('tb_review');

-- An author who is gone, or hidden from the caller, has a name that says so: the review stays.
CREATE VIEW v_review WITH (security_invoker = true) AS
SELECT
    r.tenant_id,
    r.id,
    r.product_id,
    r.author_id,
    r.created_at,
    jsonb_build_object(
        '__typename', 'Review',
        'id', r.id,
        'rating', r.rating,
        'content', r.content,
        'author', coalesce(
            (SELECT a.data FROM v_author_card AS a WHERE a.tenant_id = r.tenant_id AND a.id = r.author_id),
            '{"__typename": "UserCard", "id": null, "name": "[deleted]"}'
        ),
        'created_at', r.created_at
    ) AS data
FROM tb_review AS r;

-- Layer 1: the product itself.
CREATE VIEW v_product WITH (security_invoker = true) AS
SELECT
    p.tenant_id,
    p.id,
    p.sku,
    p.name,
    p.category_id,
    p.price,
    p.price_cents,
    p.created_at,
    jsonb_build_object(
        '__typename', 'Product',
        'id', p.id,
        'sku', p.sku,
        'name', p.name,
        'price', p.price,
        'category', (
            SELECT jsonb_build_object('__typename', 'CategoryCard', 'id', c.id, 'name', c.name)
            FROM tb_category AS c
            WHERE c.tenant_id = p.tenant_id AND c.id = p.category_id
        ),
        'created_at', p.created_at
    ) AS data
FROM tb_product AS p
WHERE p.deleted_at IS NULL;

-- Layer 2: and what there is of it, over all locations.
CREATE VIEW v_product_stock WITH (security_invoker = true) AS
SELECT
    p.tenant_id,
    p.id,
    p.sku,
    p.name,
    p.category_id,
    p.price,
    p.price_cents,
    p.created_at,
    p.data || jsonb_build_object(
        '__typename', 'ProductStock',
        'inventory', (
            SELECT jsonb_build_object(
                'in_stock', coalesce(sum(i.in_stock), 0),
                'reserved', coalesce(sum(i.reserved), 0),
                'available', coalesce(sum(i.in_stock - i.reserved), 0)
            )
            FROM tb_inventory AS i
            WHERE i.tenant_id = p.tenant_id AND i.product_id = p.id
        )
    ) AS data
FROM v_product AS p;

-- Layer 3: and what people say of it, the ten latest; `review_count` tells whether there are more.
CREATE VIEW v_product_full WITH (security_invoker = true) AS
SELECT
    p.tenant_id,
    p.id,
    p.sku,
    p.name,
    p.category_id,
    p.price,
    p.price_cents,
    p.created_at,
    p.data || jsonb_build_object(
        '__typename', 'ProductDetails',
        'review_count', (
            SELECT count(*) FROM tb_review AS r WHERE r.tenant_id = p.tenant_id AND r.product_id = p.id
        ),
        'reviews', (
            SELECT coalesce(jsonb_agg(latest.data ORDER BY latest.created_at DESC, latest.id DESC), '[]')
            FROM (
                SELECT r.id, r.created_at, r.data
                FROM v_review AS r
                WHERE r.tenant_id = p.tenant_id AND r.product_id = p.id
                ORDER BY r.created_at DESC, r.id DESC
                LIMIT 10
            ) AS latest
        )
    ) AS data
FROM v_product_stock AS p;

-- More decimals than money has are refused, not rounded.
CREATE FUNCTION fn_amount_problems(input jsonb) RETURNS jsonb
IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN scale(trim_scale((input ->> 'price')::numeric)) > 2
    THEN '[{"path": "price", "code": "invalid", "message": "must have at most 2 decimals"}]'::jsonb
    ELSE '[]'
END;

-- The id of a product that is there, held against being deleted until the end of the transaction; otherwise null.
CREATE FUNCTION fn_lock_product(product_id uuid) RETURNS uuid
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN (
        SELECT p.id
        FROM tb_product AS p
        WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = fn_lock_product.product_id AND p.deleted_at IS NULL
        FOR SHARE
    );
END
$$;

CREATE FUNCTION fn_create_product(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "sku": {"type": "string", "required": true, "min": 1, "max": 100},
        "name": {"type": "string", "required": true, "min": 1, "max": 200},
        "price": {"type": "decimal", "required": true, "min": 0, "max": 9999999999},
        "category_id": {"type": "uuid"}
    }');
    category uuid;
    new_id uuid;
BEGIN
    IF problems = '[]' THEN
        problems := fn_amount_problems(input);
    END IF;
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    -- Locked, so that the category cannot vanish before the product refers to it.
    SELECT c.id INTO category
    FROM tb_category AS c
    WHERE c.tenant_id = tenancy.current_tenant_id() AND c.id = (input ->> 'category_id')::uuid
    FOR KEY SHARE;
    IF category IS NULL AND input ->> 'category_id' IS NOT NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;

    INSERT INTO tb_product (sku, name, price, category_id)
    VALUES (input ->> 'sku', input ->> 'name', (input ->> 'price')::numeric, category)
    ON CONFLICT (tenant_id, sku) WHERE deleted_at IS NULL DO NOTHING
    RETURNING id INTO new_id;
    IF new_id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'The SKU is taken.');
    END IF;
    RETURN tenancy.mutation_result(true, 'created', 'The product was created.', jsonb_build_object('id', new_id));
END
$$;

-- A field that is left out stays; a category of null takes the product out of its category.
CREATE FUNCTION fn_update_product(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "id": {"type": "uuid", "required": true},
        "name": {"type": "string", "min": 1, "max": 200},
        "price": {"type": "decimal", "min": 0, "max": 9999999999},
        "category_id": {"type": "uuid"}
    }');
    category uuid;
    updated uuid;
BEGIN
    IF problems = '[]' THEN
        problems := fn_amount_problems(input);
    END IF;
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT c.id INTO category
    FROM tb_category AS c
    WHERE c.tenant_id = tenancy.current_tenant_id() AND c.id = (input ->> 'category_id')::uuid
    FOR KEY SHARE;
    IF category IS NULL AND input ->> 'category_id' IS NOT NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such category.');
    END IF;

    UPDATE tb_product AS p
    SET name = coalesce(input ->> 'name', p.name),
        price = coalesce((input ->> 'price')::numeric, p.price),
        category_id = CASE WHEN input ? 'category_id' THEN category ELSE p.category_id END
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = (input ->> 'id')::uuid AND p.deleted_at IS NULL
    RETURNING p.id INTO updated;
    IF updated IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such product.');
    END IF;
    RETURN tenancy.mutation_result(true, 'updated', 'The product was updated.', jsonb_build_object('id', updated));
END
$$;

-- The row stays, for the prices and orders that refer to it; every layer is without it from now on.
CREATE FUNCTION fn_delete_product(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{"id": {"type": "uuid", "required": true}}');
    deleted uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    UPDATE tb_product AS p SET deleted_at = now()
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = (input ->> 'id')::uuid AND p.deleted_at IS NULL
    RETURNING p.id INTO deleted;
    IF deleted IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such product.');
    END IF;
    RETURN tenancy.mutation_result(true, 'deleted', 'The product was deleted.', jsonb_build_object('id', deleted));
END
$$;

-- Says what lies at a location. Without `reserved` what was reserved there stays so.
CREATE FUNCTION fn_set_stock(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "product_id": {"type": "uuid", "required": true},
        "location": {"type": "string", "required": true, "min": 1, "max": 100},
        "in_stock": {"type": "integer", "required": true, "min": 0, "max": 1000000000},
        "reserved": {"type": "integer", "min": 0, "max": 1000000000}
    }');
    product uuid;
    set_at text;
BEGIN
    IF problems = '[]' AND (input ->> 'reserved')::numeric > (input ->> 'in_stock')::numeric THEN
        problems := '[{"path": "reserved", "code": "invalid", "message": "must be at most in_stock"}]';
    END IF;
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    product := fn_lock_product((input ->> 'product_id')::uuid);
    IF product IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such product.');
    END IF;

    INSERT INTO tb_inventory AS i (product_id, location, in_stock, reserved)
    VALUES (
        product, input ->> 'location', (input ->> 'in_stock')::numeric, coalesce((input ->> 'reserved')::numeric, 0)
    )
    ON CONFLICT (tenant_id, product_id, location) DO UPDATE
    SET in_stock = excluded.in_stock, reserved = coalesce((input ->> 'reserved')::numeric, i.reserved)
    WHERE coalesce((input ->> 'reserved')::numeric, i.reserved) <= excluded.in_stock
    RETURNING i.location INTO set_at;
    IF set_at IS NULL THEN
        RETURN tenancy.mutation_result(false, 'conflict', 'More is reserved there than would be in stock.');
    END IF;
    RETURN tenancy.mutation_result(true, 'updated', 'The stock was set.', jsonb_build_object('id', product));
END
$$;

-- The author is the caller, who needs to be known here by a row, and not to be suspended.
CREATE FUNCTION fn_create_review(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "product_id": {"type": "uuid", "required": true},
        "rating": {"type": "integer", "required": true, "min": 1, "max": 5},
        "content": {"type": "string", "required": true, "min": 1, "max": 5000}
    }');
    author uuid;
    product uuid;
    new_id uuid;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT u.id INTO author
    FROM tb_user AS u
    WHERE u.tenant_id = tenancy.current_tenant_id() AND u.id = tenancy.current_user_id() AND NOT u.suspended
    FOR SHARE;
    IF author IS NULL THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'Only users of this tenant write reviews.');
    END IF;
    product := fn_lock_product((input ->> 'product_id')::uuid);
    IF product IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such product.');
    END IF;

    INSERT INTO tb_review (product_id, author_id, rating, content)
    VALUES (product, author, (input ->> 'rating')::numeric, input ->> 'content')
    RETURNING id INTO new_id;
    RETURN tenancy.mutation_result(true, 'created', 'The review was created.', jsonb_build_object('id', new_id));
END
$$;

-- Authors take back what they wrote; moderators and admins remove what has no place here.
CREATE FUNCTION fn_delete_review(input jsonb) RETURNS jsonb
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{"id": {"type": "uuid", "required": true}}');
    review tb_review;
BEGIN
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT r.* INTO review
    FROM tb_review AS r
    JOIN v_product AS p ON p.tenant_id = r.tenant_id AND p.id = r.product_id
    WHERE r.tenant_id = tenancy.current_tenant_id() AND r.id = (input ->> 'id')::uuid
    FOR UPDATE OF r;
    IF review.id IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such review.');
    ELSIF fn_person_viewer(review.author_id) = 'public' THEN
        RETURN tenancy.mutation_result(false, 'forbidden', 'This review is not yours to delete.');
    END IF;
    DELETE FROM tb_review AS r WHERE r.tenant_id = tenancy.current_tenant_id() AND r.id = review.id;
    RETURN tenancy.mutation_result(true, 'deleted', 'The review was deleted.', jsonb_build_object('id', review.id));
END
$$;
