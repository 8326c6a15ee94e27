-- Prices with two times: the days on which a price is valid, and the time during which we took it to be so. A fact is
-- never changed; it is closed, and what is known instead is added.

-- What a tenant prices in. ISO currencies enter by themselves when they are first used, with the decimals of the list
-- below; the foreign key of tb_price makes a change of them impossible once there are prices.
CREATE TABLE tb_currency (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    code text NOT NULL CHECK (code ~ '^[A-Z]{3}$'),
    decimals smallint NOT NULL CHECK (decimals BETWEEN 0 AND 8),
    PRIMARY KEY (tenant_id, code),
    UNIQUE (tenant_id, code, decimals)
);
SELECT tenancy.protect_table('tb_currency', 'functions');

CREATE TABLE tb_price (
    tenant_id uuid NOT NULL DEFAULT tenancy.current_tenant_id(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    product_id uuid NOT NULL,
    currency text NOT NULL,
    decimals smallint NOT NULL,
    price numeric NOT NULL,
    valid_from date NOT NULL CHECK (isfinite(valid_from)),
    valid_to date NOT NULL DEFAULT 'infinity',  -- the first day on which it is not valid any more
    known_from timestamptz NOT NULL CHECK (isfinite(known_from)),
    known_to timestamptz NOT NULL DEFAULT 'infinity',
    set_by uuid DEFAULT tenancy.current_user_id(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, product_id) REFERENCES tb_product (tenant_id, id),
    FOREIGN KEY (tenant_id, currency, decimals) REFERENCES tb_currency (tenant_id, code, decimals),
    CHECK (price >= 0 AND price < 'Infinity'),  -- NaN is more than infinity
    CHECK (scale(trim_scale(price)) <= decimals),
    CHECK (valid_from < valid_to),
    CHECK (known_from < known_to),
    CONSTRAINT tb_price_one_at_a_time EXCLUDE USING gist (
        tenant_id WITH =, product_id WITH =, currency WITH =,
        daterange(valid_from, valid_to) WITH &&, tstzrange(known_from, known_to) WITH &&)
);
-- For a day as we know it or knew it. Ranges are not leakproof and could use no index under row-level security: the
-- bounds are columns of their own. What is known now comes first, however long the history is.
CREATE INDEX tb_price_as_of ON tb_price (tenant_id, product_id, currency, known_to, valid_to, valid_from, known_from);
CREATE UNIQUE INDEX tb_price_current ON tb_price (tenant_id, product_id, currency, valid_from)
WHERE known_to = 'infinity';
SELECT tenancy.protect_table('tb_price', 'functions');
-- The one change: what was known until now is so no longer.
SELECT tenancy.append_only('tb_price', '{known_to}', 'old.known_to = ''infinity'' AND new.known_to < ''infinity''');

-- The facts known now.
CREATE VIEW v_price WITH (security_invoker = true) AS
SELECT
    tenant_id,
    id,
    product_id,
    currency,
    valid_from,
    known_from,
    jsonb_build_object(
        '__typename', 'Price',
        'id', id,
        'product_id', product_id,
        'currency', currency,
        'price', round(price, decimals),
        'valid_from', valid_from,
        'valid_to', nullif(valid_to, 'infinity'),
        'known_from', known_from
    ) AS data
FROM tb_price
WHERE known_to = 'infinity';

-- The decimals of a currency of ISO 4217, null when there is no such currency.
CREATE FUNCTION fn_currency_decimals(code text) RETURNS smallint
IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN code IN ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMN', 'TND') THEN 3
    WHEN code IN ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'VND', 'VUV', 'XAF',
                  'XOF', 'XPF') THEN 0
    WHEN code IN (
        'AED', 'AFN', 'ALL', 'AMD', 'AOA', 'ARS', 'AUD', 'AWG', 'AZN', 'BAM', 'BBD', 'BDT', 'BMD', 'BND', 'BOB', 'BRL',
        'BSD', 'BTN', 'BWP', 'BYN', 'BZD', 'CAD', 'CDF', 'CHF', 'CNY', 'COP', 'CRC', 'CUP', 'CVE', 'CZK', 'DKK', 'DOP',
        'DZD', 'EGP', 'ERN', 'ETB', 'EUR', 'FJD', 'FKP', 'GBP', 'GEL', 'GHS', 'GIP', 'GMD', 'GTQ', 'GYD', 'HKD', 'HNL',
        'HTG', 'HUF', 'IDR', 'ILS', 'INR', 'IRR', 'JMD', 'KES', 'KGS', 'KHR', 'KPW', 'KYD', 'KZT', 'LAK', 'LBP', 'LKR',
        'LRD', 'LSL', 'MAD', 'MDL', 'MGA', 'MKD', 'MMK', 'MNT', 'MOP', 'MRU', 'MUR', 'MVR', 'MWK', 'MXN', 'MYR', 'MZN',
        'NAD', 'NGN', 'NIO', 'NOK', 'NPR', 'NZD', 'PAB', 'PEN', 'PGK', 'PHP', 'PKR', 'PLN', 'QAR', 'RON', 'RSD', 'RUB',
        'SAR', 'SBD', 'SCR', 'SDG', 'SEK', 'SGD', 'SHP', 'SLE', 'SOS', 'SRD', 'SSP', 'STN', 'SVC', 'SYP', 'SZL', 'THB',
        'TJS', 'TMT', 'TOP', 'TRY', 'TTD', 'TWD', 'TZS', 'UAH', 'USD', 'UYU', 'UZS', 'VES', 'WST', 'XCD', 'YER', 'ZAR',
        'ZMW') THEN 2
