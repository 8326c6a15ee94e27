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
    PRIMARY KEY (tenant_id, id)
);
-- The index of each order holds only what is for sale: the stock-number of a deleted product is free again.
CREATE UNIQUE INDEX tb_product_sku ON tb_product (tenant_id, sku) WHERE deleted_at IS NULL;
CREATE INDEX tb_product_created_at ON tb_product (tenant_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX tb_product_name ON tb_product (tenant_id, name, id) WHERE deleted_at IS NULL;
CREATE INDEX tb_product_price ON tb_product (tenant_id, price_cents, id) WHERE deleted_at IS NULL;
CREATE INDEX tb_product_category_id ON tb_product (tenant_id, category_id);
SELECT tenancy.protect_table('tb_product');
