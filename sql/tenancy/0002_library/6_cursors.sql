-- Cursors: places in the rows of a collection, which a client carries about and cannot read, change or use elsewhere.

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

GRANT EXECUTE ON FUNCTION seal_cursor(jsonb, jsonb), open_cursor(jsonb, text) TO cp_owner, cp_definer, cp_request;