END;

-- The decimals that a tenant's prices in a currency have; null when there is no such currency.
CREATE FUNCTION fn_price_decimals(code text) RETURNS smallint
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN coalesce(
        (SELECT c.decimals FROM tb_currency AS c
         WHERE c.tenant_id = tenancy.current_tenant_id() AND c.code = fn_price_decimals.code),
        fn_currency_decimals(code));
END
$$;

-- What no rule for a single field can say: excess decimals are refused, not rounded.
CREATE FUNCTION fn_price_problems(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    places smallint := fn_price_decimals(input ->> 'currency');
    end_day text := input ->> 'valid_to';
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object('path', path, 'code', 'invalid', 'message', message)), '[]')
        FROM (VALUES
            ('currency', 'is not a currency', places IS NULL),
            ('price', format('must have at most %s decimals', places),
             scale(trim_scale((input ->> 'price')::numeric)) > places),
            ('valid_to', 'must be a date such as 2026-03-01, or infinity', NOT tenancy.is_valid(end_day, 'date')),
            ('valid_to', 'must be later than valid_from',
             CASE WHEN tenancy.is_valid(end_day, 'date') THEN end_day::date <= (input ->> 'valid_from')::date END)
        ) AS problem (path, message, is_there)
        WHERE is_there
    );
END
$$;

-- Makes `price` valid for [valid_from, valid_to). Without `valid_to` it lasts until the next price that is already
-- known to begin later, with 'infinity' it takes the place of all that follows. What is known of other days stays.
CREATE FUNCTION fn_set_price(input jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "product_id": {"type": "uuid", "required": true},
        "currency": {"type": "string", "required": true, "pattern": "^[A-Z]{3}$",
                     "message": "must be a code such as EUR"},
        "price": {"type": "decimal", "required": true, "min": 0, "max": 999999999999},
        "valid_from": {"type": "date", "required": true},
        "valid_to": {"type": "string", "pattern": "^(\\d{4}-\\d{2}-\\d{2}|infinity)$",
                     "message": "must be a date such as 2026-03-01, or infinity"}
    }');
    product uuid;
    wanted_currency text := input ->> 'currency';
    places smallint;
    amount numeric;
    first_day date;
    end_day date;
    learnt_at timestamptz;
    new_id uuid;
BEGIN
    IF problems = '[]' THEN
        problems := fn_price_problems(input);
    END IF;
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;
    places := fn_price_decimals(wanted_currency);
    amount := input ->> 'price';
    first_day := input ->> 'valid_from';

    -- Changes of one product's prices come one after the other: each sees what the one before has left.
    SELECT p.id INTO product
    FROM tb_product AS p
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = (input ->> 'product_id')::uuid AND p.deleted_at IS NULL
    FOR NO KEY UPDATE;
    IF product IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such product.');
    END IF;
    INSERT INTO tb_currency (code, decimals) VALUES (wanted_currency, places) ON CONFLICT DO NOTHING;

    -- The time of the change is later than that of the last one, even when the clock stands still or goes back. The
    -- last one is always among the facts known now.
    SELECT greatest(clock_timestamp(), max(p.known_from) + interval '1 microsecond'),
           coalesce((input ->> 'valid_to')::date,
                    min(p.valid_from) FILTER (WHERE p.currency = wanted_currency AND p.valid_from > first_day),
                    'infinity')
    INTO learnt_at, end_day
    FROM tb_price AS p
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.product_id = product AND p.known_to = 'infinity';

    UPDATE tb_price AS p SET known_to = learnt_at
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.product_id = product AND p.currency = wanted_currency
      AND p.known_to = 'infinity' AND p.valid_from < end_day AND p.valid_to > first_day;
    -- What the closed facts said of the days before and after is still known.
    INSERT INTO tb_price (product_id, currency, decimals, price, valid_from, valid_to, known_from)
    SELECT product, p.currency, p.decimals, p.price, rest.valid_from, rest.valid_to, learnt_at
    FROM tb_price AS p
    CROSS JOIN LATERAL (VALUES (p.valid_from, first_day), (end_day, p.valid_to)) AS rest (valid_from, valid_to)
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.product_id = product AND p.currency = wanted_currency
      AND p.known_to = learnt_at AND rest.valid_from < rest.valid_to;
    INSERT INTO tb_price (product_id, currency, decimals, price, valid_from, valid_to, known_from)
    VALUES (product, wanted_currency, places, amount, first_day, end_day, learnt_at)
    RETURNING id INTO new_id;
    RETURN tenancy.mutation_result(true, 'created', 'The price was set.', jsonb_build_object('id', new_id));
