-- Pages of a collection, one after the other, at a cost that does not grow with the depth.
--
-- A page begins where a cursor says: at the key values of a row, not at a number of rows, so that rows which come and
-- go meanwhile make no other row appear twice or not at all. The register of the template says which collections have
-- pages, by which columns they may be sorted and what may be filtered. Errors: 22023 for a request that is not
-- allowed, P0002 for a collection that does not exist.

-- What the cursors of this database are authenticated with. No request can read it.
CREATE TABLE cursor_secret (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    secret bytea NOT NULL
);

-- Called once here, and when a copy of a database becomes a tenant's: each has a secret of its own.
CREATE FUNCTION renew_cursor_secret() RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO tenancy.cursor_secret (secret)
    VALUES (sha256((gen_random_uuid()::text || gen_random_uuid()::text)::bytea))  -- 244 random bits
    ON CONFLICT (id) DO UPDATE SET secret = excluded.secret
$$;
SELECT renew_cursor_secret();

-- Zero bytes after a key of up to 64, each byte combined with `pad`.
CREATE FUNCTION hmac_block(key bytea, pad bit) RETURNS bytea
IMMUTABLE PARALLEL SAFE
RETURN substring(
    bit_send(('x' || rpad(encode(key, 'hex'), 128, '0'))::bit(512) # repeat(pad::text, 64)::bit(512))
    FROM 5);  -- the first four bytes count the bits

-- HMAC-SHA-256 as in RFC 2104, since pgcrypto is not everywhere and sha256() is.
CREATE FUNCTION hmac_sha256(key bytea, message bytea) RETURNS bytea
IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT sha256(tenancy.hmac_block(k, b'01011100') || sha256(tenancy.hmac_block(k, b'00110110') || message))
    FROM (SELECT CASE WHEN length(key) > 64 THEN sha256(key) ELSE key END) AS fitting (k)
);

-- The form of base64 that stands in an address as it is.
CREATE FUNCTION url_base64(content bytea) RETURNS text
IMMUTABLE PARALLEL SAFE
RETURN translate(encode(content, 'base64'), E'+/=\n', '-_');

-- What a cursor is good for: a place in this tenant's rows of one collection, in one order, under one filter.
CREATE FUNCTION cursor_mac(scope jsonb, place bytea) RETURNS bytea
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- One text for one value: jsonb orders keys and quotes what it holds, and its text ends before the zero byte.
    RETURN tenancy.hmac_sha256(
        (SELECT c.secret FROM tenancy.cursor_secret c),
        convert_to(jsonb_build_array(1, tenancy.current_tenant_id(), scope)::text, 'UTF8') || '\x00'::bytea || place);
END
$$;

-- The cursor for a place: byte 1 is the version, then come 32 bytes that authenticate it, then the place.
CREATE FUNCTION seal_cursor(scope jsonb, place jsonb) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    content bytea := convert_to(place::text, 'UTF8');
BEGIN
    RETURN tenancy.url_base64('\x01'::bytea || tenancy.cursor_mac(scope, content) || content);
END
$$;

