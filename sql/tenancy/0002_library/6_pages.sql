-- Pages of a collection, one after the other, at a cost that does not grow with the depth.
--
-- A page begins where a cursor says: at the key values of a row, not at a number of rows, so that rows which come and
-- go meanwhile make no other row appear twice or not at all. The register of the template says which collections have
-- pages, by which columns they may be sorted and what may be filtered. Errors: 22023 for a request that is not
-- allowed, P0002 for a collection that does not exist.

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
        placed := format('($2::text[])[%s]::%s', cardinality(filter_values) + 1, type_name);
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

-- The statement that reads documents and their keys: $1 is the tenant, $2 the values of the conditions and, after
-- `filter_count` of them, of the key that the page begins at (`at`: with that row) or, null, of no key. The comparison
-- of rows (a, id) > (x, y) is one range of the index (tenant_id, a, id); spelled out with OR it would filter all rows
-- before.
CREATE FUNCTION page_statement(
    view_name regclass, keys text[], rising boolean, conditions text, at boolean, filter_count integer
) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat(
        format('SELECT data, jsonb_build_array(%s) AS key FROM %s WHERE tenant_id = $1::uuid',
               string_agg(quote_ident(k), ', ' ORDER BY n), view_name),
        conditions,
        CASE WHEN at IS NOT NULL THEN
            format(' AND ROW(%s) %s ROW(%s)',
                   string_agg(quote_ident(k), ', ' ORDER BY n),
                   CASE WHEN rising THEN '>' ELSE '<' END || CASE WHEN at THEN '=' ELSE '' END,
                   string_agg(
                       format('($2::text[])[%s]::%s', filter_count + n, tenancy.column_type(view_name, k)),
                       ', ' ORDER BY n))
        END,
        ' ORDER BY ',
        string_agg(quote_ident(k) || CASE WHEN rising THEN '' ELSE ' DESC' END, ', ' ORDER BY n))
    FROM unnest(keys) WITH ORDINALITY AS u (k, n)
$$;

-- {items, page: {next, prev, has_next, has_prev}}: up to `page_limit` documents, always in the order asked for.
--   collection   '<api>.<resource>' of the caller's home
--   sort         a column that the register allows, or the first of the key; the key follows, so that the order is total
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
    place jsonb;          -- where the page begins: {key, at: with the row of that key, go: next or prev}
    forward boolean;      -- towards the end of the order
    rising boolean;       -- the key values rise on the way
    conditions text;
    given text[];         -- the values of the filters
    items jsonb[];        -- in the order of the way
    item_keys jsonb[];
    ahead boolean;        -- there are rows further on the way
    ahead_cursor text;
    behind boolean := false;
    behind_place jsonb;
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
    IF NOT (register -> 'sorts' ? sort OR register -> 'key' ->> 0 = sort) THEN
        RAISE EXCEPTION 'the collection has no such sort' USING ERRCODE = 'invalid_parameter_value';
    ELSIF direction NOT IN ('asc', 'desc') THEN
        RAISE EXCEPTION 'the direction is asc or desc' USING ERRCODE = 'invalid_parameter_value';
    ELSIF page_limit NOT BETWEEN 1 AND least(100, (register ->> 'max_limit')::integer) THEN
        RAISE EXCEPTION 'the limit is out of range' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    keys := sort || ARRAY(
        SELECT k
        FROM jsonb_array_elements_text(register -> 'key') WITH ORDINALITY AS e (k, n)
        WHERE k <> sort
        ORDER BY n);
    SELECT * INTO conditions, given FROM tenancy.filter_conditions(found_view, register -> 'filters', filters);

    scope := jsonb_build_array(collection, sort, direction, filters);
    IF cursor IS NOT NULL THEN
        place := tenancy.open_cursor(scope, cursor);
    END IF;
    forward := place IS NULL OR place ->> 'go' = 'next';
    rising := forward = (direction = 'asc');

    -- One row more than asked for tells whether there are more.
    EXECUTE format(
        'SELECT array_agg(data), array_agg(key) FROM (%s LIMIT %s) AS page',
        tenancy.page_statement(found_view, keys, rising, conditions, (place -> 'at')::boolean, cardinality(given)),
        page_limit + 1)
    INTO items, item_keys
    USING tenancy.current_tenant_id(), given || ARRAY(SELECT jsonb_array_elements_text(place -> 'key'));
    ahead := coalesce(cardinality(items), 0) > page_limit;
    items := coalesce(items[:page_limit], '{}');
    item_keys := item_keys[:page_limit];
    IF ahead THEN
        ahead_cursor := tenancy.seal_cursor(scope, jsonb_build_object(
            'key', item_keys[page_limit], 'at', false, 'go', CASE WHEN forward THEN 'next' ELSE 'prev' END));
    END IF;

    -- The way back begins before the first row; on a page that has lost all its rows, where the way here began.
    IF place IS NOT NULL THEN
        behind_place := jsonb_build_object(
            'key', coalesce(item_keys[1], place -> 'key'),
            'at', items = '{}' AND NOT (place -> 'at')::boolean,
            'go', CASE WHEN forward THEN 'prev' ELSE 'next' END);
        EXECUTE format(
            'SELECT EXISTS (%s LIMIT 1)',
            tenancy.page_statement(
                found_view, keys, NOT rising, conditions, (behind_place -> 'at')::boolean, cardinality(given)))
        INTO behind
        USING tenancy.current_tenant_id(), given || ARRAY(SELECT jsonb_array_elements_text(behind_place -> 'key'));
    END IF;
    IF behind THEN
        behind_cursor := tenancy.seal_cursor(scope, behind_place);
    END IF;

    IF NOT forward THEN
        items := ARRAY(SELECT items[n] FROM generate_subscripts(items, 1) AS n ORDER BY n DESC);
    END IF;
    RETURN jsonb_build_object(
        'items', to_jsonb(items),
        'page', jsonb_build_object(
            'next', CASE WHEN forward THEN ahead_cursor ELSE behind_cursor END,
            'prev', CASE WHEN forward THEN behind_cursor ELSE ahead_cursor END,
            'has_next', CASE WHEN forward THEN ahead ELSE behind END,
            'has_prev', CASE WHEN forward THEN behind ELSE ahead END));
END
$$;

GRANT EXECUTE ON FUNCTION
    read_page(text, text, text, jsonb, integer, text), find_collection(text), column_type(regclass, text),
    filter_value(jsonb, text, text), filter_conditions(regclass, jsonb, jsonb),
    page_statement(regclass, text[], boolean, text, boolean, integer)
    TO cp_owner, cp_definer, cp_request;