END
$$;

-- The fact that answers what a product costs on a day, by what is known now or was known at a time: one row or none.
-- In whole microseconds `known_to > as_of` is `known_to >= as_of + 1`, and for now it is `known_to >= infinity`.
-- CASE and not coalesce(), which PostgreSQL does not hold to be leakproof: the index would not be asked.
CREATE FUNCTION fn_find_price(product uuid, code text, on_day date, as_of timestamptz DEFAULT NULL)
RETURNS TABLE (price numeric, valid_from date, valid_to date)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT round(p.price, p.decimals), p.valid_from, p.valid_to
    FROM tb_price AS p
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.product_id = product AND p.currency = code
      AND p.known_to >= CASE WHEN as_of IS NULL THEN 'infinity' ELSE as_of + interval '1 microsecond' END
      AND p.known_from <= CASE WHEN as_of IS NULL THEN 'infinity' ELSE as_of END
      AND p.valid_from <= on_day AND p.valid_to > on_day;
END;

-- Today in a time zone, null when there is no such zone. Which day it is hangs on the place, never on the session.
CREATE FUNCTION fn_today(time_zone text) RETURNS date
LANGUAGE plpgsql STABLE PARALLEL UNSAFE  -- a handler for exceptions is a subtransaction
SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN (now() AT TIME ZONE time_zone)::date;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN NULL;
END
$$;

-- {currency, day, price, valid_from, valid_to}; without a price the last three are null and `code` is no_price.
CREATE FUNCTION fn_price_at(input jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    problems jsonb := tenancy.input_problems(input, '{
        "product_id": {"type": "uuid", "required": true},
        "currency": {"type": "string", "required": true, "pattern": "^[A-Z]{3}$",
                     "message": "must be a code such as EUR"},
        "day": {"type": "date"},
        "time_zone": {"type": "string", "max": 60, "pattern": "^[A-Za-z_]+(/[A-Za-z0-9_+-]+)*$",
                      "message": "must be a time zone such as Europe/Paris"},
        "as_of": {"type": "timestamp"}
    }');
    product uuid;
    on_day date;
    answer record;
BEGIN
    IF problems = '[]' AND (input ->> 'day' IS NULL) = (input ->> 'time_zone' IS NULL) THEN
        problems := jsonb_build_array(jsonb_build_object(
            'path', 'day', 'code', 'required', 'message', 'give a day, or a time_zone for today there'));
    ELSIF problems = '[]' THEN
        on_day := coalesce((input ->> 'day')::date, fn_today(input ->> 'time_zone'));
        IF on_day IS NULL THEN
            problems := jsonb_build_array(jsonb_build_object(
                'path', 'time_zone', 'code', 'invalid', 'message', 'must be a time zone such as Europe/Paris'));
        END IF;
    END IF;
    IF problems <> '[]' THEN
        RETURN tenancy.mutation_result(false, 'invalid', 'The input is not valid.', errors => problems);
    END IF;

    SELECT p.id INTO product
    FROM tb_product AS p
    WHERE p.tenant_id = tenancy.current_tenant_id() AND p.id = (input ->> 'product_id')::uuid;
    IF product IS NULL THEN
        RETURN tenancy.mutation_result(false, 'not_found', 'There is no such product.');
    END IF;
    SELECT f.price, f.valid_from, nullif(f.valid_to, 'infinity') AS valid_to INTO answer
    FROM fn_find_price(product, input ->> 'currency', on_day, (input ->> 'as_of')::timestamptz) AS f;
    RETURN tenancy.mutation_result(
        true,
        CASE WHEN answer.price IS NULL THEN 'no_price' ELSE 'found' END,
        CASE WHEN answer.price IS NULL THEN 'There is no price for that day.' ELSE 'This is the price.' END,
        jsonb_build_object('currency', input -> 'currency', 'day', on_day, 'price', answer.price,
                           'valid_from', answer.valid_from, 'valid_to', answer.valid_to));
END
$$;