-- The place that a cursor stands for. Whatever is wrong with it, the answer is the same.
CREATE FUNCTION open_cursor(scope jsonb, cursor text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    content bytea;
    place bytea;
BEGIN
    IF cursor ~ '^[A-Za-z0-9_-]+$' AND length(cursor) % 4 <> 1 AND length(cursor) <= 16384 THEN
        content := decode(rpad(translate(cursor, '-_', '+/'), (length(cursor) + 3) / 4 * 4, '='), 'base64');
        place := substring(content FROM 34);
        IF length(content) > 33 AND get_byte(content, 0) = 1
           AND tenancy.url_base64(content) = cursor  -- the bits that base64 ignores may not vary either
           -- Digests are compared, so that the time it takes tells nothing of the right value.
           AND sha256(substring(content FROM 2 FOR 32)) = sha256(tenancy.cursor_mac(scope, place)) THEN
            RETURN convert_from(place, 'UTF8')::jsonb;
        END IF;
    END IF;
    RAISE EXCEPTION 'the cursor does not belong to this page' USING ERRCODE = 'invalid_parameter_value';
END
$$;

-- The view of an API version's collection ('2.users') in the caller's home, and what the register says of it.
CREATE FUNCTION find_collection(collection text, OUT view_name regclass, OUT register jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    register := tenancy.declared('collections', collection);
    SELECT c.oid INTO view_name
    FROM tenancy.homes h
    JOIN pg_namespace n ON n.nspname = h.schema_name || '__api_v' || split_part(collection, '.', 1)
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = split_part(collection, '.', 2) AND c.relkind = 'v'
    WHERE h.id = tenancy.caller_home() AND register IS NOT NULL;
    IF view_name IS NULL THEN
        RAISE EXCEPTION 'there is no such collection' USING ERRCODE = 'no_data_found';
    END IF;
END
$$;

-- The type of a view's column, as SQL writes it.
CREATE FUNCTION column_type(view_name regclass, column_name text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    type_name text;
BEGIN
    SELECT format_type(a.atttypid, NULL) INTO STRICT type_name
    FROM pg_attribute a
    WHERE a.attrelid = view_name AND a.attname = column_name AND a.attnum > 0 AND NOT a.attisdropped;
    RETURN type_name;
END
$$;

-- One value of a filter as text that can be read as `type_name`, or 22023.
CREATE FUNCTION filter_value(value jsonb, type_name text, what text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    content text := value #>> '{}';
BEGIN
    IF jsonb_typeof(value) NOT IN ('string', 'number', 'boolean')
       -- 'now' and 'today' are times to PostgreSQL
       OR (type_name IN ('date', 'timestamp with time zone') AND content !~ '^\d{4}-\d{2}-\d{2}')
       OR NOT tenancy.is_valid(content, type_name::regtype) THEN
        RAISE EXCEPTION '% has a value of the wrong form', what USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN content;
END
$$;

-- Filters {column: {operator: value}} as conditions. Values are no part of the text: they come back as an array, which
-- is $2 of the statement, and are cast to the very type of the column, since no other comparison uses an index under
-- row-level security.
CREATE FUNCTION filter_conditions(
    view_name regclass, allowed jsonb, filters jsonb, OUT conditions text, OUT filter_values text[]
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    filter record;
    what text;
    type_name text;
    placed text;
BEGIN
    conditions := '';
    filter_values := '{}';
    IF jsonb_typeof(filters) <> 'object' OR EXISTS (
        SELECT FROM jsonb_each(filters) AS f WHERE jsonb_typeof(f.value) <> 'object' OR f.value = '{}'
    ) THEN
        RAISE EXCEPTION 'filters have the form {column: {operator: value}}' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    FOR filter IN
        SELECT c.key AS column_name, o.key AS operator, o.value
        FROM jsonb_each(filters) AS c CROSS JOIN LATERAL jsonb_each(c.value) AS o
        ORDER BY c.key, o.key
    LOOP
        what := format('the filter %s.%s', filter.column_name, filter.operator);
        IF NOT coalesce(allowed -> filter.column_name ? filter.operator, false) THEN
            RAISE EXCEPTION '% does not exist', what USING ERRCODE = 'invalid_parameter_value';
        END IF;
        type_name := tenancy.column_type(view_name, filter.column_name);
        placed := format('($2)[%s]::%s', cardinality(filter_values) + 1, type_name);
        CASE filter.operator
        WHEN 'is' THEN
            IF filter.value NOT IN ('"null"', '"not_null"') THEN
                RAISE EXCEPTION '% is null or not_null', what USING ERRCODE = 'invalid_parameter_value';
            END IF;
            conditions := conditions || format(
                ' AND %I IS %s', filter.column_name, CASE filter.value WHEN '"null"' THEN 'NULL' ELSE 'NOT NULL' END);
        WHEN 'in' THEN
            IF jsonb_typeof(filter.value) <> 'array' OR jsonb_array_length(filter.value) > 100 THEN
                RAISE EXCEPTION '% takes a list of up to 100 values', what USING ERRCODE = 'invalid_parameter_value';
            END IF;
            filter_values := filter_values || ARRAY(
                SELECT tenancy.filter_value(e, type_name, what) FROM jsonb_array_elements(filter.value) AS e)::text;
            conditions := conditions || format(' AND %I = ANY (%s[])', filter.column_name, placed);
        ELSE
            filter_values := filter_values || tenancy.filter_value(filter.value, type_name, what);
            conditions := conditions || format(
                ' AND %I %s %s', filter.column_name,
                CASE filter.operator
                    WHEN 'eq' THEN '=' WHEN 'neq' THEN '<>' WHEN 'gt' THEN '>' WHEN 'gte' THEN '>=' WHEN 'lt' THEN '<'
                    WHEN 'lte' THEN '<=' WHEN 'like' THEN 'LIKE' WHEN 'ilike' THEN 'ILIKE'
                END,
                placed);
        END CASE;
    END LOOP;
END
$$;

-- The statement that reads documents and their keys: $1 is the tenant, $2 the values. The comparison of rows
-- (a, id) > (x, y) is one range of the index (tenant_id, a, id); spelled out with OR it would filter all rows before.
CREATE FUNCTION page_statement(
    view_name regclass,
    keys text[],
    ascending boolean,
    conditions text DEFAULT '',
    comparison text DEFAULT '',  -- with the key values, which stand in $2 from `first_value` on
    first_value integer DEFAULT 1
) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('SELECT data, jsonb_build_array(%s) AS key FROM %s WHERE tenant_id = $1::uuid%s%s ORDER BY %s',
                  string_agg(quote_ident(k), ', ' ORDER BY n),
                  view_name,
                  conditions,
                  CASE WHEN comparison <> '' THEN
                      format(' AND ROW(%s) %s ROW(%s)',
                             string_agg(quote_ident(k), ', ' ORDER BY n),
                             comparison,
                             string_agg(format('($2)[%s]::%s', first_value + n - 1, tenancy.column_type(view_name, k)),
                                        ', ' ORDER BY n))
                  END,
                  string_agg(quote_ident(k) || CASE WHEN ascending THEN '' ELSE ' DESC' END, ', ' ORDER BY n))
    FROM unnest(keys) WITH ORDINALITY AS u (k, n)
$$;

-- {items, page: {next, prev, has_next, has_prev}}: up to `page_limit` documents, always in the order that was asked for.
--   collection   '<api>.<resource>' of the caller's home
--   sort         a column that the register allows; the key of the collection follows it, so that the order is total
--   direction    asc or desc
--   filters      {column: {operator: value}} as the register allows
--   page_limit   1 to 100
--   cursor       `next` or `prev` of a page with the same collection, sort, direction and filters; none: the first page
CREATE FUNCTION read_page(
    collection text,
    sort text DEFAULT NULL,
    direction text DEFAULT NULL,
    filters jsonb DEFAULT NULL,
    page_limit integer DEFAULT NULL,
    cursor text DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_view regclass;
    register jsonb;
    first_order text;
    keys text[];
    scope jsonb;
    place jsonb;
    forward boolean;      -- towards the end of the order
    rising boolean;       -- the key values rise on the way
    conditions text;
    given text[];         -- the values of the filters
    items jsonb[];
    item_keys jsonb[];
    more boolean;         -- further on the way
    behind boolean := false;
    last_key jsonb;
    first_key jsonb;
    at_first boolean := false;
    ahead_cursor text;
    behind_cursor text;
BEGIN
    IF tenancy.current_tenant_id() IS NULL THEN
        RAISE EXCEPTION 'a page needs a tenant context' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT * INTO found_view, register FROM tenancy.find_collection(collection);

    first_order := register -> 'order' ->> 0;
    direction := coalesce(direction, CASE WHEN sort IS NULL AND first_order LIKE '-%' THEN 'desc' ELSE 'asc' END);
    sort := coalesce(sort, ltrim(first_order, '-'));
    page_limit := coalesce(page_limit, least(20, (register ->> 'max_limit')::integer));
    filters := coalesce(filters, '{}');
    IF NOT (register -> 'sorts' ? sort OR register -> 'key' ? sort) THEN
        RAISE EXCEPTION 'the collection has no such sort' USING ERRCODE = 'invalid_parameter_value';
    ELSIF direction NOT IN ('asc', 'desc') THEN
        RAISE EXCEPTION 'the direction is asc or desc' USING ERRCODE = 'invalid_parameter_value';
    ELSIF page_limit NOT BETWEEN 1 AND least(100, (register ->> 'max_limit')::integer) THEN
        RAISE EXCEPTION 'the limit is out of range' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    keys := sort || ARRAY(
        SELECT k FROM jsonb_array_elements_text(register -> 'key') WITH ORDINALITY AS e (k, n) WHERE k <> sort ORDER BY n);
    SELECT * INTO conditions, given FROM tenancy.filter_conditions(found_view, register -> 'filters', filters);

    scope := jsonb_build_array(collection, sort, direction, filters);
    IF cursor IS NOT NULL THEN
        place := tenancy.open_cursor(scope, cursor);
    END IF;
    forward := coalesce(place ->> 'go', 'next') = 'next';
    rising := forward = (direction = 'asc');

    -- One row more than asked for tells whether there are more.
    EXECUTE format(
        'SELECT array_agg(data), array_agg(key) FROM (%s LIMIT %s) AS page',
        tenancy.page_statement(
            found_view, keys, rising, conditions,
            CASE WHEN place IS NULL THEN '' ELSE tenancy.beyond(rising, (place -> 'at')::boolean) END,
            cardinality(given) + 1),
        page_limit + 1)
    INTO items, item_keys
    USING tenancy.current_tenant_id(), given || tenancy.elements(place -> 'key');
    more := coalesce(cardinality(items), 0) > page_limit;
    items := coalesce(items[:page_limit], '{}');
    item_keys := item_keys[:page_limit];

    -- The way back begins before the first row; on a page that has lost all its rows, where the way here began.
    IF place IS NOT NULL THEN
        first_key := coalesce(item_keys[1], place -> 'key');
        at_first := cardinality(items) = 0 AND NOT (place -> 'at')::boolean;
        EXECUTE format(
            'SELECT EXISTS (%s LIMIT 1)',
            tenancy.page_statement(
                found_view, keys, NOT rising, conditions, tenancy.beyond(NOT rising, at_first), cardinality(given) + 1))
        INTO behind
        USING tenancy.current_tenant_id(), given || tenancy.elements(first_key);
    ELSE
        first_key := item_keys[1];
    END IF;
    last_key := item_keys[cardinality(item_keys)];

    IF more THEN
        ahead_cursor := tenancy.seal_cursor(scope, jsonb_build_object(
            'key', last_key, 'at', false, 'go', CASE WHEN forward THEN 'next' ELSE 'prev' END));
    END IF;
    IF behind THEN
        behind_cursor := tenancy.seal_cursor(scope, jsonb_build_object(
            'key', first_key, 'at', at_first, 'go', CASE WHEN forward THEN 'prev' ELSE 'next' END));
    END IF;
    IF NOT forward THEN
        items := ARRAY(SELECT items[n] FROM generate_subscripts(items, 1) AS n ORDER BY n DESC);
    END IF;
    RETURN jsonb_build_object(
        'items', to_jsonb(items),
        'page', jsonb_build_object(
            'next', CASE WHEN forward THEN ahead_cursor ELSE behind_cursor END,
            'prev', CASE WHEN forward THEN behind_cursor ELSE ahead_cursor END,
            'has_next', CASE WHEN forward THEN more ELSE behind END,
            'has_prev', CASE WHEN forward THEN behind ELSE more END));
END
$$;

GRANT EXECUTE ON FUNCTION
    read_page(text, text, text, jsonb, integer, text), find_collection(text), column_type(regclass, text),
    filter_value(jsonb, text, text), filter_conditions(regclass, jsonb, jsonb),
    page_statement(regclass, text[], boolean, text, text, integer), seal_cursor(jsonb, jsonb), open_cursor(jsonb, text)
    TO cp_owner, cp_definer, cp_request;
