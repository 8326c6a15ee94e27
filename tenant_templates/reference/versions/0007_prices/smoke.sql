INSERT INTO tb_product (id, sku, name, price)
VALUES ('00000000-0000-0000-0000-0000000000c1', 'smoke', 'Smoke', 1);
SELECT set_price('{"product_id": "00000000-0000-0000-0000-0000000000c1", "currency": "EUR", "price": 10,
                   "valid_from": "2026-01-01"}');
SELECT set_price('{"product_id": "00000000-0000-0000-0000-0000000000c1", "currency": "EUR", "price": "9.50",
                   "valid_from": "2026-02-01", "valid_to": "2026-03-01"}');
SELECT set_price('{"product_id": "00000000-0000-0000-0000-0000000000c1", "currency": "ZZZ", "price": 1,
                   "valid_from": "2026-01-01"}');
SELECT price_at('{"product_id": "00000000-0000-0000-0000-0000000000c1", "currency": "EUR", "day": "2026-02-10"}');
SELECT price_at('{"product_id": "00000000-0000-0000-0000-0000000000c1", "currency": "EUR",
                  "time_zone": "Europe/Paris", "as_of": "2026-01-01T00:00:00Z"}');
SELECT price_at('{"product_id": "00000000-0000-0000-0000-0000000000c2", "currency": "EUR", "day": "2026-02-10"}');
SELECT price_at('{}');
SELECT data FROM prices;
SELECT data FROM v_price;
