-- Lists show the first layer, a product's own page the third.

CREATE VIEW products WITH (security_invoker = true) AS
SELECT tenant_id, id, sku, name, category_id, price, price_cents, created_at, data
FROM v_product;

CREATE VIEW product_details WITH (security_invoker = true) AS
SELECT tenant_id, id, sku, name, category_id, price, price_cents, created_at, data
FROM v_product_full;

CREATE FUNCTION create_product(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_create_product(input), 'product', 'products');

CREATE FUNCTION update_product(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_update_product(input), 'product', 'products');

CREATE FUNCTION delete_product(input jsonb) RETURNS jsonb
RETURN fn_delete_product(input);

CREATE FUNCTION set_stock(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_set_stock(input), 'product', 'product_details');

CREATE FUNCTION create_review(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_create_review(input), 'review', 'v_review');

CREATE FUNCTION delete_review(input jsonb) RETURNS jsonb
RETURN fn_delete_review(input);
