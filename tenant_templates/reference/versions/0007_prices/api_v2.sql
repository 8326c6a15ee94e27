CREATE VIEW prices WITH (security_invoker = true) AS
SELECT tenant_id, id, product_id, currency, valid_from, known_from, data
FROM v_price;

CREATE FUNCTION set_price(input jsonb) RETURNS jsonb
RETURN tenancy.with_document(fn_set_price(input), 'price', 'prices');

CREATE FUNCTION price_at(input jsonb) RETURNS jsonb
STABLE
RETURN fn_price_at(input);
